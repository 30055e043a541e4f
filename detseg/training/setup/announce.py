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
from detseg.config.schema.data import ShapesConfig
from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.model import CustomModelConfig, DetectorConfig, SegmenterConfig
from detseg.data.datasets.contract import EvalSource
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.messages import counted
from detseg.models.backbones.csp import CSP_FAMILY
from detseg.training.callbacks.run_files import best_epoch
from detseg.training.task import Task

logger = logging.getLogger("detseg")

_MOST_CLASSES = 20
# Training images. Measured (docs/benchmarks.md): weights help with 21 to 367 images; frozen is as good up to 367.
_FEW_IMAGES, _ENOUGH_TO_TRAIN = 500, 2000
_HINT_PAGE = "docs/transfer_learning.md"


def announce_run(
    config: ExperimentConfig,
    trainer: L.Trainer,
    train_set: EvalSource,
    val_set: EvalSource,
    model: str,
    run_dir: Path,
    hint: str | None = None,
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
    } | ({"hint": hint} if hint else {})
    for label, text in rows.items():
        logger.info(textwrap.fill(f"{label:<10}{text}", 80, subsequent_indent=" " * 10))
    logger.info(f"run       {'nothing is written' if config.trainer.fast_dev_run else run_dir}")  # not wrapped


def transfer_hint(config: ExperimentConfig, num_images: int) -> str | None:
    """Which other use of pretrained weights the number of training images suggests, as settings that can be given;
    None: nothing. The synthetic shapes are for trying things out."""
    model = config.model
    if isinstance(model, CustomModelConfig) or isinstance(config.data, ShapesConfig) or config.trainer.overfit_batches:
        return None
    backbone, images = model.backbone, counted(num_images, "training image")
    if model.weights is None and backbone.weights is None and not backbone.pretrained:
        if num_images >= _FEW_IMAGES or (how := _pretrained(model)) is None:
            return None
        return f"{images} and a backbone from random weights: usually more is found with {how} ({_HINT_PAGE})"
    if backbone.freeze != "backbone" or backbone.unfreeze_epoch is not None or num_images < _ENOUGH_TO_TRAIN:
        return None
    how = "set model.backbone.unfreeze_epoch, or model.backbone.freeze=none"
    return (
        f"{images} and a backbone that stays frozen: with so many, training it usually finds more; {how} ({_HINT_PAGE})"
    )


def _pretrained(model: DetectorConfig | SegmenterConfig) -> str | None:
    """How the model can begin with published weights; None: there are none."""
    own, backbone = "model.weights=CKPT of another training", model.backbone.name
    if getattr(model, "variant", "custom") != "custom":
        return f"model.weights=coco (downloaded), or {own}"
    if backbone == "unet" or backbone in CSP_FAMILY:
        return None
    return f"model.backbone.pretrained=true (downloaded), model.backbone.weights=FILE, or {own}"


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
    run, found = shlex.quote(str(run_dir)), shlex.quote(str(run_dir / "found"))
    logger.info(f"next: detseg evaluate {run}, and detseg report {run} for a page of what goes wrong")
    logger.info(f"      detseg predict {run} {shlex.quote(image)} --out {found}")
