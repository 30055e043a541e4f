"""``data.batch_size: auto``: the largest batch that fits into memory, and the learning rate that goes with it."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from rich.console import Console

from detseg.checkpoint import ENTRY, read_raw_checkpoint
from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.training import SgdConfig
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.errors import CheckpointError, ConfigError
from detseg.experiment.batch_search import (
    DEVICE_SHARE,
    HOST_SHARE,
    LARGEST,
    REFERENCE_BATCH,
    Found,
    largest_reckoned,
    largest_tried,
    scaled_rate,
)
from detseg.experiment.memory_probe import MemoryProbe
from detseg.experiment.worst_batch import WorstImage
from detseg.memory.exhausted import gibibytes
from detseg.memory.host import available_memory

_BYTES_PER_PIXEL = 3 + 3 * 4
"""Of an image as it is loaded, and as the network takes it."""


def with_batch_size(
    config: ExperimentConfig,
    train_set: DetectionDataset | SegmentationDataset,
    checkpoint: Path | None,
    console: Console,
) -> ExperimentConfig:
    """The settings with numbers for ``data.batch_size: auto`` and the ``optimizer.lr`` that goes with it.

    Nothing in this process changes: what is tried is tried in another one.

    Args:
        config: the settings; returned as they are where they give a number.
        train_set: its fullest image decides.
        checkpoint: that of the run that is gone on with; its batch is taken, and nothing is measured.
        console: where the numbers are printed.

    Raises:
        ConfigError: several processes, a platform where memory cannot be measured, or not even one image fits.
        CheckpointError: the checkpoint does not say its batch.
    """
    if config.data.batch_size != "auto":
        return config
    if checkpoint is not None:
        num_images, why = _batch_of(checkpoint), "that of the run that is resumed"
    else:
        num_images, why = _search(config, train_set, console)
    rate = scaled_rate(config.optimizer, num_images)
    ratio = f"{num_images}/{REFERENCE_BATCH}"
    factor = ratio if isinstance(config.optimizer, SgdConfig) else f"sqrt({ratio})"
    console.print(
        f"data.batch_size={num_images}: {why}; optimizer.lr={rate:g} ({config.optimizer.lr:g} x {factor})",
        highlight=False,
        soft_wrap=True,
    )
    data = config.data.model_copy(update={"batch_size": num_images})
    optimizer = config.optimizer.model_copy(update={"lr": rate})
    return config.model_copy(update={"data": data, "optimizer": optimizer})


def _search(
    config: ExperimentConfig, train_set: DetectionDataset | SegmentationDataset, console: Console
) -> tuple[int, str]:
    """The number of images, and how it was found."""
    device = _only_device(config)
    available = available_memory()
    if device == "cpu" and available is None:
        raise ConfigError("data.batch_size: auto needs Linux or CUDA, where memory can be measured; give a number")
    worst = WorstImage.of(config, train_set)
    most = min(len(train_set), LARGEST)
    with console.status("finding data.batch_size"), MemoryProbe(config, train_set.classes, worst, device) as probe:
        if device == "cpu":
            assert available is not None
            least = worst.hw[0] * worst.hw[1] * _BYTES_PER_PIXEL
            found = largest_reckoned(probe.measure, available, most, least)
            limit = f"{HOST_SHARE:.0%} of the {gibibytes(available)} of main memory that are available"
        else:
            found = largest_tried(probe.measure, DEVICE_SHARE * probe.room, most)
            limit = f"{DEVICE_SHARE:.0%} of the {gibibytes(probe.room)} that are free on {device}"
    if found is None:
        raise ConfigError(
            f"data.batch_size: auto: not even one image of {worst} fits into {limit}; lower data.image_size, take a "
            f"smaller model, or make room"
        )
    return found.num_images, _explained(found, worst, limit, most)


def _explained(found: Found, worst: WorstImage, limit: str, most: int) -> str:
    measured = ", ".join(f"{num}: {gibibytes(num_bytes)}" for num, num_bytes in sorted(found.measured.items()))
    bound = ""
    if found.num_images == most:
        bound = f", and more than {most} are not looked for" if most == LARGEST else ", all training images"
    return f"takes {gibibytes(found.num_bytes)} with images of {worst} (measured {measured}), within {limit}{bound}"


def _only_device(config: ExperimentConfig) -> str:
    """The device that the training computes on.

    Raises:
        ConfigError: there are several, or memory cannot be measured there.
    """
    settings = config.trainer
    if settings.accelerator == "mps":
        raise ConfigError("data.batch_size: auto needs Linux or CUDA, where memory can be measured; give a number")
    on_gpu = settings.accelerator == "gpu" or (settings.accelerator == "auto" and torch.cuda.is_available())
    num_devices = settings.devices
    if num_devices == "auto":
        num_devices = torch.cuda.device_count() if on_gpu else 1
    if num_devices * settings.num_nodes > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "data.batch_size: auto is found by one process, and this run has several; start it once with "
            "trainer.devices=1 trainer.num_nodes=1 trainer.fast_dev_run=true, which prints data.batch_size and "
            "optimizer.lr, and give these numbers"
        )
    if on_gpu and not torch.cuda.is_available():
        raise ConfigError("data.batch_size: auto with trainer.accelerator=gpu: torch finds no CUDA device here")
    return "cuda:0" if on_gpu else "cpu"


def _batch_of(checkpoint: Path) -> int:
    """The batch of the run that a checkpoint is of."""
    try:
        num_images = read_raw_checkpoint(checkpoint)[ENTRY]["config"]["data"]["batch_size"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{checkpoint}: does not say its data.batch_size; give a number instead of auto"
        ) from error
    if not isinstance(num_images, int):
        raise CheckpointError(f"{checkpoint}: its data.batch_size is no number; give one instead of auto")
    return num_images
