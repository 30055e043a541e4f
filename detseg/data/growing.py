"""Arrays that grow in one piece of memory; to join pieces would take twice as much, and leave holes behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


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
