"""Running out of memory in a training, told with the batch that did it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from detseg.config.schema.experiment import ExperimentConfig
from detseg.memory.advice import training_advice
from detseg.memory.exhausted import BatchInHand, memory_errors_explained
from detseg.structures import Batch


class BatchWatch(Callback):
    """Notes which batch a trainer has in hand: an error of the backward pass, or of a kernel that ran behind the
    Python code's back, does not know it."""

    def __init__(self) -> None:
        self.in_hand = BatchInHand()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch | None, batch_idx: int
    ) -> None:
        """Takes the batch; it is None where a resumed run had it before."""
        place = f"training step {trainer.global_step + 1} (epoch {trainer.current_epoch + 1}, batch {batch_idx + 1})"
        self.in_hand.take(place, batch)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch | None, batch_idx: int
    ) -> None:
        """Puts the batch down."""
        self.in_hand.put_down()

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Takes the batch."""
        self.in_hand.take(f"validation after epoch {trainer.current_epoch + 1}, batch {batch_idx + 1}", batch)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Puts the batch down."""
        self.in_hand.put_down()


@contextmanager
def training_memory_explained(trainer: L.Trainer, config: ExperimentConfig) -> Iterator[None]:
    """Turns running out of memory in a ``fit`` inside the ``with`` block into one line.

    Args:
        trainer: the one that fits.
        config: its settings.

    Raises:
        DetsegError: memory ran out; other errors pass as they are.
    """
    watch = BatchWatch()
    trainer.callbacks.append(watch)  # type: ignore[attr-defined]  # it is a list; Lightning declares it in a connector
    with memory_errors_explained(
        watch.in_hand,
        lambda: trainer.strategy.root_device,
        lambda: training_advice(config, computes_float32=trainer.precision == "32-true"),
    ):
        yield
