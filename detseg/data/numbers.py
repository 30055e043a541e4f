"""Which numbers of annotation files can be pixels."""

from __future__ import annotations

from collections.abc import Iterable

LARGEST = 1e15
"""Numbers beyond this are no pixels; up to it, float64 holds every whole number."""


def are_numbers(values: Iterable[object]) -> bool:
    """Whether all values are numbers that can be pixels; true and false are none."""
    return all(
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST  # NaN is not less
        for value in values
    )
