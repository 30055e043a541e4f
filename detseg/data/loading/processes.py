"""The processes of a loader: how they begin and end, how long a batch is waited for, and what is said where one fails.

torch alone would wait without end for a process that is stopped, or whose native code does not let Python run: a batch
in shared memory is handed over by its process, which torch's time-out does not cover, and a process that does not act
on SIGTERM is joined at the end. So a batch that is late ends the processes by SIGKILL, and so does the program's end.
"""

from __future__ import annotations

import atexit
import logging
import math
import multiprocessing
import os
import re
import select
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import TypeVar

import cv2
import torch

from detseg.errors import DetsegError
from detseg.messages import one_line

logger = logging.getLogger("detseg")

T = TypeVar("T")

_SHARED = "/dev/shm"  # where torch puts what processes share on Linux
_TO_ANSWER = 1.0  # seconds in which a process can act on SIGTERM
_EXIT_NO_GUARD = 78  # EX_CONFIG of sysexits.h
_NO_GUARD = (
    "data.num_workers: the loader's processes run your script again from its beginning; put what it does behind "
    '`if __name__ == "__main__":`, or set data.num_workers to 0'
)


class WaitInterrupted(BaseException):
    """Ends the wait for a batch: a signal handler may raise it. No data set takes it for an error of its own."""


class LoaderProcesses:
    """The processes of one loader, or none; ``timeout``: seconds to wait for a batch, beyond which it is an error."""

    def __init__(self, timeout: float = math.inf) -> None:
        self.timeout = timeout
        self._processes: list[BaseProcess] = []
        self._is_late = False

    def batches(self, begin: Callable[[], Iterator[T]]) -> Iterator[T]:
        """The batches of the iterator of torch's that ``begin`` returns, each within ``timeout``.

        Raises:
            DetsegError: a process has died, or a batch is late; no process is left.
        """
        over = threading.Event()
        threading.Thread(target=self._kill_when_late, args=[over], daemon=True).start()
        try:
            batches = self._wait(begin)
            if not self._processes:
                self._processes += getattr(batches, "_workers", [])
                _end_at_exit(self._processes)
            while (batch := self._wait(lambda: next(batches, None))) is not None:
                yield batch
        finally:
            over.set()

    def end(self) -> None:
        """End the processes, also those that cannot act on SIGTERM. (Idle ones end with their loader by torch.)"""
        _end(self._processes)
        self._processes.clear()

    def _wait(self, get: Callable[[], T]) -> T:
        _waits[self] = time.monotonic()
        try:
            try:
                return get()
            except (EOFError, ConnectionError):
                # The connection to a process closes before it is dead, of which torch's handler tells in here.
                _join(self._processes, 1)
                raise
        except (RuntimeError, OSError, EOFError) as error:
            line = self._late_line() if self._is_late else _death(error, self._processes)
            if line is None:
                raise
            self.end()
            raise DetsegError(line) from error
        finally:
            _waits.pop(self, None)

    def _kill_when_late(self, over: threading.Event) -> None:
        """In a thread of its own: the reading of what a stopped process would have to hand over fails once it is dead,
        and the wait ends."""
        while not over.wait(min(1.0, self.timeout / 4)):
            if self._processes and time.monotonic() - _waits.get(self, math.inf) > self.timeout:
                # One that has died is the reason itself; after a training of Lightning's torch may notice it later.
                self._is_late = all(process.is_alive() for process in self._processes)
                for process in self._processes:
                    process.kill()
                return

    def _late_line(self) -> str:
        return (
            f"data.loader_timeout: no batch came from the loader's processes for {self.timeout:g} s: is there a disk "
            "or network that does not answer, or an augmentation that never ends? data.num_workers=0 with --debug and "
            "Ctrl-C shows where; if batches only take long, raise it"
        )


_waits: dict[LoaderProcesses, float] = {}  # of loaders that wait for a batch, since when
_running: weakref.WeakSet[BaseProcess] = weakref.WeakSet()  # those of all loaders


def seconds_waited() -> float:
    """For how long a batch has been waited for; 0: for none."""
    return max((time.monotonic() - since for since in list(_waits.values())), default=0.0)


def _end_at_exit(processes: Sequence[BaseProcess]) -> None:
    _running.update(processes)
    # Registered last, it runs first: before torch's and multiprocessing's own functions, which wait without end.
    atexit.unregister(_end_running)
    atexit.register(_end_running, os.getpid())


