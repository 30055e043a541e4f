"""Offsets of rows that lie one after the other in one array.

Letters for dimensions: I rows, V values of all rows, R picked rows.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from detseg.structures import BoolArray, IntArray

_LOT = 1 << 16
"""Values that are picked at a time: their indices would take more memory than they do, and stay in the cache."""

THREADS = min(os.cpu_count() or 1, 4)
"""That work at the arrays of a large data set; more of them would wait for the memory."""

Scalar = TypeVar("Scalar", bound=np.generic)


def running_total(counts: Sequence[int] | IntArray | BoolArray) -> IntArray:
    """I counts → (I + 1,) int64 offsets, from 0 to the sum."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def ranges(starts: IntArray, lengths: IntArray) -> IntArray:
    """The whole numbers from ``starts[0]`` on, ``lengths[0]`` of them, then those from ``starts[1]`` on, and so on."""
    before = running_total(lengths)
    found: IntArray = np.repeat(starts - before[:-1], lengths) + np.arange(before[-1])
    return found


def pick_rows(values: npt.NDArray[Scalar], offsets: IntArray, rows: IntArray) -> tuple[npt.NDArray[Scalar], IntArray]:
    """Some of the rows, in the given order.

    Args:
        values: (V,).
        offsets: (I + 1,) int64; row i is ``values[offsets[i]:offsets[i + 1]]``.
        rows: (R,) int64.

    Returns:
        their values one after the other, and their (R + 1,) offsets.
    """
    starts, lengths = offsets[rows], offsets[rows + 1] - offsets[rows]
    picked = running_total(lengths)
    found = np.empty(picked[-1], dtype=values.dtype)
    borders = np.unique([0, *np.searchsorted(picked, np.arange(0, picked[-1], _LOT)), len(rows)])

    def pick(first: int, last: int) -> None:
        lot = slice(first, last)
        np.take(values, ranges(starts[lot], lengths[lot]), out=found[picked[first] : picked[last]], mode="clip")

    with ThreadPoolExecutor(THREADS) as threads:  # numpy lets others work meanwhile
        list(threads.map(pick, borders[:-1].tolist(), borders[1:].tolist()))
    return found, picked


class GrowingArray:
    """Rows of one type.

    Args:
        dtype: of the values.
        width: values of a row; 1: the array has one dimension.
    """

    def __init__(self, dtype: npt.DTypeLike, width: int = 1) -> None:
        self.dtype = np.dtype(dtype)
        self._shape = (-1, width) if width > 1 else (-1,)
        self._bytes = bytearray()  # which the system enlarges without a copy where it is large

    def add(self, rows: npt.ArrayLike) -> None:
        """Take the next rows."""
        self._bytes += np.ascontiguousarray(rows, dtype=self.dtype).data

    def all(self) -> npt.NDArray[Any]:
        """The rows so far; there can be no more while this array is alive."""
        return np.frombuffer(self._bytes, dtype=self.dtype).reshape(self._shape)
