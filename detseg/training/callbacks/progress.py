"""What a run shows while it goes on: a bar in a terminal, elsewhere a line every half minute, and a line an epoch."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from rich.progress import BarColumn, Progress, TextColumn

from detseg.console import ConsoleHandler, console
from detseg.training.task import Task

logger = logging.getLogger("detseg")

_REFRESH_SECONDS = 0.2
_WINDOW_SECONDS, _WINDOW_BATCHES = 60.0, 20
_SETTLING_STEPS = 500
_FAR_ABOVE = 3.0
_SETTLING = (
    "the validation loss ({:.4g}) is left out of the first lines while it is far above the training's: averaged "
    "weights and the statistics of batch normalisation still trail the first steps; metrics.csv has every value"
)


class Pace:
    """Rate and time left of a training, from its last minute alone: the first batches are slower than the rest.

    Args:
        clock: the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._batches: deque[tuple[float, float, int]] = deque()  # end, seconds, images
        self._last = clock()
        self._in_batches = False
        self._between = 0.0
        self._validation = math.nan

    def batch(self, num_images: int) -> None:
        """A training batch has ended; the first after a pause holds the start of loaders, too, and is not counted."""
        now = self._clock()
        seconds, self._last = now - self._last, now
        if self._in_batches:
            self._batches.append((now, seconds, num_images))
            while len(self._batches) > _WINDOW_BATCHES and self._batches[0][0] < now - _WINDOW_SECONDS:
                self._batches.popleft()
        elif self._batches:  # else it is the very first
            self._between = max(seconds - self.seconds_a_batch, 0.0)
        self._in_batches = True

    def pause(self, validated: bool = False) -> None:
        """The batches of an epoch are over, or (``validated``) its validation is."""
        now = self._clock()
        if validated:
            self._validation = now - self._last
        self._last, self._in_batches = now, False

    @property
    def seconds_a_batch(self) -> float:
        """NaN before the second batch."""
        return sum(seconds for _, seconds, _ in self._batches) / len(self._batches) if self._batches else math.nan

    @property
    def images_a_second(self) -> float:
        """NaN before the second batch."""
        seconds = sum(seconds for _, seconds, _ in self._batches)
        return sum(images for *_, images in self._batches) / seconds if seconds else math.nan

    def left(self, batches: float, epochs: float, validations: float, val_batches: float) -> str:
        """The time for what is left, as h:mm:ss; a validation that was never seen counts a third of a training batch
        for each of its ``val_batches``."""
        validation = val_batches * self.seconds_a_batch / 3 if math.isnan(self._validation) else self._validation
        seconds = batches * self.seconds_a_batch + epochs * self._between + validations * validation
        return str(timedelta(seconds=round(seconds))) if math.isfinite(seconds) else "-:--:--"


