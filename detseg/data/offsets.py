"""Offsets of rows that lie one after the other in one array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detseg.structures import IntArray


def running_total(counts: Sequence[int] | IntArray) -> IntArray:
    """I counts → (I + 1,) int64 offsets, from 0 to the sum."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets
