"""What a run shows while it goes on: a bar in a terminal, elsewhere a line every half minute, and a line an epoch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from rich.progress import BarColumn, Progress, TextColumn

from detseg.messages import ConsoleHandler, console
from detseg.training.task import Task

logger = logging.getLogger("detseg")

_REFRESH_SECONDS = 0.2
_MEMORY_SECONDS = 30.0
_SETTLING_STEPS = 500
_SETTLING = (
    "the validation loss ({:.4g}) is left out of the first lines while it is far above the training's: averaged "
    "weights and the statistics of batch normalisation still trail the first steps; metrics.csv has every value"
)


class Pace:
    """Rate and time left of a training by its last half minute (``clock``: the time in seconds); the first batch after
    a pause is left out, since it holds the start of the loaders."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last, self._in_batches = clock, clock(), False
        self._seconds = self._batches = self._images = 0.0  # weighted sums
        self._validation = math.nan

    def batch(self, num_images: int) -> None:
        """A training batch has ended."""
        now = self._clock()
        seconds, self._last = now - self._last, now
        if self._in_batches:
            fade = math.exp(-seconds / _MEMORY_SECONDS)
            self._seconds = self._seconds * fade + seconds
            self._batches = self._batches * fade + 1
            self._images = self._images * fade + num_images
        self._in_batches = True

    def pause(self, validated: bool = False) -> None:
        """The batches of an epoch are over, or (``validated``) its validation is."""
        now = self._clock()
        self._validation = now - self._last if validated else self._validation
        self._last, self._in_batches = now, False

    @property
    def batch_seconds(self) -> float:
        """Of a training batch; NaN before the second one."""
        return self._seconds / self._batches if self._batches else math.nan

    def rate(self) -> str:
        """Images a second."""
        return f"{_number(self._images / self._seconds) if self._seconds else '-'} img/s"

    def left(self, batches: float, validations: float, val_batches: float) -> str:
        """The time for what is left; before the first validation, each of its ``val_batches`` counts a third of a
        training batch."""
        validation = val_batches * self.batch_seconds / 3 if math.isnan(self._validation) else self._validation
        seconds = batches * self.batch_seconds + validations * validation
        return f"left {timedelta(seconds=round(seconds)) if math.isfinite(seconds) else '-:--:--'}"


class RunProgress(Callback):
    """One bar in a terminal; elsewhere a line at least every ``every_seconds``, as far as batches are not longer; and
    for both a line an epoch."""

    def __init__(self, every_seconds: float = 30.0) -> None:
        self.every_seconds = every_seconds
        self._bar: Progress | None = None
        self._pace = Pace()
        self._shown = 0.0
        self._has_explained = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock, and the bar where messages are ours: it would wipe those that others print."""
        self._pace, self._shown = Pace(), time.monotonic()
        if trainer.is_global_zero and console.is_terminal and any(type(h) is ConsoleHandler for h in logger.handlers):
            columns = TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.fields[text]}")
            # Without a thread that refreshes: loaders may fork while it holds the console's lock.
            self._bar = Progress(*columns, console=console, expand=True, transient=True, auto_refresh=False)
            self._bar.add_task(_epoch(trainer), total=None, text="")
            self._bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch is not None:  # else a resumed run had it before
            self._pace.batch(len(batch) * trainer.world_size)
            self._show(trainer, batch_idx + 1, trainer.num_training_batches)
        if trainer.is_last_batch:
            self._pace.pause()

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: int
    ) -> None:
        self._show(trainer, batch_idx + 1, sum(trainer.num_val_batches), " validation")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._pace.pause(validated=True)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Says the line of the epoch, whose validation, if there was one, is over by now."""
        if not trainer.is_global_zero or not isinstance(pl_module, Task):
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        parts = [_epoch(trainer)]
        loss, val_loss = metrics.get("train/loss_epoch", math.nan), metrics.get("val/loss", math.nan)
        parts.append(f"loss {_number(loss)}")
        if _validates(trainer, 0):  # else these are the numbers of an earlier epoch
            warmup = 0 if pl_module.average is None else pl_module.average.warmup_steps
            is_settling = trainer.global_step < max(_SETTLING_STEPS, warmup) and val_loss > 3 * loss
            if is_settling and not self._has_explained:
                logger.info(_SETTLING.format(val_loss))
                self._has_explained = True
            shown = dict.fromkeys((*pl_module.shown, pl_module.criterion))
            parts[-1] += f" (val {'-' if is_settling else _number(val_loss)})"
            parts += [f"{name} {metrics.get(f'val/{name}', math.nan):.3f}" for name in shown]
        if self._bar is None:  # it is in the bar
            parts.append(_learning_rate(pl_module))
            self._shown = time.monotonic()
        logger.info("  ".join([*parts, self._pace.rate(), self._left(trainer, 0, 0.0)]))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)

    def _show(self, trainer: L.Trainer, done: int, total: float, what: str = "") -> None:
        """The bar or, before the next batch would come too late, a line."""
        now, bar = time.monotonic(), self._bar
        next_line = now + (self._pace.batch_seconds if self._pace.batch_seconds > 0 else 0.0)
        is_due = next_line - self._shown >= self.every_seconds if bar is None else now - self._shown >= _REFRESH_SECONDS
        if not trainer.is_global_zero or not is_due:
            return
        self._shown = now
        left = self._left(trainer, *((0, 1 - done / total) if what else (total - done, float(_validates(trainer, 0)))))
        logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.endswith("_step")}
        losses = {name.removeprefix("train/").removesuffix("_step"): _number(logged[name]) for name in logged}
        parts = [f"loss {losses.pop('loss', '-')}", _learning_rate(trainer.lightning_module), self._pace.rate(), left]
        device, place = trainer.strategy.root_device, f"{done}/{total}"
        parts += [f"{torch.cuda.memory_reserved(device) / 2**30:.1f} GB"] if device.type == "cuda" else []
        if bar is None:
            logger.info("  ".join([_epoch(trainer), f"{what.strip() or 'batch'} {place}", *parts]))
            return
        title = f"{_epoch(trainer)}{what}"
        for index, extra in ((0, place), (2, ", ".join(f"{name} {losses[name]}" for name in losses))):
            if extra and len("  ".join([title, *parts, extra])) < console.width - 24:  # room for the bar, too
                parts.insert(index, extra)
        bar.update(bar.task_ids[0], description=title, completed=done, total=total, text="  ".join(parts), refresh=True)

    def _left(self, trainer: L.Trainer, batches: float, validations: float) -> str:
        """The time left; ``batches`` and ``validations`` are those of this epoch."""
        epochs = max((trainer.max_epochs or 0) - trainer.current_epoch - 1, 0)
        validations += sum(_validates(trainer, ahead) for ahead in range(1, epochs + 1))
        batches += epochs * float(trainer.num_training_batches)
        return self._pace.left(batches, validations, float(sum(trainer.num_val_batches)))


class ValidateLastEpoch(Callback):
    """The last epoch is validated whatever the interval, so that no run ends on weights that nobody measured."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1


def _epoch(trainer: L.Trainer) -> str:
    return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"


def _validates(trainer: L.Trainer, ahead: int) -> bool:
    """Whether the epoch that lies ``ahead`` of this one ends with a validation."""
    number = trainer.current_epoch + 1 + ahead
    return number % (trainer.check_val_every_n_epoch or 1) == 0 or (ahead > 0 and number == trainer.max_epochs)


def _learning_rate(task: L.LightningModule) -> str:
    rate = task.learning_rate if isinstance(task, Task) else math.nan
    return "lr -" if math.isnan(rate) else f"lr {rate:.2g}"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"
