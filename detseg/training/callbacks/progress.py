"""What a run tells the person who waits for it."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

import lightning as L
from lightning.pytorch.callbacks import Callback, RichProgressBar

from detseg.console import console
from detseg.training.task import Task

logger = logging.getLogger("detseg")


class EpochLines(Callback):
    """One line an epoch: losses, metrics, rate, images a second and the time left; fits logs and terminals alike."""

    def __init__(self) -> None:
        self._begin = 0.0
        self._first_epoch = 0
        self._epoch_begin = 0.0
        self._images = 0
        self._images_a_second = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._begin = time.monotonic()
        self._first_epoch = trainer.current_epoch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the epoch's clock."""
        self._epoch_begin = time.monotonic()
        self._images = 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Counts the images; there are none in the batches that a resumed run had before."""
        if batch is not None:
            self._images += len(batch) * trainer.world_size  # type: ignore[arg-type]  # our Batch
        self._images_a_second = self._images / max(time.monotonic() - self._epoch_begin, 1e-9)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prints the line; the validation of the epoch, if there was one, is over by now."""
        if not trainer.is_global_zero or not isinstance(pl_module, Task):
            return
        done = trainer.current_epoch + 1 - self._first_epoch
        left = (trainer.max_epochs or 0) - trainer.current_epoch - 1
        eta = timedelta(seconds=round((time.monotonic() - self._begin) / done * left))
        metrics = trainer.callback_metrics
        parts = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"]
        labels = {"train/loss_epoch": "loss"}
        if self._validated(trainer):  # else the metrics are those of an earlier epoch
            labels |= {"val/loss": "val loss"} | {f"val/{name}": name for name in pl_module.shown}
        parts += [f"{label} {float(metrics[name]):.3f}" for name, label in labels.items() if name in metrics]
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        parts += [f"lr {rate:.2e}", f"{self._images_a_second:.1f} img/s", f"left {eta}"]
        logger.info("  ".join(parts))

    @staticmethod
    def _validated(trainer: L.Trainer) -> bool:
        every = trainer.check_val_every_n_epoch or 1
        return (trainer.current_epoch + 1) % every == 0


class ValidateLastEpoch(Callback):
    """The last epoch is validated whatever the interval, so that no run ends on weights that nobody measured."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Shortens the interval for the last epoch."""
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1


def progress_callbacks() -> list[Callback]:
    """A bar for terminals (losses, rate, ETA), and a line an epoch for everybody."""
    bar: list[Callback] = [RichProgressBar(leave=False)] if console.is_terminal else []
    return [*bar, EpochLines()]
