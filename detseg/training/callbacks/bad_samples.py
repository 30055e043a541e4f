"""The list of bad samples in a run: its file, its place in checkpoints, and one list of all processes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback

from detseg.data.datasets.bad_samples import BadSample, BadSampleList
from detseg.training.distributed import Arrays, Processes
from detseg.training.task import Task

logger = logging.getLogger("detseg")

_KEY = "bad_samples"


class BadSampleLog(Callback):
    """Writes ``bad_samples.csv``. Each process lists what it meets as soon as it does, those beside the first in a file
    of their own (``bad_samples.rank1.csv``), until the end of the epoch or a checkpoint brings the lists together.

    Args:
        bad: the list, which the training loader fills.
        file: where the first process writes it; None: nowhere.
    """

    def __init__(self, bad: BadSampleList, file: Path | None) -> None:
        self.bad, self.file = bad, file
        self._told = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        rank = trainer.global_rank
        self.bad.file = self.file
        if rank and self.file is not None:
            self.bad.file = self.file.with_name(f"{self.file.stem}.rank{rank}{self.file.suffix}")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Makes the file what a resumed run had by its checkpoint."""
        self._told = len(self.bad)
        self.bad.write()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Brings the lists together, and says so when there is news and the run is not over."""
        if isinstance(pl_module, Task):
            share(self.bad, pl_module.processes)
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs  # where the run says it itself
        if len(self.bad) > self._told and not ends:
            self._told = len(self.bad)
            for line in self.bad.lines():
                logger.info(line)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if isinstance(pl_module, Task):
            share(self.bad, pl_module.processes)
        checkpoint[_KEY] = self.bad.state()

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.bad.load(checkpoint.get(_KEY, []))  # a run that did not skip has none


def share(bad: BadSampleList, processes: Processes) -> None:
    """Make one list of those of all processes; the first writes it, the files of the others are removed. DataError:
    together more are bad than may be; in every process."""
    if processes.world_size == 1:
        return
    for part in processes.gather({"list": np.array(json.dumps(bad.state()))}):
        bad.take(_samples(part))  # in the first process alone: the others get no parts
    bad.take(_samples(processes.from_first({"list": np.array(json.dumps(bad.state()))})))
    if processes.rank and bad.file is not None:
        bad.file.unlink(missing_ok=True)
    bad.check()  # only now, so that all of them stop


def _samples(arrays: Arrays) -> list[BadSample]:
    return [BadSample(**row) for row in json.loads(str(arrays["list"]))]
