"""The course of a run as a table that any program opens."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback


class EpochTable(Callback):
    """Keeps ``metrics.csv``: one row an epoch (from 1) with the optimiser steps done, the rate at the end, the training
    losses (means over the epoch's images, of all processes) and, where the epoch was validated, the validation's.

    A resumed run goes on behind the rows of the epochs that it goes on from; Lightning's own logger would delete them.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[dict[str, str]] = []
        self._validated = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes over the rows of a resumed run's earlier epochs."""
        if trainer.is_global_zero and self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            self._rows = [row for row in rows if int(row["epoch"]) <= trainer.current_epoch]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Notes that this epoch has numbers of a validation."""
        self._validated = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Adds the row of the epoch and writes the file anew, whole or not at all."""
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
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self._rows)
        os.replace(partial, self.path)
