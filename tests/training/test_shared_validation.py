"""A validation that two processes share against that of one: every digit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from detseg.checkpoint import LAST
from detseg.evaluation import evaluate_checkpoint
from detseg.training.run import train
from tests.forked import run_together
from tests.tiny import WORTH_COMPARING, TinyRun, rows_of, tiny_config, write_colors, write_config

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.processes]
BOTH = ("trainer.devices=2", "trainer.strategy=ddp", "data.batch_size=1")


def resume_all(runs: dict[Path, Path], overrides: dict[Path, tuple[str, ...]]) -> None:
    for run_dir, config_path in runs.items():
        train(tiny_config(config_path, run_dir, *BOTH, *overrides[run_dir]), config_path, "last")


def test_the_numbers_of_a_shared_validation_are_those_of_the_checkpoint_in_every_digit(
    tiny_run: TinyRun, tiny_instances: TinyRun, tiny_segmentation: TinyRun, tmp_path: Path
) -> None:
    """Two processes, with the same global batch, add an epoch to a run of one, of each kind of model."""
    made = {tmp_path / key: run for key, run in zip("abc", (tiny_run, tiny_instances, tiny_segmentation), strict=True)}
    for run_dir, run in made.items():
        shutil.copytree(run.run_dir, run_dir)
    one_more = {run_dir: (f"trainer.max_epochs={len(run.rows()) + 1}",) for run_dir, run in made.items()}
    run_together(resume_all, 2, {run_dir: run.config_path for run_dir, run in made.items()}, one_more)
    for run_dir in made:
        alone = evaluate_checkpoint(run_dir / "checkpoints" / LAST, "val", device="cpu")
        together = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
        assert together == json.loads(json.dumps(alone.to_dict()))
        assert together["num_images"] == 9  # five against four
        row = rows_of(run_dir)[-1]
        assert {number: float(row[f"val/{number}"]) for number in alone.headline} == alone.headline
        # The epoch has a hundredth of the learning rate: it cannot undo what there was.
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
    (row,) = rows_of(tmp_path / "run")
    assert float(row["val/loss"]) > 0
