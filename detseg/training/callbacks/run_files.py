"""Settings, numbers and sample images of a run as files that any program opens."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from detseg.atomic_write import atomic_write
from detseg.checkpoint.provenance import describe_start, read_run_file, write_run_file
from detseg.config.load import config_to_dict, config_to_yaml
from detseg.config.schema.experiment import ExperimentConfig
from detseg.draw import class_legend, contact_sheet, write_image
from detseg.errors import DataError
from detseg.messages import one_line
from detseg.structures import Batch, UInt8Array
from detseg.training.task import Task
from detseg.training.tracking.tracker import trackers_of

logger = logging.getLogger("detseg")

_TITLES = ("truth", "prediction", "errors: orange false, blue missed")
_MOST_NAMED = 30  # classes of the legend: of more those of the truth are named, at most so many


def best_epoch(table: Path, metric: str) -> dict[str, str]:
    """The row of a ``metrics.csv`` of the epoch that ``best.ckpt`` holds, with the highest ``metric``: of equal ones
    the first, of undefined ones (NaN) the last; empty where no epoch was validated, or no file written. DataError: it
    is damaged."""
    best: dict[str, str] = {}
    if table.is_file():
        try:
            with table.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    if row.get(metric) and (not best or not float(row[metric]) <= float(best[metric])):
                        best = row
        except (ValueError, csv.Error) as error:
            raise DataError(f"{table}: is damaged ({one_line(error)}); bring it back, or delete it") from error
    return best


class RunFiles(Callback):
    """Writes ``config.yaml`` and ``run.json`` (how the run began, each time: ``describe_start``), which trackers get as
    well; ``metrics.json`` with all numbers of the last validation; and ``metrics.csv``: one row an epoch (from 1)
    with the optimiser steps done, the rate of the last one, the losses of training (means over the epoch's images, of
    all processes) and, where the epoch was validated, of validation. Each is replaced completely or not at all.

    The rows travel in the checkpoint: a resumed run has those of the epochs that it resumes from, whatever became of
    the file. Lightning's own logger would delete them.

    Args:
        folder: where to write.
        config: the settings of the run.
    """

    def __init__(self, folder: Path, config: ExperimentConfig) -> None:
        self.folder, self.config = folder, config
        self._rows: list[dict[str, str]] = []
        self._validated = False

    @property
    def state_key(self) -> str:
        """Its name in checkpoints, which older versions wrote as well."""
        return "EpochTable"

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._rows = list(state_dict["rows"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            # Only now, so that a checkpoint that is refused leaves the settings of its run as they were.
            self._begin(trainer, pl_module)
            with atomic_write(self.folder / "config.yaml", "w", encoding="utf-8") as file:
                file.write(config_to_yaml(self.config))
            if self._rows:  # of a resumed run
                self._write_rows()

    def _begin(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        guard = getattr(pl_module, "data_guard", None)
        start = describe_start({} if guard is None else guard.fingerprints)
        record = read_run_file(self.folder)
        record["starts"].append(start)
        for tracker in trackers_of(trainer):
            if (run_id := tracker.begin(config_to_dict(self.config), start)) is not None:
                record["trackers"][tracker.kind] = run_id
            if place := tracker.how_to_look:
                logger.info(f"tracking  {place}")
        write_run_file(self.folder, record)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated = True
        if trainer.is_global_zero and isinstance(pl_module, Task) and pl_module.result is not None:
            with atomic_write(self.folder / "metrics.json", "w", encoding="utf-8") as file:
                json.dump(pl_module.result.to_dict(), file, indent=2)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        validated, self._validated = self._validated, False
        if not trainer.is_global_zero or not isinstance(pl_module, Task):
            return
        row = {"epoch": str(trainer.current_epoch + 1), "step": str(trainer.global_step)}
        row["lr"] = repr(pl_module.learning_rate)
        for name, value in sorted(trainer.callback_metrics.items()):
            of_epoch = name.startswith("train/") and name.endswith("_epoch")
            if of_epoch or (validated and name.startswith("val/")):
                row[name.removesuffix("_epoch")] = repr(float(value))
        self._rows.append(row)
        self._write_rows()

    def _write_rows(self) -> None:
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        with atomic_write(self.folder / "metrics.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self._rows)


class SampleImages(Callback):
    """Writes ``train_batch.jpg`` (augmented images with their targets, from the first epoch) and, after every
    validation, ``val_predictions.jpg`` (images with the truth, beside each what the model finds, and what of that is
    false or missing).

    Args:
        folder: where to write.
        num_images: images of each sheet.
    """

    def __init__(self, folder: Path, num_images: int) -> None:
        self.folder, self.num_images = folder, num_images
        self._train: list[UInt8Array] = []
        self._labels = set[int]()  # of the targets in it
        self._has_told = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        wanted = self.num_images - len(self._train)
        if wanted <= 0 or not trainer.is_global_zero or not isinstance(pl_module, Task):
            return
        self._train += pl_module.kind.draw_targets(batch, pl_module.classes, wanted)
        self._labels |= _labels(batch, wanted)
        sheet = _sheet(self._train, self._labels, pl_module)
        write_image(self.folder / "train_batch.jpg", sheet)
        if len(self._train) >= self.num_images or trainer.is_last_batch:
            _show(trainer, "train_batch", sheet)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: int
    ) -> None:
        if batch_idx or not self.num_images or not trainer.is_global_zero or not isinstance(pl_module, Task):
            return
        kind, classes = pl_module.kind, pl_module.classes
        truth = kind.draw_targets(batch, classes, self.num_images)
        found = kind.draw_predictions(batch, pl_module.evaluated_model, classes, self.num_images)
        errors = kind.draw_errors(batch, pl_module.evaluated_model, classes, self.num_images)
        rows = [image for row in zip(truth, found, errors, strict=True) for image in row]
        file = self.folder / "val_predictions.jpg"
        sheet = _sheet(rows, _labels(batch, self.num_images), pl_module, _TITLES)
        write_image(file, sheet)
        _show(trainer, "val_predictions", sheet)
        if not self._has_told:
            logger.info(f"truth beside prediction, drawn after each validation: {file}")
            self._has_told = True


def _show(trainer: L.Trainer, name: str, sheet: UInt8Array) -> None:
    for tracker in trackers_of(trainer):
        tracker.show(f"pictures/{name}", sheet, trainer.global_step)


def _labels(batch: Batch, num: int) -> set[int]:
    """The labels of the targets of the first images."""
    maps = [] if batch.semantic is None else [batch.semantic[:num].flatten()]
    labels = torch.cat([*maps, *(target.labels for target in batch.targets[:num])])
    return set(np.unique(labels.cpu().numpy()).tolist())


def _sheet(images: list[UInt8Array], labels: set[int], task: Task, titles: tuple[str, ...] = ()) -> UInt8Array:
    names = task.classes.names
    legend = class_legend(names, range(len(names)) if len(names) <= _MOST_NAMED else labels)
    return contact_sheet(images, len(titles) or 4, titles, legend[:_MOST_NAMED])
