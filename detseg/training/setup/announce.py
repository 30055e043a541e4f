"""What a run says before its first epoch and after its last."""

from __future__ import annotations

import logging
import math
import shlex
import textwrap
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from detseg.checkpoint import BEST, FOLDER
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.datasets.contract import EvalSource
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.messages import counted
from detseg.training.callbacks.run_files import best_epoch
from detseg.training.task import Task

logger = logging.getLogger("detseg")

_MOST_CLASSES = 20


def announce_run(
    config: ExperimentConfig, trainer: L.Trainer, train_set: EvalSource, val_set: EvalSource, model: str, run_dir: Path
) -> None:
    """Say on what device and data a run trains which ``model``, and where it writes; in lines of 80 columns."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    if device.type == "cpu":
        name += f" ({torch.backends.cpu.get_cpu_capability()}), {counted(torch.get_num_threads(), 'thread')}"
    height, width = config.data.input_hw
    processes = f" in each of {trainer.world_size} processes" if trainer.world_size > 1 else ""
    batch = counted(config.data.num_images, "image")
    rows = {
        "device": f"{name}, {'bfloat16 (mixed)' if 'bf16' in str(trainer.precision) else 'float32'}",
        "data": f"{len(train_set)} training and {len(val_set)} validation images, network input {width} x {height}",
        "classes": _classes(train_set),
        "model": model,
        "training": f"{counted(config.trainer.max_epochs, 'epoch')}, batches of {batch}{processes}",
    }
    for label, text in rows.items():
        logger.info(textwrap.fill(f"{label:<10}{text}", 80, subsequent_indent=" " * 10))
    logger.info(f"run       {'nothing is written' if config.trainer.fast_dev_run else run_dir}")  # not wrapped


def _classes(train_set: EvalSource) -> str:
    """The classes with the number of their objects to train on, or their part of the masks that were looked at."""
    names, numbers, what = list(train_set.classes.names), list[Any](), " (objects)"
    if isinstance(train_set, SegmentationDataset) and train_set.pixels is not None:
        numbers, what = [f"{part:.1%}" for part in train_set.pixels / train_set.pixels.sum()], " (pixels)"
    elif not isinstance(train_set, SegmentationDataset):
        packed: Any = [train_set.packed] if isinstance(train_set, DetectionDataset) else None
        parts = packed or [train_set.annotations(index) for index in range(len(train_set))]
        labels = np.concatenate([part.labels[~(part.crowd | part.difficult)] for part in parts])
        numbers = np.bincount(labels, minlength=len(names)).tolist() if len(labels) else []
    names = [f"{name} {number}" for name, number in zip(names, numbers, strict=True)] if numbers else names
    more = f" and {len(names) - _MOST_CLASSES} more" if len(names) > _MOST_CLASSES else ""
    return f"{', '.join(names[:_MOST_CLASSES])}{more}{what if numbers else ''}"


def conclude_run(config: ExperimentConfig, trainer: L.Trainer, task: Task, val_set: EvalSource, run_dir: Path) -> None:
    """Say how a run ended, what looks wrong, and what to type next: commands, or the calls of Python where it gave the
    data, which no command can open."""
    stopper, name = trainer.early_stopping_callback, task.criterion
    if stopper is not None and stopper.wait_count >= stopper.patience:
        best = float(stopper.best_score)
        watched = stopper.monitor.removeprefix("val/")  # a callback of the user's may watch something else
        nothing = f"no {watched}, as there is nothing to find,"
        reason = f"no better {watched} than {best:.3f}" if math.isfinite(best) else nothing
        logger.info(f"stopped after epoch {stopper.stopped_epoch + 1}: {reason} in {stopper.patience} validations")
    for line in [] if task.result is None else task.result.explain():
        logger.warning(line)
    if config.trainer.fast_dev_run:
        logger.info("fast_dev_run: one batch of training and one of validation went through; nothing was written")
        return
    if row := best_epoch(run_dir / "metrics.csv", f"val/{name}"):
        numbers = (f"{key} {float(row[f'val/{key}']):.3f}" for key in dict.fromkeys([name, *task.shown]))
        logger.info(f"best epoch: {row['epoch']}, {', '.join(numbers)}")
    path = getattr(val_set, "path", None)
    checkpoint, image = str(run_dir / FOLDER / BEST), "IMAGES" if path is None else str(path(0))
    logger.info(f"best checkpoint: {checkpoint}")
    logger.info(f"metrics and sample images: {run_dir}")
    if config.data.name == "custom":
        module = ", model=model" if config.model.name == "custom" else ""
        logger.info(f"next: detseg.evaluate({checkpoint!r}, val_set{module})")
        logger.info(f"      detseg.load_predictor({checkpoint!r}{module})(images)")
        return
    logger.info(f"next: detseg evaluate {shlex.quote(checkpoint)}")
    found = shlex.quote(str(run_dir / "found"))
    logger.info(f"      detseg predict {shlex.quote(checkpoint)} {shlex.quote(image)} --out {found}")
