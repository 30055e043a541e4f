"""Runs that end before their last epoch: they were asked to stop, finish their step and save; or stop improving."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import lightning as L
from lightning.pytorch import callbacks

from detseg.checkpoint import LAST
from detseg.data.loading.processes import WaitInterrupted
from detseg.errors import RunStoppedError
from detseg.training.callbacks.checkpoints import BestAndLast
from detseg.training.resume import HOW_TO_RESUME
from detseg.training.task import Task


class StopRequest:
    """Asks a training to stop behind its step; any thread may ask.

    Attributes:
        reason: why, as in "stopped by request"; None: nobody has asked since it last stopped a training.
        how_to_resume: what to say to those whose training was stopped.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.how_to_resume = HOW_TO_RESUME

    def ask(self, reason: str = "by request") -> None:
        """Have the training stop."""
        self.reason = reason

    def training_begins(self) -> None:
        """Called before the first step, in the thread that trains."""

    def training_ends(self) -> None:
        """Called behind the last step, however it ended."""


class StopWhenAsked(callbacks.Callback):
    """Ends a run at the next optimiser step after it was asked to; in a validation, before its next batch.

    Several processes agree at each step, so that asking one of them stops all; a validation that they share is finished
    first, and a step of the next epoch made.

    ``max_time``: seconds after which the run asks itself; None: never.
    """

    def __init__(self, saver: BestAndLast, request: StopRequest, max_time: float | None = None) -> None:
        self.saver, self.request = saver, request
        self._deadline = None if max_time is None else time.monotonic() + max_time
        self._step = 0
        self._is_between_steps = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listens from now on; before, there is nothing to lose."""
        self._step = trainer.global_step
        self.request.training_begins()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        stepped, self._step = trainer.global_step > self._step, trainer.global_step
        self._is_between_steps = stepped  # else gradients are accumulated, or a resumed run had the batch before
        if stepped and isinstance(pl_module, Task) and pl_module.processes.any(self._reason() is not None):
            self._stop(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        # A resumed run repeats the validation; several processes finish it.
        if trainer.world_size == 1 and self._reason() is not None:
            self._stop(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listens no more.  Not in ``teardown``, by which Lightning has given back the signal handlers that were there
        before its own: a request that replaced these would bring them back. Asked for behind the last step, it stands:
        another training may follow, as in a search."""
        self.request.training_ends()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, WaitInterrupted):
            exception.args = (self._left_waiting(trainer),)
        self.request.training_ends()
        if isinstance(exception, RunStoppedError | WaitInterrupted):
            self.request.reason = None  # it may be given to the training that resumes

    def _reason(self) -> str | None:
        over = self._deadline is not None and time.monotonic() >= self._deadline
        return "by trainer.max_time" if over else self.request.reason

    def _stop(self, trainer: L.Trainer) -> None:
        self.saver.save_unless_saved(trainer)
        self.saver.files.flush()
        # Lightning kills the first process, writing or not, once one that it has started is gone.
        cast(Task, trainer.lightning_module).processes.any(False)
        raise RunStoppedError(
            f"stopped {self._reason() or 'by another process'} after step {trainer.global_step}; everything is saved "
            f"in {self.saver.folder.parent}: {self.request.how_to_resume}"
        )

    def _left_waiting(self, trainer: L.Trainer) -> str:
        """Save, where this process can alone and no step is half done; the line that says so."""
        self.request.training_ends()  # a second interruption would leave a file half written
        run_dir, saved = self.saver.folder.parent, "nothing was saved"
        if trainer.world_size == 1 and self._is_between_steps:
            self.saver.save_unless_saved(trainer)
            self.saver.files.flush()
            saved = f"everything is saved in {run_dir}: {self.request.how_to_resume}"
        elif (self.saver.folder / LAST).is_file():
            saved = f"what was saved last is in {run_dir}: {self.request.how_to_resume}"
        when = f"after step {trainer.global_step}, waiting for a batch that did not come"
        return f"stopped {self._reason()} {when}; {saved}"


class EarlyStopping(callbacks.EarlyStopping):
    """Resumes with the patience of today's settings; Lightning's would with that of the checkpoint."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})


class StopByValidation(callbacks.Callback):
    """Gives each validation's metric to a function, and ends the run with the epoch where that says so.

    Args:
        metric: name of the logged metric, as ``val/AP``.
        is_enough: epoch (from 1) and value → whether the run ends.
    """

    def __init__(self, metric: str, is_enough: Callable[[int, float], bool]) -> None:
        self.metric, self.is_enough = metric, is_enough

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.is_enough(trainer.current_epoch + 1, float(trainer.callback_metrics[self.metric])):
            trainer.should_stop = True
