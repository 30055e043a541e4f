"""Our side of comparisons of training: a Lightning training that goes on for one step or one epoch at a time."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable
from queue import Queue
from typing import Any, Literal

import lightning as L
from torch.utils.data import DataLoader

from detseg.training.setup.trainer import quiet_lightning

Unit = Literal["batch", "epoch"]
LIGHTNING_NAMES = {"bfloat16": "bf16-mixed", "float32": "32-true"}
"""Lightning's names of precisions."""


_NO_MORE = -1


class PacedTraining(L.Callback):
    """Trains in a thread of its own, held at the start of a step or epoch until the next block is due.

    What a step takes is what lies between Lightning's hooks around it: forward, losses, guard, backward, optimiser,
    averaged weights and logging; for an epoch, the waits for the loader, too.

    Args:
        task: what is trained.
        data: a data module, or the batches of an epoch.
        unit: what ``go_on`` counts.
        options: of the ``Trainer``.
    """

    def __init__(self, task: L.LightningModule, data: Any, unit: Unit, **options: Any) -> None:
        quiet_lightning()
        self.unit = unit
        self._permits: Queue[int] = Queue()
        self._done: Queue[float | BaseException] = Queue()
        self._left = 0
        self._taken = self._begin = 0.0
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=100_000,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
            gradient_clip_val=10.0,  # as by default
            callbacks=[self],
            **options,
        )
        if isinstance(data, list):
            batches: Any = data  # a list is enough of a data set
            data = DataLoader(batches, batch_size=None)
        self._thread = threading.Thread(target=self._fit, args=(trainer, task, data), daemon=True)
        self._thread.start()
        atexit.register(self.end)  # a program that ends while torch computes in a thread is aborted

    def block(self, units: int) -> Callable[[], float]:
        """A block of ``in_turn``: milliseconds of a step, or seconds of an epoch."""
        scale = 1000 if self.unit == "batch" else 1
        return lambda: self.go_on(units) * scale / units

    def go_on(self, units: int) -> float:
        """Seconds of so many further steps or epochs, what lies between them left out.

        Raises:
            BaseException: what has ended the training.
        """
        self._permits.put(units)
        taken = self._done.get()
        if isinstance(taken, BaseException):
            raise taken
        return taken

    def end(self) -> None:
        """Stop for good."""
        self._permits.put(_NO_MORE)
        self._thread.join(60)

    def _fit(self, trainer: L.Trainer, task: L.LightningModule, data: Any) -> None:
        try:
            trainer.fit(task, data)
            self._done.put(RuntimeError("the training has ended"))
        except BaseException as error:  # handed on to whoever waits
            self._done.put(error)

    def _start(self) -> None:
        if not self._left:
            self._left, self._taken = self._permits.get(), 0.0
            if self._left == _NO_MORE:
                raise RuntimeError("the training is no longer wanted")
        self._begin = time.perf_counter()

    def _end(self) -> None:
        self._taken += time.perf_counter() - self._begin
        self._left -= 1
        if not self._left:
            self._done.put(self._taken)

    def on_train_batch_start(self, *_: Any) -> None:
        """Waits, where steps are counted."""
        if self.unit == "batch":
            self._start()

    def on_train_batch_end(self, *_: Any) -> None:
        """Takes the time, where steps are counted."""
        if self.unit == "batch":
            self._end()

    def on_train_epoch_start(self, *_: Any) -> None:
        """Waits, where epochs are counted."""
        if self.unit == "epoch":
            self._start()

    def on_train_epoch_end(self, *_: Any) -> None:
        """Takes the time, where epochs are counted."""
        if self.unit == "epoch":
            self._end()
