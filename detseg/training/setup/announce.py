"""What a run says before its first epoch and after its last."""

from __future__ import annotations

import csv
import logging
import math
import shlex
import textwrap
from pathlib import Path

import lightning as L
import numpy as np
import torch

from detseg.checkpoint import BEST, FOLDER
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.datasets.contract import EvalSource
from detseg.data.datasets.detection import DetectionDataset
from detseg.training.task import Task

logger = logging.getLogger("detseg")

_COLUMNS = 80
_LABEL = 10
_MOST_CLASSES = 20


def announce_run(
    config: ExperimentConfig, trainer: L.Trainer, train_set: EvalSource, val_set: EvalSource, model: str, run_dir: Path
) -> None:
    """Say on what, with what and where a run trains; lines of 80 columns.

    Args:
        config: the resolved settings.
        trainer: which knows the device.
        train_set: the training images.
        val_set: the validation images.
        model: the model in a few words.
        run_dir: where the run writes.
    """
    settings, data = config.trainer, config.data
    height, width = data.input_hw
    precision = "bfloat16 (mixed)" if "bf16" in str(trainer.precision) else "float32"
    processes = f" in each of {trainer.world_size} processes" if trainer.world_size > 1 else ""
    rows = {
        "device": f"{_device(trainer.strategy.root_device)}, {precision}",
        "data": f"{len(train_set)} training and {len(val_set)} validation images, network input {width} x {height}",
        "classes": _classes(train_set),
        "model": model,
        "training": f"{settings.max_epochs} epochs, batches of {data.num_images} images{processes}",
    }
    for label, text in rows.items():
        margin = " " * _LABEL
        lines = textwrap.wrap(f"{label:<{_LABEL}}{text}", _COLUMNS, subsequent_indent=margin)
        logger.info("\n".join(lines))
    logger.info(f"{'run':<{_LABEL}}{'nothing is written' if settings.fast_dev_run else run_dir}")  # not wrapped


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({device})"
    instructions = f" ({torch.backends.cpu.get_cpu_capability()})" if device.type == "cpu" else ""
    return f"{device.type}{instructions}, {torch.get_num_threads()} threads"


def _classes(train_set: EvalSource) -> str:
    """The classes with the number of their objects to train on, where these are known without reading files."""
    names = train_set.classes.names
    if not isinstance(train_set, DetectionDataset):
        return _listed([*names])
    packed = train_set.packed
    counts = np.bincount(packed.labels[~(packed.crowd | packed.difficult)], minlength=len(names))
    return f"{_listed([f'{name} {count}' for name, count in zip(names, counts, strict=True)])} (objects)"


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - _MOST_CLASSES} more" if len(items) > _MOST_CLASSES else ""
    return ", ".join(items[:_MOST_CLASSES]) + more


def conclude_run(trainer: L.Trainer, task: Task, val_set: EvalSource, run_dir: Path | None) -> None:
    """Say how a run ended: its best epoch and checkpoint, what looks wrong, and what to type next.

    Args:
        trainer: whose training is over.
        task: what it has trained.
        val_set: the validation images.
        run_dir: where the run has written; None: nowhere.
    """
    stopper = trainer.early_stopping_callback
    if stopper is not None and stopper.wait_count >= stopper.patience:
        best = float(stopper.best_score)
        name = task.criterion
        reason = (
            f"no better {name} than {best:.3f}" if math.isfinite(best) else f"no {name}, as there is nothing to find,"
        )
        logger.info(f"stopped after epoch {stopper.stopped_epoch + 1}: {reason} in {stopper.patience} validations")
    for line in [] if task.result is None else task.result.explain():
        logger.warning(line)
    if run_dir is None:
        logger.info("fast_dev_run: one batch of training and one of validation went through; nothing was written")
        return
    logger.info(_best_epoch(run_dir / "metrics.csv", task))
    checkpoint = run_dir / FOLDER / BEST
    path = getattr(val_set, "path", None)
    image = "IMAGES" if path is None or not len(val_set) else shlex.quote(str(path(0)))
    evaluate = f"detseg evaluate {shlex.quote(str(checkpoint))}"
    predict = f"detseg predict {shlex.quote(str(checkpoint))} {image} --out {shlex.quote(str(run_dir / 'found'))}"
    logger.info(
        f"best checkpoint: {checkpoint}\nmetrics and sample images: {run_dir}\nnext:\n  {evaluate}\n  {predict}"
    )


def _best_epoch(table: Path, task: Task) -> str:
    """The first of the best epochs by ``metrics.csv``, or the last where the metric is not defined."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get(f"val/{task.criterion}")]
    if not rows:
        return "no epoch was validated"
    defined = [row for row in rows if math.isfinite(float(row[f"val/{task.criterion}"]))]
    best = max(defined, key=lambda row: float(row[f"val/{task.criterion}"])) if defined else rows[-1]
    names = dict.fromkeys([task.criterion, *task.shown])
    numbers = ", ".join(f"{name} {float(best[f'val/{name}']):.3f}" for name in names)
    return f"best epoch: {best['epoch']}, {numbers}"
