"""Runs that differ in the seed alone, and the difference of two groups of them: how much of it is luck of the seed.

The interval is Welch's (1947, "The generalization of 'Student's' problem when several different population variances
are involved"), with the degrees of freedom of Satterthwaite (1946).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detseg.structures import FloatArray

_NUM_ANGLES = 20_001


@dataclass(frozen=True)
class OverSeeds:
    """A number of two groups of runs.

    Attributes:
        first, second: the number of each run of a group, two or more.
        first_sd, second_sd: their standard deviations (of a sample).
        low, high: ends of the 95 % interval of the difference of the means, second minus first, for the choice of the
            seeds.
        p: two-sided, of no difference.
    """

    first: tuple[float, ...]
    second: tuple[float, ...]
    first_sd: float
    second_sd: float
    low: float
    high: float
    p: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def welch(first: Sequence[float], second: Sequence[float]) -> OverSeeds:
    """Compare the means of two groups of two numbers or more, whose variances may differ."""
    sds = float(np.std(first, ddof=1)), float(np.std(second, ddof=1))
    change = float(np.mean(second) - np.mean(first))
    parts = [(sd**2 / len(group), len(group) - 1) for sd, group in zip(sds, (first, second), strict=True)]
    variance = sum(part for part, _ in parts)
    if math.isnan(variance) or variance == 0:  # undefined; or all runs of each group are equal
        return OverSeeds(tuple(first), tuple(second), *sds, change, change, 1.0 if change == 0 else variance)
    freedom = variance**2 / sum(part**2 / number for part, number in parts)
    reach, p = _student(abs(change) / math.sqrt(variance), freedom)
    error = reach * math.sqrt(variance)
    return OverSeeds(tuple(first), tuple(second), *sds, change - error, change + error, p)


def _student(t: float, freedom: float) -> tuple[float, float]:
    """Of Student's t distribution the t that 95 % do not exceed in size, and the probability to exceed ``t``.

    With t = √freedom · tan(angle), the density of the angle is proportional to cos(angle)^(freedom - 1).
    """
    angles: FloatArray = np.linspace(0, math.pi / 2, _NUM_ANGLES)
    density = np.cos(angles).clip(0) ** (freedom - 1)
    below = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    below /= below[-1]
    limit = math.sqrt(freedom) * math.tan(float(np.interp(0.95, below, angles)))
    return limit, 1 - float(np.interp(math.atan(t / math.sqrt(freedom)), angles, below))
