"""Rows that lie one after the other."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from detseg.data.annotations import ragged as offsets


@pytest.mark.parametrize("lot", [1, 7, 1 << 16])
def test_rows_are_picked_in_any_order(lot: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offsets, "_LOT", lot)
    rng = np.random.default_rng(0)
    for count in (0, 1, 5, 60):
        lengths = rng.integers(0, 5, 60)
        starts, values = offsets.running_total(lengths), rng.random(int(lengths.sum()))
        rows = rng.integers(0, 60, count)
        found, begins = offsets.pick_rows(values, starts, rows)
        expected = [values[starts[row] : starts[row + 1]].tolist() for row in rows]
        assert [found[a:b].tolist() for a, b in pairwise(begins.tolist())] == expected


def test_ranges() -> None:
    assert offsets.ranges(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
