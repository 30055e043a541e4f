"""Clocks and a stopwatch that shares time out among the parts of a piece of work.

A GPU works behind the back of the program that feeds it: there, moments are CUDA events, taken once the GPU has
finished all that it was given.  So a piece of work that is split in parts takes longer than one that is not, since
nothing is prepared while the GPU computes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Clock:
    """Tells how much time lies between two moments on a device.

    Args:
        device: on which the work runs.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def mark(self) -> Any:
        """This moment, when all work that the device was given is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            cuda: Any = torch.cuda  # whose events are not annotated in all versions
            event = cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self.device))
            return event
        if self.device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()

    def seconds(self, begin: Any, end: Any) -> float:
        """From one ``mark`` to another."""
        if self.device.type == "cuda":
            end.synchronize()
            return float(begin.elapsed_time(end)) / 1000
        return float(end - begin)

    @contextmanager
    def timing(self, into: list[float]) -> Iterator[None]:
        """Appends the seconds that the block takes."""
        begin = self.mark()
        yield
        into.append(self.seconds(begin, self.mark()))


class Stopwatch:
    """Gives every moment of a piece of work to the innermost part that is open then.

    Args:
        clock: of the device.

    Attributes:
        seconds: what each part has taken so far, without the parts within it.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seconds: dict[str, float] = {}
        self._open: list[tuple[str, str]] = []
        self._since: Any = None

    @property
    def is_running(self) -> bool:
        """Whether any part is open."""
        return bool(self._open)

    @contextmanager
    def part(self, name: str, after: str | None = None) -> Iterator[None]:
        """A part of the work; where one is open already, a part within that.

        Args:
            name: whose time it is.
            after: whose time it is once a part within it has ended; None: the same.
        """
        self._charge()
        self._open.append((name, after or name))
        try:
            yield
        finally:
            self._charge()
            self._open.pop()
            if self._open:
                self._open[-1] = (self._open[-1][1], self._open[-1][1])

    def take(self, divided_by: float = 1.0) -> dict[str, float]:
        """What the parts have taken, each divided by a number; they begin anew."""
        taken = {name: seconds / divided_by for name, seconds in self.seconds.items()}
        self.seconds = {}
        return taken

    def _charge(self) -> None:
        now = self.clock.mark()
        if self._open:
            name = self._open[-1][0]
            self.seconds[name] = self.seconds.get(name, 0.0) + self.clock.seconds(self._since, now)
        self._since = now
