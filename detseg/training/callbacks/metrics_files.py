"""The numbers of a run as files that any program opens."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from detseg.atomic_write import atomic_write
from detseg.training.task import Task


class MetricsJson(Callback):
    """Writes ``metrics.json``: all numbers of the last validation, before its epoch is saved.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replaces the file, completely or not at all."""
        if trainer.is_global_zero and isinstance(pl_module, Task) and pl_module.result is not None:
            with atomic_write(self.path, "w", encoding="utf-8") as file:
                json.dump(pl_module.result.to_dict(), file, indent=2)


class MetricsCsv(Callback):
    """Writes ``metrics.csv``: one row an epoch (from 1) with the optimiser steps done, the rate at the end, the losses
    of training (means over the epoch's images, of all processes) and, where the epoch was validated, of validation.

    The rows travel in the checkpoint: a resumed run has those of the epochs that it resumes from, whatever became of
    the file. Lightning's own logger would delete them.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[dict[str, str]] = []
        self._validated = False

    @property
    def state_key(self) -> str:
        """Its name in checkpoints, which older versions wrote as well."""
        return "EpochTable"

    def state_dict(self) -> dict[str, Any]:
        """The rows."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on behind the rows of the checkpoint."""
        self._rows = list(state_dict["rows"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the rows of a resumed run's earlier epochs."""
        if trainer.is_global_zero and self._rows:
            self._write()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Notes that this epoch has numbers of a validation."""
        self._validated = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Adds the row of the epoch and replaces the file, completely or not at all."""
        validated, self._validated = self._validated, False
        if not trainer.is_global_zero:
            return
        row = {"epoch": str(trainer.current_epoch + 1), "step": str(trainer.global_step)}
        row["lr"] = repr(float(trainer.optimizers[0].param_groups[0]["lr"]))
        for name, value in sorted(trainer.callback_metrics.items()):
            of_epoch = name.startswith("train/") and name.endswith("_epoch")
            if of_epoch or (validated and name.startswith("val/")):
                row[name.removesuffix("_epoch")] = repr(float(value))
        self._rows.append(row)
        self._write()

    def _write(self) -> None:
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        with atomic_write(self.path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self._rows)