class RunProgress(Callback):
    """One bar in a terminal; elsewhere a line at least every ``every_seconds``; and for both a line an epoch.

    Args:
        every_seconds: longest time between two lines, as far as batches are not longer.
    """

    def __init__(self, every_seconds: float = 30.0) -> None:
        self.every_seconds = every_seconds
        self._bar: Progress | None = None
        self._pace = Pace()
        self._shown = self._said = 0.0
        self._has_explained = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clocks, and the bar where messages go to a terminal, too: it would wipe those of others."""
        self._pace, self._said = Pace(), time.monotonic()
        if (
            trainer.is_global_zero
            and console.is_terminal
            and any(isinstance(h, ConsoleHandler) for h in logger.handlers)
        ):
            columns = TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.fields[text]}")
            # Without a thread that refreshes: loaders may fork while it holds the console's lock.
            self._bar = Progress(*columns, console=console, expand=True, transient=True, auto_refresh=False)
            self._bar.add_task(_epoch(trainer), total=None, text="")
            self._bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves on; the batches that a resumed run had before are None."""
        if batch is None:
            return
        self._pace.batch(len(batch) * trainer.world_size)
        self._show(trainer, batch_idx + 1, trainer.num_training_batches, "")
        if trainer.is_last_batch:
            self._pace.pause()

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Moves on."""
        self._show(trainer, batch_idx + 1, sum(trainer.num_val_batches), "validation ")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the time of a validation."""
        self._pace.pause(validated=True)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The line of the epoch, whose validation, if there was one, is over by now."""
        if not trainer.is_global_zero or not isinstance(pl_module, Task):
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        parts = [_epoch(trainer)]
        validated = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
        if "train/loss_epoch" in metrics:
            loss, val_loss = metrics["train/loss_epoch"], metrics.get("val/loss")
            parts.append(f"loss {_number(loss)}")
            if validated and val_loss is not None:
                is_settling = trainer.global_step < _settled(pl_module) and val_loss > _FAR_ABOVE * loss
                parts[-1] += " (val -)" if is_settling else f" (val {_number(val_loss)})"
                if is_settling and not self._has_explained:
                    logger.info(_SETTLING.format(val_loss))
                    self._has_explained = True
        if validated:  # else the metrics are those of an earlier epoch
            names = (name for name in pl_module.shown if f"val/{name}" in metrics)
            parts += [f"{name} {metrics[f'val/{name}']:.3f}" for name in names]
        if self._bar is None:  # it is in the bar
            parts.append(_rate(trainer))
        parts += [self._speed(), f"left {self._left(trainer, 0, 0.0)}"]
        self._said = time.monotonic()
        logger.info("  ".join(parts))

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Removes the bar."""
        self._end()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Removes the bar."""
        self._end()

    def _end(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()

    def _show(self, trainer: L.Trainer, done: int, total: float, what: str) -> None:
        """The bar or a line, if it is time for it."""
        now = time.monotonic()
        batch_seconds = self._pace.seconds_a_batch if math.isfinite(self._pace.seconds_a_batch) else 0.0
        # The next batch would come too late.
        line_due = self._bar is None and now + batch_seconds - self._said >= self.every_seconds
        bar_due = self._bar is not None and (now - self._shown >= _REFRESH_SECONDS or done == total)
        if not trainer.is_global_zero or not (line_due or bar_due):
            return
        in_epoch, to_validate = (0, 1 - done / total) if what else (total - done, float(_validates(trainer, 0)))
        counts, left = f"{done}/{total}", f"left {self._left(trainer, in_epoch, to_validate)}"
        metrics = trainer.callback_metrics
        names = [name for name in metrics if name.startswith("train/") and name.endswith("_step")]
        terms = {name.removeprefix("train/").removesuffix("_step"): _number(float(metrics[name])) for name in names}
        loss = [f"loss {terms.pop('loss')}"] if "loss" in terms else []
        parts = [*loss, _rate(trainer), self._speed(), left]
        if trainer.strategy.root_device.type == "cuda":
            parts.append(f"{torch.cuda.memory_reserved(trainer.strategy.root_device) / 2**30:.1f} GB")
        if self._bar is None:
            self._said = now
            logger.info("  ".join([_epoch(trainer), f"{what or 'batch '}{counts}", *parts]))
            return
        self._shown = now
        room = console.width - len(_epoch(trainer)) - len(what) - 10  # for the bar, too
        for place, extra in ((0, counts), (2, ", ".join(f"{name} {value}" for name, value in terms.items()))):
            if extra and len("  ".join([*parts, extra])) <= room:
                parts.insert(place, extra)
        bar, task = self._bar, self._bar.task_ids[0]
        description = f"{_epoch(trainer)} {what}".rstrip()
        bar.update(task, description=description, completed=done, total=total, text="  ".join(parts))
        bar.refresh()

    def _speed(self) -> str:
        speed = self._pace.images_a_second
        return f"{_number(speed) if math.isfinite(speed) else '-'} img/s"

    def _left(self, trainer: L.Trainer, batches: float, validations: float) -> str:
        """The time left; ``batches`` and ``validations`` are those of this epoch."""
        epochs = max((trainer.max_epochs or 0) - trainer.current_epoch - 1, 0)
        validations += sum(_validates(trainer, ahead) for ahead in range(1, epochs + 1))
        batches += epochs * float(trainer.num_training_batches)
        return self._pace.left(batches, epochs, validations, float(sum(trainer.num_val_batches)))


class ValidateLastEpoch(Callback):
    """The last epoch is validated whatever the interval, so that no run ends on weights that nobody measured."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Shortens the interval for the last epoch."""
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1


def _epoch(trainer: L.Trainer) -> str:
    return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"


def _validates(trainer: L.Trainer, ahead: int) -> bool:
    """Whether the epoch that lies ``ahead`` of this one ends with a validation."""
    number = trainer.current_epoch + 1 + ahead
    return number % (trainer.check_val_every_n_epoch or 1) == 0 or number == trainer.max_epochs


def _rate(trainer: L.Trainer) -> str:
    return f"lr {trainer.optimizers[0].param_groups[0]['lr']:.2g}"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"


def _settled(task: Task) -> int:
    """Steps after which a validation loss means what it says, whatever it is."""
    return max(_SETTLING_STEPS, 0 if task.average is None else task.average.warmup_steps)
