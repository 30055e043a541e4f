"""``data.batch_size: auto``: the search, the worst batch, trials on it, and what becomes of the number."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from detseg.checkpoint import ENTRY, read_raw_checkpoint
from detseg.config.load import config_from_dict
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.datasets.contract import EvalSource
from detseg.data.loading.sampling import EpochBatchSampler
from detseg.errors import CheckpointError, ConfigError
from detseg.evaluation import evaluate_checkpoint, evaluation_config
from detseg.tasks import kind_of
from detseg.training.run import train
from detseg.training.setup.batch_size import Trial, WorstImage, gpu_of_run, largest_batch, scaled_rate, with_batch_size
from detseg.training.setup.build import build_task
from tests.heard import heard
from tests.tiny import WRITERS, TinyRun, tiny_config
from tests.training.stub import OneWeight, task_of

CPU = torch.device("cpu")
Settings = Callable[..., ExperimentConfig]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Settings]:
    """Settings with ``auto`` and overrides, of training sets of 12 images with up to 2 objects."""
    found: dict[str, Settings] = {}
    for name, (write, write_data) in WRITERS.items():
        folder = tmp_path_factory.mktemp(name)
        path = write(folder / "tiny.yaml", write_data(folder / "data", {"train": 12, "val": 3}))
        auto = ("data.batch_size=auto", "trainer.max_epochs=2", "optimizer.lr=0.01")
        found[name] = partial(tiny_config, path, None, *auto)
    return found


@pytest.fixture(scope="module")
def yolo(kinds: dict[str, Settings]) -> Settings:
    return kinds["yolo"]


def train_set(config: ExperimentConfig) -> EvalSource:
    return kind_of(config.model).open_dataset(config.data, "train")


def test_the_largest_batch_is_found() -> None:
    for most in (1, 3, 5, 8, 12, 21, 50, 1024):
        for room in (*range(60), 500, 1023, 5000):
            tried: list[int] = []
            found = largest_batch(lambda num, room=room, tried=tried: tried.append(num) or num <= room, most)
            largest = min(room, most)
            assert found == (largest if largest < 8 else largest - largest % 4)
            assert len(set(tried)) == len(tried) <= 19
            assert max(tried) <= most


@pytest.mark.parametrize(
    ("name", "num_images", "expected"),
    [("sgd", 16, 0.01), ("sgd", 4, 0.0025), ("adamw", 64, 0.02), ("adam", 4, 0.005), ("rmsprop", 8, 0.007071)],
)
def test_the_rate(name: str, num_images: int, expected: float) -> None:
    settings = {"optimizer": {"name": name, "lr": 0.01}, "data": {"name": "voc", "root": "x"}}
    assert scaled_rate(config_from_dict(settings, "settings").optimizer, num_images) == expected


@pytest.mark.parametrize(
    ("name", "overrides", "num_objects"),
    [
        ("yolo", (), 2),
        ("yolo", ("data.augmentation.mosaic=0.1",), 8),
        ("yolo", ("data.augmentation.mixup=0.1",), 4),
        ("yolo", ("data.augmentation.mosaic=0.1", "data.augmentation.mixup=0.1"), 16),
        ("yolo", ("data.augmentation.mosaic=0.1", "data.augmentation.no_mosaic_last_epochs=2"), 2),
        ("mask_rcnn", ("data.augmentation.mosaic=0.1", "data.augmentation.copy_paste=0.1"), 10),
        ("mask_rcnn", (), 8),  # all the positives that it samples: a quarter of 32
    ],
)
def test_the_fullest_image(kinds: dict[str, Settings], name: str, overrides: tuple[str, ...], num_objects: int) -> None:
    config = kinds[name](*overrides)
    assert WorstImage.of(config, train_set(config)) == WorstImage((64, 64), num_objects)


@pytest.mark.parametrize("multi_scale", [(0.4, 1.6), (0.5, 1.24), (0.3, 0.6)])
def test_no_batch_is_larger_than_the_worst(yolo: Settings, multi_scale: tuple[float, float]) -> None:
    config = yolo(f"data.augmentation.multi_scale={list(multi_scale)}", "data.image_size=[96, 160]")
    sampler = EpochBatchSampler(1000, 1, 0, (96, 160), multi_scale=multi_scale)
    sizes = {sampler.batch_hw(0, number) for number in range(1000)} | {(96, 160)}
    assert WorstImage.of(config, train_set(config)).hw == (max(h for h, _ in sizes), max(w for _, w in sizes))


def trial_of(config: ExperimentConfig) -> Trial:
    images = train_set(config)
    task = build_task(config, images.classes, load_pretrained=False)
    return Trial(task, config, WorstImage.of(config, images), CPU)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_trial_trains(kind: str, kinds: dict[str, Settings]) -> None:
    trial = trial_of(kinds[kind]("data.batch_size=1", "trainer.precision=bfloat16"))
    before = [parameter.detach().clone() for parameter in trial.task.model.parameters()]
    assert trial.fits(2)
    assert trial.fits(1)
    assert len(trial.optimizer.state) == len(before)
    assert {int(state["step"]) for state in trial.optimizer.state.values()} == {4}
    assert all(torch.equal(a, b) for a, b in zip(before, trial.task.model.parameters(), strict=True))


def test_a_trial_trains_what_the_run_will_train_later(yolo: Settings) -> None:
    trial = trial_of(yolo("data.batch_size=1", "model.backbone.freeze=backbone", "model.backbone.unfreeze_epoch=2"))
    assert all(parameter.requires_grad for parameter in trial.task.model.parameters())


class Limited(OneWeight):
    """There is no memory for more than 5 images."""

    def losses(self, images: torch.Tensor, targets: object) -> dict[str, torch.Tensor]:
        if len(images) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return {"only": self(images)[0]}


def test_what_does_not_fit_is_survived(yolo: Settings) -> None:
    trial = Trial(task_of(Limited()), yolo(), WorstImage((64, 64), 2), CPU)
    assert largest_batch(trial.fits, 1024) == 5


def test_the_numbers_are_those_by_hand_and_nothing_else_changes(yolo: Settings) -> None:
    """All 12 training images fit into main memory; 0.01 x sqrt(12 / 16) = 0.00866."""
    config = yolo()
    states = torch.get_rng_state(), random.getstate()
    with heard() as lines:
        found = with_batch_size(config, train_set(config), None, CPU)
        assert with_batch_size(found, train_set(config), None) is found
    assert found == yolo("data.batch_size=12", "optimizer.lr=0.00866")
    (line,) = lines
    assert line == (
        "data.batch_size=12: the largest that fits on cpu with images of 64 x 64 pixels and 2 objects; "
        "optimizer.lr=0.00866 (0.01 x sqrt(12/16))"
    )
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()


def test_it_needs_a_cuda_gpu(yolo: Settings, tmp_path: Path) -> None:
    config = yolo(f"run_dir={tmp_path / 'run'}", "data.root=is_not_looked_for")
    with pytest.raises(ConfigError, match=r"^data.batch_size: auto is found on a CUDA GPU only, .*data.batch_size=16$"):
        train(config, Path("tiny.yaml"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu(yolo: Settings) -> None:
    config = yolo("trainer.accelerator=gpu", "trainer.devices=1")
    assert gpu_of_run(config) == torch.device("cuda", 0)
    assert with_batch_size(config, train_set(config), None).data.batch_size == 12
    with pytest.raises(ConfigError, match="is found by one process, and this run has several"):
        gpu_of_run(yolo("trainer.accelerator=gpu", "trainer.num_nodes=2"))


def test_a_resumed_run_takes_the_batch_that_it_had(yolo: Settings, tmp_path: Path) -> None:
    run_dir, path = f"run_dir={tmp_path / 'run'}", Path("tiny.yaml")
    train(yolo(run_dir, "data.batch_size=12", "optimizer.lr=0.00866", "trainer.max_epochs=1"), path)
    last = train(yolo(run_dir), path, resume="last") / "checkpoints" / "last.ckpt"
    kept = read_raw_checkpoint(last)
    assert kept["epoch"] == 1
    assert kept[ENTRY]["config"]["data"]["batch_size"] == 12
    assert kept[ENTRY]["config"]["optimizer"]["lr"] == 0.00866


def test_a_checkpoint_that_does_not_say_its_batch(yolo: Settings, tmp_path: Path) -> None:
    torch.save({"state_dict": {}, ENTRY: {"format": 1}}, tmp_path / "silent.ckpt")
    with pytest.raises(CheckpointError, match=r"does not say its data\.batch_size"):
        with_batch_size(yolo(), train_set(yolo()), tmp_path / "silent.ckpt")


def test_evaluation_and_overfit_batches_want_a_number(tiny_run: TinyRun, yolo: Settings) -> None:
    with pytest.raises(ConfigError, match=r"data\.batch_size: trainer\.overfit_batches counts batches"):
        yolo("trainer.overfit_batches=1")
    trained = read_raw_checkpoint(tiny_run.best)[ENTRY]["config"]
    config = evaluation_config(trained, str(tiny_run.best), ["data.batch_size=auto"])
    with pytest.raises(ConfigError, match=r"^data.batch_size: auto is found when a training begins; give a number"):
        evaluate_checkpoint(tiny_run.best, "val", config, device="cpu")
