"""How often things are measured."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

_LEAST, _MOST = 3, 50


@dataclass(frozen=True)
class Effort:
    """How often a measurement is repeated.

    Attributes:
        steps: so many times exactly; None: as often as ``seconds`` allow, 3 to 50 times.
        seconds: for each of the things that are measured.
    """

    steps: int | None = None
    seconds: float = 4.0

    def repetitions(self, factor: float = 1.0) -> Iterator[int]:
        """0, 1, 2, ... while there is time: ``factor`` times the seconds."""
        begin, number = time.perf_counter(), 0
        while self._goes_on(number, time.perf_counter() - begin, factor * self.seconds):
            yield number
            number += 1

    def _goes_on(self, number: int, passed: float, seconds: float) -> bool:
        if self.steps is not None:
            return number < self.steps
        return number < _LEAST or (number < _MOST and passed < seconds)
