"""A validation that two processes share against that of one: every digit."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from detseg.checkpoint import LAST
from detseg.data.loading.loader import eval_loader
from detseg.evaluation.evaluate import evaluate_checkpoint
from detseg.factory import load_model
from detseg.models.acceleration import fuse
from detseg.ops.letterbox import to_float
from detseg.tasks import kind_of
from detseg.training.distributed.processes import Processes
from detseg.training.distributed.validation import score_together
from detseg.training.run import train
from tests.forked import run_together
from tests.tiny import WORTH_COMPARING, TinyRun, tiny_config, write_colors, write_config

pytestmark = pytest.mark.filterwarnings("ignore")
BOTH = ("trainer.devices=2", "trainer.strategy=ddp", "data.batch_size=1")


@dataclass(frozen=True)
class SharedRun:
    """A training of one process that two went on with.

    Attributes:
        run_dir: its folder; the last epoch, and its validation, are those of two processes.
        best: the best checkpoint of the one process.
        headlines: what an evaluation of that, shared by two processes, tells each.
        numbers: all its numbers, which the first has.
    """

    run_dir: Path
    best: Path
    headlines: list[dict[str, float]]
    numbers: dict[str, Any]


def go_on_and_evaluate(
    runs: dict[str, tuple[Path, Path, Path, tuple[str, ...]]],
) -> dict[str, tuple[dict[str, float], dict[str, Any] | None]]:
    """Go on with each run, in two processes and with the same global batch; then share an evaluation of its best
    checkpoint, in the batches of two images in which one process evaluates it."""
    outcomes = {}
    for name, (config_path, run_dir, best, overrides) in runs.items():
        train(tiny_config(config_path, run_dir, *BOTH, *overrides), config_path, "last")
        processes = Processes()
        model, config, contents = load_model(best)
        model = fuse(model, "cpu")  # as whatever makes a number does
        evaluator = kind_of(config.model).evaluator(contents.classes, config.evaluation)
        loader = eval_loader(
            kind_of(config.model).open_dataset(config.data, "val", contents.classes),
            input_hw=config.data.input_hw,
            batch_size=config.data.num_images,
            num_workers=0,
            rank=processes.rank,
            world_size=processes.world_size,
        )
        for batch in loader:
            if len(batch):
                evaluator.update_batch(batch, model.predict(to_float(batch.images)))
        result, headline = score_together(evaluator, processes)
        outcomes[name] = (headline, None if result is None else result.to_dict())
    return outcomes


@pytest.fixture(scope="module")
def shared(
    tiny_run: TinyRun,
    tiny_instances: TinyRun,
    tiny_segmentation: TinyRun,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, SharedRun]:
    """A run of each kind of model."""
    folder = tmp_path_factory.mktemp("shared")
    made = {"yolo": tiny_run, "mask": tiny_instances, "unet": tiny_segmentation}
    runs = {}
    for name, run in made.items():
        shutil.copytree(run.run_dir, folder / name)
        one_more = (f"trainer.max_epochs={int(run.rows()[-1]['epoch']) + 1}",)
        runs[name] = (run.config_path, folder / name, run.best, one_more)
    first, second = run_together(go_on_and_evaluate, 2, runs)
    assert all(second[name][1] is None for name in made)
    return {
        name: SharedRun(folder / name, run.best, [first[name][0], second[name][0]], first[name][1])
        for name, run in made.items()
    }


@pytest.mark.parametrize("name", ["yolo", "mask", "unet"])
def test_an_evaluation_by_two_processes_has_every_digit_of_that_by_one(name: str, shared: dict[str, SharedRun]) -> None:
    run = shared[name]
    alone = evaluate_checkpoint(run.best, "val", device="cpu")
    assert run.headlines == [alone.headline] * 2
    assert run.numbers == alone.to_dict()
    assert run.numbers["num_images"] == 9  # in batches of two: three of them against two and a single image
    assert next(iter(alone.headline.values())) >= WORTH_COMPARING


@pytest.mark.parametrize("name", ["yolo", "mask", "unet"])
def test_the_numbers_of_a_shared_validation_are_those_of_the_checkpoint(
    name: str, shared: dict[str, SharedRun]
) -> None:
    run_dir = shared[name].run_dir
    alone = evaluate_checkpoint(run_dir / "checkpoints" / LAST, "val", device="cpu")
    together = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
    assert together == json.loads(json.dumps(alone.to_dict()))
    row = TinyRun(run_dir, run_dir, run_dir).rows()[-1]
    assert {number: float(row[f"val/{number}"]) for number in alone.headline} == alone.headline
    # The epoch that two processes added has a hundredth of the learning rate: it cannot undo what there was.
    assert next(iter(alone.headline.values())) > WORTH_COMPARING / 2


def train_with_one_validation_image(config_path: Path, run_dir: Path) -> None:
    """An epoch of two processes of which the second has nothing to validate."""
    one_epoch = ("trainer.max_epochs=1", "trainer.early_stopping_patience=1")
    train(tiny_config(config_path, run_dir, *BOTH, *one_epoch), config_path)


def test_a_process_without_any_image_to_validate_waits_for_the_other(tmp_path: Path) -> None:
    root = write_colors(tmp_path / "colors", {"train": 3, "val": 2})
    (root / "ImageSets" / "Main" / "val.txt").write_text("val00", encoding="utf-8")
    run_together(train_with_one_validation_image, 2, write_config(tmp_path / "tiny.yaml", root), tmp_path / "run")
    alone = evaluate_checkpoint(tmp_path / "run" / "checkpoints" / LAST, "val", device="cpu")
    together = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert together == json.loads(json.dumps(alone.to_dict()))
    assert (together["num_images"], together["num_objects"]) == (1, 1)
    (row,) = TinyRun(root, root, tmp_path / "run").rows()
    assert float(row["val/loss"]) > 0
