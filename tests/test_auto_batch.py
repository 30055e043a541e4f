"""``data.batch_size: auto``: what is done with what is measured, and that the run is that of the number by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import TracebackType

import pytest
import torch
import yaml
from rich.console import Console

from detseg.checkpoint import ENTRY, read_raw_checkpoint
from detseg.config.schema.experiment import ExperimentConfig
from detseg.errors import CheckpointError, ConfigError
from detseg.evaluate import evaluate_checkpoint, evaluation_config
from detseg.experiment import auto_batch, train
from detseg.experiment.auto_batch import with_batch_size
from detseg.experiment.memory_probe import MemoryProbe
from tests.auto_setup import Setup, setup_of
from tests.tiny import write_segmentation_config

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return setup_of(tmp_path_factory.mktemp("yolo"))


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return setup_of(tmp_path_factory.mktemp("unet"), write_segmentation_config)


class Probe:
    """Takes the place of ``MemoryProbe``: 1 GiB and 100 MiB an image."""

    room = 10 * 2**30

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def measure(self, num_images: int) -> int:
        return (1024 + 100 * num_images) * 2**20


def printed(config: ExperimentConfig, setup: Setup, checkpoint: Path | None = None) -> tuple[ExperimentConfig, str]:
    console = Console(record=True, quiet=False, width=500, file=sys.stderr)
    return with_batch_size(config, setup.train_set(), checkpoint, console), console.export_text().strip()


def test_a_number_is_left_alone(yolo: Setup) -> None:
    config = yolo.config("data.batch_size=3")
    assert printed(config, yolo) == (config, "")


def test_the_number_by_hand(yolo: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_batch, "MemoryProbe", Probe)
    monkeypatch.setattr(auto_batch, "available_memory", lambda: 4000 * 2**20)
    # Half: 2000 MiB; (2000 - 1024) / 100 = 9.76, rounded to 8; 0.01 x sqrt(8 / 16).
    config, line = printed(yolo.config(), yolo)
    assert (config.data.batch_size, config.optimizer.lr) == (8, 0.007071)
    assert line == (
        "data.batch_size=8: takes 1.78 GiB with images of 64 x 64 pixels and 2 objects (measured 1: 1.10 GiB, 2: 1.20 "
        "GiB, 4: 1.39 GiB), within 50% of the 3.91 GiB of main memory that are available; optimizer.lr=0.007071 (0.01 "
        "x sqrt(8/16))"
    )
    sgd, line = printed(yolo.config("optimizer.name=sgd"), yolo)
    assert sgd.optimizer.lr == 0.005
    assert line.endswith("optimizer.lr=0.005 (0.01 x 8/16)")


def test_a_gpu_is_tried(unet: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_batch, "MemoryProbe", Probe)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    config, line = printed(unet.config("trainer.accelerator=gpu"), unet)
    assert config.data.batch_size == 12
    assert "within 85% of the 10.00 GiB that are free on cuda:0, all training images; optimizer.lr=0.00866" in line


@pytest.mark.parametrize(
    ("overrides", "world_size", "message"),
    [
        (("trainer.devices=2",), "1", "is found by one process, and this run has several"),
        (("trainer.num_nodes=2",), "1", "is found by one process, and this run has several"),
        ((), "2", "is found by one process, and this run has several"),
        (("trainer.accelerator=mps",), "1", "needs Linux or CUDA"),
        (("trainer.accelerator=gpu", "trainer.devices=1"), "1", "torch finds no CUDA device"),
    ],
)
def test_where_it_cannot_be_found(
    yolo: Setup, overrides: tuple[str, ...], world_size: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("WORLD_SIZE", world_size)
    with pytest.raises(ConfigError, match=f"^data.batch_size: auto .*{message}"):
        printed(yolo.config(*overrides), yolo)


def test_no_memory_that_can_be_read_or_taken(yolo: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_batch, "MemoryProbe", Probe)
    monkeypatch.setattr(auto_batch, "available_memory", lambda: None)
    with pytest.raises(ConfigError, match="needs Linux or CUDA"):
        printed(yolo.config(), yolo)
    monkeypatch.setattr(auto_batch, "available_memory", lambda: 2 * 2**30)
    with pytest.raises(
        ConfigError, match=r"not even one image of 64 x 64 pixels and 2 objects fits into 50% of the 2.00"
    ):
        printed(yolo.config(), yolo)


def test_batches_of_an_unknown_size_cannot_be_counted(yolo: Setup) -> None:
    with pytest.raises(ConfigError, match=r"data\.batch_size: trainer\.overfit_batches counts batches"):
        yolo.config("trainer.overfit_batches=1")


def test_whoever_writes_it_to_the_trainer_is_shown_where_it_belongs(yolo: Setup) -> None:
    with pytest.raises(ConfigError, match=r"trainer.batch_size: unknown key \(did you mean 'data.batch_size'\?\)"):
        yolo.config("trainer.batch_size=auto")


@pytest.fixture(scope="module")
def found(yolo: Setup) -> Path:
    """A training of one epoch whose batch was found, and what was measured for it."""
    torch.set_num_threads(1)
    measured: dict[int, int | None] = {}

    def measure(probe: MemoryProbe, num_images: int) -> int | None:
        measured[num_images] = original(probe, num_images)
        return measured[num_images]

    original = MemoryProbe.measure
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryProbe, "measure", measure)
        run_dir = train(yolo.config("trainer.max_epochs=1", run="found"), yolo.path)
    (run_dir / "measured.json").write_text(json.dumps(measured), encoding="utf-8")
    return run_dir


def test_what_training_takes_grows_with_the_batch(found: Path) -> None:
    measured = json.loads((found / "measured.json").read_text(encoding="utf-8"))
    assert list(measured) == ["1", "2", "4"]
    assert measured["4"] > measured["1"] > 3 * 4 * 64 * 64


def state(run_dir: Path) -> dict[str, object]:
    checkpoint = read_raw_checkpoint(run_dir / "checkpoints" / "last.ckpt")
    return {name: tensor.tolist() for name, tensor in checkpoint["state_dict"].items()}


def test_the_run_is_that_of_the_number_by_hand(yolo: Setup, found: Path) -> None:
    """Bit for bit: all 12 training images fit, and 0.01 x sqrt(12 / 16) = 0.00866."""
    by_hand = ("data.batch_size=12", "optimizer.lr=0.00866", "trainer.max_epochs=1")
    assert state(train(yolo.config(*by_hand, run="by_hand"), yolo.path)) == state(found)


def test_the_numbers_are_kept(found: Path) -> None:
    written = yaml.safe_load((found / "config.yaml").read_text(encoding="utf-8"))
    kept = read_raw_checkpoint(found / "checkpoints" / "last.ckpt")[ENTRY]["config"]
    for settings in (written, kept):
        assert (settings["data"]["batch_size"], settings["optimizer"]["lr"]) == (12, 0.00866)


def test_a_resumed_run_takes_the_batch_that_it_had(yolo: Setup, found: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(auto_batch, "MemoryProbe")
    last = found / "checkpoints" / "last.ckpt"
    config, line = printed(yolo.config(), yolo, last)
    assert (config.data.batch_size, config.optimizer.lr) == (12, 0.00866)
    assert line.startswith("data.batch_size=12: that of the run that is resumed; ")
    with pytest.raises(CheckpointError, match=r"optimizer.lr was 0.00866 and is 0.0433"):
        train(yolo.config("optimizer.lr=0.05", run="found"), yolo.path, resume=str(last))
    train(yolo.config(run="found"), yolo.path, resume="last")
    assert read_raw_checkpoint(last)[ENTRY]["config"]["data"]["batch_size"] == 12


def test_evaluation_wants_a_number(found: Path) -> None:
    best = found / "checkpoints" / "best.ckpt"
    trained = read_raw_checkpoint(best)[ENTRY]["config"]
    config = evaluation_config(trained, str(best), ["data.batch_size=auto"])
    with pytest.raises(
        ConfigError, match=r"^data.batch_size: auto is found when a training begins; give a number here$"
    ):
        evaluate_checkpoint(best, "val", config, device="cpu")
    assert evaluation_config(trained, str(best), []).data.batch_size == 12
