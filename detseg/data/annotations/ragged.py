"""Rows of different lengths that lie one after the other in one array, and the offsets at which they begin.

Letters for dimensions: I rows, R picked rows, V values of the picked rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detseg.structures import BoolArray, IntArray


def running_total(counts: Sequence[int] | IntArray | BoolArray) -> IntArray:
    """I counts → (I + 1,) int64 offsets, from 0 to the sum."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def select_rows(offsets: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Where the values of some rows lie.

    Args:
        offsets: (I + 1,) int64; the values of row i are ``offsets[i]`` to ``offsets[i + 1]``.
        rows: (R,) int64, in any order.

    Returns:
        (V,) int64 positions of their values, and the (R + 1,) int64 offsets of the rows among these.
    """
    lengths = offsets[rows + 1] - offsets[rows]
    selected = running_total(lengths)
    positions: IntArray = np.repeat(offsets[rows] - selected[:-1], lengths) + np.arange(selected[-1])
    return positions, selected
