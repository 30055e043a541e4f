"""The list of bad samples in a run: its file, its place in checkpoints, and one list of all processes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
from lightning.pytorch.callbacks import Callback

from detseg.data.datasets.bad_samples import BadSample, BadSampleList
from detseg.training.distributed.processes import Processes
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
        self.bad = bad
        self.file = file
        self._told = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Gives each process a file."""
        rank = trainer.global_rank
        self.bad.file = self.file
        if rank and self.file is not None:
            self.bad.file = self.file.with_name(f"{self.file.stem}.rank{rank}{self.file.suffix}")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Makes the file what a resumed run had by its checkpoint."""
        self._told = len(self.bad)
        self.bad.write()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Brings the lists together, and says so when there is news and the run goes on."""
        self._share(pl_module)
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs  # where the run says it itself
        if len(self.bad) > self._told and not ends:
            self._told = len(self.bad)
            for line in self.bad.lines():
                logger.info(line)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the list of all processes."""
        self._share(pl_module)
        checkpoint[_KEY] = self.bad.state()

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Goes on with the list of the checkpoint; one of a run that did not skip has none."""
        self.bad.load(checkpoint.get(_KEY, []))

    def _share(self, pl_module: L.LightningModule) -> None:
        if isinstance(pl_module, Task):
            share(self.bad, pl_module.processes)


def share(bad: BadSampleList, processes: Processes) -> None:
    """Make one list of those of all processes; the first writes it, the files of the others are removed.

    Raises:
        DataError: together more are bad than may be; in every process.
    """
    if processes.world_size == 1:
        return
    for part in processes.gather({"list": _packed(bad)}):
        bad.take(_unpacked(part["list"]))  # in the first process alone: the others get no parts
    together = processes.from_first({"list": _packed(bad)})
    bad.take(_unpacked(together["list"]))
    if processes.rank and bad.file is not None:
        bad.file.unlink(missing_ok=True)
    bad.check()  # only now, so that all of them stop


def _packed(bad: BadSampleList) -> npt.NDArray[np.uint8]:
    return np.frombuffer(json.dumps(bad.state()).encode(), dtype=np.uint8)


def _unpacked(text: npt.NDArray[np.uint8]) -> list[BadSample]:
    return [BadSample(**row) for row in json.loads(text.tobytes())]
