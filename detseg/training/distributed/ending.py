"""How a run of several processes ends when one of them fails or is asked to stop: all at once, and with one line."""

from __future__ import annotations

import atexit
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L
import torch.distributed as dist
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from detseg.errors import DetsegError, RunStoppedError

_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
_USERS_MISTAKE = 2
"""The exit code of a process that has said in one line what is wrong (``run_tool``)."""


@contextmanager
def ending_together(trainer: L.Trainer) -> Iterator[None]:
    """Within it, an error in one of several processes ends the others, too.

    The process that fails says why.  The others see no more than that it is gone and leave in silence; the first says
    so, unless it has started the one that is gone and knows that it did say why.

    Raises:
        DetsegError: another process is gone.
        SystemExit: the same, where nothing is left to be said; or this one was terminated before the first step.
    """
    launcher = trainer.strategy.launcher
    started = launcher if isinstance(launcher, _SubprocessScriptLauncher) else None
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if started is not None:  # they would wait for this one
            started.kill(_KILL)
        raise
    except RunStoppedError:
        if trainer.is_global_zero:
            raise
        raise SystemExit(0) from None  # all of them stop, in order; the first says so
    except Exception as error:
        if started is not None:
            # They may wait for this one in a GPU's queue until its watchdog wakes up.
            atexit.register(started.kill, _KILL)
        if trainer.world_size == 1 or not _is_lost_connection(error):
            raise
        if not trainer.is_global_zero or (started is not None and _one_has_said_why(started)):
            raise SystemExit(_USERS_MISTAKE) from error
        raise DetsegError(
            "another process of this run has ended, and so does this one; what it said is above, and if it said "
            "nothing it was killed: for want of memory, or from outside"
        ) from error


def _is_lost_connection(error: Exception) -> bool:
    """Whether a process could not be reached any more: torch raises its own classes, or gloo's words."""
    words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo/transport")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def _one_has_said_why(launcher: _SubprocessScriptLauncher, patience: float = 2.0) -> bool:
    """Whether a process that this one has started left with an error message; its end may take a moment."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        codes = [process.poll() for process in launcher.procs]
        if any(codes):
            return _USERS_MISTAKE in codes
        time.sleep(0.05)
    return False
