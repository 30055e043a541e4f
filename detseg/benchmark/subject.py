"""What a benchmark measures: the data, the task and the trainer of a configuration, put together as training does it.

Nothing is downloaded and no weights are fetched: they do not change what a step takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console

from detseg.benchmark.clock import Clock
from detseg.benchmark.measurement import Findings, Measurement
from detseg.benchmark.synthetic import MEAN_OBJECTS, with_synthetic_data
from detseg.checkpoint import read_model_checkpoint
from detseg.config.schema.data import ShapesConfig, VocConfig
from detseg.config.schema.experiment import ExperimentConfig
from detseg.errors import CheckpointError, ConfigError, DataError
from detseg.experiment.assembly import build_data, build_task
from detseg.experiment.preparation import AnyDataset, open_data, settings_from_data
from detseg.predict.load import find_device
from detseg.structures import Batch
from detseg.training.precision import resolve_precision
from detseg.training.task import Task


@dataclass
class Subject:
    """The parts of a training, ready to be run.

    Attributes:
        config: the settings, with what follows from the data filled in.
        train_set, val_set: the data.
        task: the model and how it trains.
        device: what a training would compute on.
        folder: an empty folder that is removed afterwards.
    """

    config: ExperimentConfig
    train_set: AnyDataset
    val_set: AnyDataset
    task: Task
    device: torch.device
    folder: Path

    @property
    def precision(self) -> str:
        """What the training's matrix products are computed in."""
        return resolve_precision(self.config.trainer.precision, self.device.type)

    @property
    def batch_size(self) -> int:
        """Images of a step."""
        return self.config.data.num_images

    def loaders(self, num_workers: int, train_set: Any = None) -> Any:
        """The data module of a training with so many loader processes; ``train_set``: another one than its own."""
        data = self.config.data.model_copy(update={"num_workers": num_workers})
        config = self.config.model_copy(update={"data": data})
        return build_data(config, self.train_set if train_set is None else train_set, self.val_set)

    def training_batches(self, num: int) -> list[Batch]:
        """The first batches of a training, loaded by this process."""
        batches: list[Batch] = []
        loader = self.loaders(0).train_dataloader()
        while len(batches) < num:
            for batch in loader:
                batches.append(batch)
                if len(batches) == num:
                    break
        return batches


@contextmanager
def opened(config: ExperimentConfig, synthetic: bool, checkpoint: Path | None, findings: Findings) -> Iterator[Subject]:
    """Put together what a configuration describes; what it took goes into the findings, at ``start``.

    Args:
        config: the settings.
        synthetic: look at made-up pictures instead of the data.
        checkpoint: whose weights the model gets; None: it begins anew.
        findings: where facts and times are put down.

    Raises:
        DetsegError: the settings, the data or the checkpoint are missing or wrong.
    """
    device = _device(config)
    _ = config.data.num_images  # raises where it is still to be found
    quiet = Console(quiet=True, force_terminal=False)
    with TemporaryDirectory(prefix="detseg-benchmark-") as name:
        folder = Path(name)
        config = _readable(config, synthetic, folder, quiet)
        seconds: list[float] = []
        try:
            with Clock().timing(seconds):
                train_set, val_set = open_data(config, quiet)
        except DataError as error:
            raise DataError(f"{error}; or measure on made-up pictures: --synthetic") from error
        config = settings_from_data(config, train_set, quiet)
        built: list[float] = []
        with Clock().timing(built):
            task = build_task(config, train_set.classes, quiet, load_pretrained=False)
        if checkpoint is not None:
            _load(task, checkpoint)
        subject = Subject(config, train_set, val_set, task, device, folder)
        num_images = f"{len(train_set)} training and {len(val_set)} validation images"
        findings.measurements += [
            Measurement("start", "opening the data", "s", tuple(seconds), note=num_images),
            Measurement("start", "building the model", "s", tuple(built)),
        ]
        findings.facts |= {
            "device": subject.device.type,
            "synthetic": synthetic,
            "data": _described(subject, synthetic),
            "model": f"{config.model.name}, {sum(p.numel() for p in task.model.parameters()) / 1e6:.2f} M parameters",
            "weights": "begin anew" if checkpoint is None else str(checkpoint),
            "precision": f"{subject.precision} (trainer.precision={config.trainer.precision})",
        }
        yield subject


def _readable(config: ExperimentConfig, synthetic: bool, folder: Path, quiet: Console) -> ExperimentConfig:
    """The settings, changed so that opening the data neither downloads nor leaves anything."""
    if synthetic:
        pictures = folder / "pictures"
        pictures.mkdir()
        return with_synthetic_data(config, pictures)
    data = config.data
    if isinstance(data, ShapesConfig) and not data.root.exists():
        data = data.model_copy(update={"root": folder / "shapes"})
        open_data(config.model_copy(update={"data": data}), quiet)  # writes the set, which is not to be timed
    if isinstance(data, VocConfig):
        data = data.model_copy(update={"download": False})
    return config.model_copy(update={"data": data})


def _described(subject: Subject, synthetic: bool) -> str:
    data, num_classes = subject.config.data, len(subject.train_set.classes)
    size = f"{data.input_hw[0]} x {data.input_hw[1]} pixels, batches of {subject.batch_size}"
    if synthetic:
        return f"synthetic: {num_classes} classes, about {MEAN_OBJECTS} objects an image; {size}"
    return f"{data.name}, {num_classes} classes, {len(subject.train_set)} training images; {size}"


def _load(task: Task, checkpoint: Path) -> None:
    weights = read_model_checkpoint(checkpoint).weights
    try:
        for model in {id(model): model for model in (task.model, task.evaluated_model)}.values():
            model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{checkpoint}: its weights do not fit the model of this configuration and data; give the configuration "
            f"that it was trained by, and its data"
        ) from error


def _device(config: ExperimentConfig) -> torch.device:
    """What a training computes on.

    Raises:
        ConfigError: this machine has no such device.
    """
    accelerator = config.trainer.accelerator
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    try:
        return find_device("cuda" if accelerator == "gpu" else accelerator)
    except ConfigError as error:
        raise ConfigError(f"trainer.accelerator={accelerator}: {error}") from error
