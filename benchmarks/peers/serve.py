"""What runs in the environment in which a peer is installed: answers to requests, and a training that can be held."""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from queue import Queue
from typing import Any


def serve(*functions: Callable[..., Any]) -> None:
    """Answer requests for functions by name, one JSON line each, until standard input ends; an error is handed on as a
    line of text, and what peers print goes to standard error."""
    by_name = {function.__name__: function for function in functions}
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": by_name[request.pop("do")](**request)}
        except Exception as error:  # whatever a peer raises, the benchmark shall say it and end
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


class PacedTraining:
    """A training in a thread of its own, on either side of a comparison, which waits between steps or epochs: ``train``
    calls ``before`` and ``after`` around each."""

    def __init__(self, train: Callable[[PacedTraining], object]) -> None:
        self._permits: Queue[int] = Queue()
        self._done: Queue[float | BaseException] = Queue()
        self._left = 0
        self._begin = self._taken = 0.0
        self._thread = threading.Thread(target=self._run, args=(train,), daemon=True)
        self._thread.start()
        atexit.register(self.end)  # a program that ends while torch computes in a thread is aborted

    def _run(self, train: Callable[[PacedTraining], object]) -> None:
        try:
            train(self)
            self._done.put(RuntimeError("the training has ended"))
        except BaseException as error:  # handed on to whoever waits
            self._done.put(error)

    def advance(self, units: int) -> float:
        """Seconds of so many further steps or epochs, without what lies between; raises what ended the training."""
        self._permits.put(units)
        taken = self._done.get()
        if isinstance(taken, BaseException):
            raise taken
        return taken

    def end(self) -> None:
        """End the training."""
        self._permits.put(0)
        self._thread.join(60)

    def before(self, *_: Any) -> None:
        """A step or epoch begins: wait for the permission."""
        if not self._left:
            self._left, self._taken = self._permits.get(), 0.0
            if not self._left:
                raise RuntimeError("the training is no longer wanted")
        self._begin = time.perf_counter()

    def after(self, *_: Any) -> None:
        """A step or epoch is over: take down its time."""
        self._taken += time.perf_counter() - self._begin
        self._left -= 1
        if not self._left:
            self._done.put(self._taken)
