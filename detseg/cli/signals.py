"""Signals that ask a training to stop, for the command and scripts like it: `detseg.train` by itself answers none.

Ctrl-C or SIGINT, SIGTERM (clusters that preempt a job, `kill`), and under SLURM SIGUSR1 (`--signal=SIGUSR1@90`: time
is nearly over; the job is put back into the queue).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from detseg.cli.tool import exit_on_sigterm
from detseg.data.loading.processes import WaitInterrupted, seconds_waited
from detseg.errors import RunStoppedError
from detseg.training.callbacks.stopping import StopRequest

_REQUEUE = getattr(signal, "SIGUSR1", None)

_PATIENCE = 5.0  # seconds after a signal in which a batch may still come, and a step be finished; docker kills after 10


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """A request for ``train(stop=…)``, which signals ask while the training makes steps.

    Before its first step there is nothing to save, and SIGTERM leaves as ``exit_on_sigterm`` says. RunStoppedError: as
    ``train`` raises it, with what became of the job; SystemExit: SIGTERM came before the first step.
    """
    request = _Signals()
    try:
        with exit_on_sigterm():
            yield request
    except RunStoppedError as stopped:
        if request.number is None or request.number != _REQUEUE:
            raise
        raise RunStoppedError(f"{stopped}; {_requeue()}") from None


class _Signals(StopRequest):
    """Listens as long as the training makes steps; Lightning's own handlers, which it replaces, do not save.

    A step that is made is finished. A batch that is waited for may never come: an alarm looks whether one is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.number: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def training_begins(self) -> None:
        requeue = [_REQUEUE] if _REQUEUE is not None and "SLURM_JOB_ID" in os.environ else []
        wanted = [signal.SIGINT, signal.SIGTERM, *requeue]
        self._before = {number: signal.signal(number, self._on_signal) for number in wanted}
        if sys.platform != "win32":
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._on_alarm)

    def training_ends(self) -> None:
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self.reason is not None and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked again: at once
        self.number = number
        self.ask(f"by {signal.Signals(number).name}")
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_REAL, _PATIENCE, 1)

    def _on_alarm(self, *_: Any) -> None:
        if seconds_waited() > _PATIENCE:
            raise WaitInterrupted


def _requeue() -> str:
    """Put this job of SLURM's back into the queue; what came of it."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ["SLURM_JOB_ID"]
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return f"job {job} could not be put back into the queue ({error})"
    return f"job {job} is back in the queue"
