"""Runs that are asked to stop: they finish their step, save, and leave with an exit code of their own.

Who asks: Ctrl-C or SIGINT, SIGTERM (clusters that preempt a job, `kill`), SIGUSR1 under SLURM (`--signal=SIGUSR1@90`:
the time is nearly over; the job is put back into the queue), or `trainer.max_time`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import Callback

from detseg.errors import RunStoppedError
from detseg.training.callbacks.checkpoints import BestAndLast
from detseg.training.task import Task

_REQUEUE = getattr(signal, "SIGUSR1", None)


class StopWhenAsked(Callback):
    """Ends a run at the next optimiser step after it was asked to; in a validation, before its next batch.

    Several processes agree at each step, so that a signal to one of them stops all; a validation that they share is
    finished first, and a step of the next epoch made.

    Args:
        saver: what saves.
        max_time: seconds after which the run asks itself; None: never.
    """

    def __init__(self, saver: BestAndLast, max_time: float | None = None) -> None:
        self.saver = saver
        self._deadline = None if max_time is None else time.monotonic() + max_time
        self._signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listens from now on; before, there is nothing to lose.  Lightning's own handlers leave without saving."""
        self._step = trainer.global_step
        wanted = [signal.SIGINT, signal.SIGTERM]
        if _REQUEUE is not None and "SLURM_JOB_ID" in os.environ:
            wanted.append(_REQUEUE)
        self._before = {number: signal.signal(number, self._on_signal) for number in wanted}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops behind a step."""
        stepped, self._step = trainer.global_step > self._step, trainer.global_step
        if stepped and isinstance(pl_module, Task) and pl_module.processes.any(self._asked()):
            self._stop(trainer)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Stops within the validation of a run of one process; a resumed run repeats it."""
        if trainer.world_size == 1 and self._asked():
            self._stop(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listens no more.  Not in ``teardown``, by which Lightning has given back the handlers that were there before
        its own: they would be overwritten by those."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Listens no more."""
        self.on_train_end(trainer, pl_module)

    def _on_signal(self, number: int, _: Any) -> None:
        if self._signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked again: at once
        self._signal = signal.Signals(number)

    def _asked(self) -> bool:
        return self._signal is not None or (self._deadline is not None and time.monotonic() >= self._deadline)

    def _stop(self, trainer: L.Trainer) -> None:
        self.saver.save_unless_saved(trainer)
        self.saver.files.flush()
        # Lightning kills the first process, writing or not, once one that it has started is gone.
        cast(Task, trainer.lightning_module).processes.any(False)
        reason = "by another process" if self._signal is None else f"by {self._signal.name}"
        if self._deadline is not None and time.monotonic() >= self._deadline:
            reason = "by trainer.max_time"
        if self._signal is not None and self._signal == _REQUEUE and trainer.is_global_zero:
            reason += f"; {_requeue()}"
        raise RunStoppedError(
            f"stopped {reason} after step {trainer.global_step}; everything is saved in {self.saver.folder.parent}: "
            f"resume with --resume"
        )


def _requeue() -> str:
    """Put this job of SLURM's back into the queue; what came of it."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ["SLURM_JOB_ID"]
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return f"job {job} could not be put back into the queue ({error})"
    return f"job {job} is back in the queue"