def _end_running(owner: int) -> None:
    if os.getpid() == owner:  # not a fork of it
        _end(list(_running))


def _end(processes: Sequence[BaseProcess]) -> None:
    with _deaths_ignored():
        for process in processes:
            process.terminate()
        _join(processes, _TO_ANSWER)
        for process in processes:
            process.kill()
        _join(processes, 10)


def _join(processes: Sequence[BaseProcess], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))


@contextmanager
def _deaths_ignored() -> Iterator[None]:
    """torch's handler would raise an error for each process that is killed."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


@contextmanager
def loader_errors() -> Iterator[None]:
    """A block that has loaders: torch raises an error on a process that has died where the main thread is, in a
    training step, say; it becomes a DetsegError."""
    try:
        yield
    except RuntimeError as error:
        named = [process for process in list(_running) if re.search(rf"\b{process.pid}\b", str(error))]
        if (line := _death(error, named)) is None:
            raise
        raise DetsegError(line) from error


def _death(error: Exception, processes: Sequence[BaseProcess]) -> str | None:
    """One line on a loader process that has died, of these, if that is what an error of torch says; None: it is
    another."""
    text, exit_codes = one_line(error), [process.exitcode or 0 for process in processes]
    if _EXIT_NO_GUARD in exit_codes or (text.startswith("DataLoader worker") and f"code {_EXIT_NO_GUARD}" in text):
        return _NO_GUARD
    if any(exit_codes) or text.startswith("DataLoader worker (pid"):
        code = next(filter(None, exit_codes), 0)
        how = f", killed by {signal.Signals(-code).name}" if code < 0 else f" with exit code {code}" if code else ""
        return (
            f"a loader process has died{how}: {text}; if it was killed for lack of memory, lower data.num_workers or "
            "data.batch_size; otherwise --debug and data.num_workers=0 show the cause"
        )
    return None


_has_warned = False


def look_at_shared_memory(wanted: int) -> None:
    """Say, once in this process, what happens where ``wanted`` bytes are more than there are."""
    global _has_warned
    if sys.platform != "linux" or _has_warned:
        return
    try:
        state = os.statvfs(_SHARED)
        free = state.f_bavail * state.f_frsize
    except OSError:
        free = 0
    if free < wanted:
        _has_warned = True
        logger.warning(
            f"{_SHARED} has {free / 2**20:.0f} MB free, and batches of the loader's processes may take "
            f"{wanted / 2**20:.0f} MB: those without room go through pipes, which is slower; more room (docker run "
            "--shm-size=2g) or lower data.num_workers"
        )


def init_worker(worker_id: int) -> None:
    """One thread, since thread pools do not survive a fork, and no signals but those of the training process: Ctrl-C
    and cluster managers signal all processes of a job, but a training that is asked to stop finishes its step first."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Exit on SIGTERM of the training process, and within a second where that is no more; also where the main thread
    reads a file that never comes. (PR_SET_PDEATHSIG would go by the thread that has forked, which may end before.)"""
    parent = multiprocessing.parent_process()
    while sys.platform == "linux" and parent is not None:  # only here does the system tell who sent a signal
        sent = signal.sigtimedwait({signal.SIGTERM}, 1)
        if os.getppid() != parent.pid or (sent is not None and sent.si_pid == parent.pid):
            os._exit(0)


def leave_if_starting() -> None:
    """Raise SystemExit in a spawned loader process that runs its parent's script again before it begins its own work.

    It could start no loader there. The loader that started it reads the exit code and tells of the ``__main__`` guard.
    """
    main, again = sys.modules.get("__main__"), sys.modules.get("__mp_main__")
    # Once a spawned process has started these are one module; in any other process neither is called __mp_main__.
    if again is not None and again.__name__ == "__mp_main__" and again is not main:
        pipe = re.search(r"pipe_handle=(\d+)", " ".join(sys.orig_argv))
        # The parent writes what this process would work on, and would wait for ever for a reader; it closes nothing.
        while pipe and sys.platform != "win32" and select.select([int(pipe[1])], [], [], 1)[0]:
            if not os.read(int(pipe[1]), 1 << 20):
                break
        raise SystemExit(_EXIT_NO_GUARD)
