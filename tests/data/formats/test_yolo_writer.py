"""Polygons of masks: their area, and the pixels whose centres they hold, against plain counting."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from detseg.data.formats.yolo_writer import outer_polygon
from detseg.structures import BoolArray, FloatArray

CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.bool_)


def area(polygon: FloatArray) -> float:
    x, y = polygon.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def held(polygon: FloatArray, hw: tuple[int, int]) -> BoolArray:
    """(H, W) bool: pixels from whose centre a ray to the right crosses the polygon an odd number of times."""
    inside = np.zeros(hw, dtype=np.bool_)
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if x1 == x2:
            rows = slice(int(min(y1, y2)), int(max(y1, y2)))
            inside[rows, : int(x1)] ^= True
    return inside


def largest_piece_filled(mask: BoolArray) -> list[BoolArray]:
    """The pieces of most pixels (several, if equal), connected by sides and corners, their holes filled."""
    num, pieces = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    filled = []
    for piece in range(1, num):
        around = np.pad(np.asarray(pieces != piece), 1, constant_values=True).astype(np.uint8)
        _, outside = cv2.connectedComponents(around, connectivity=4)
        filled.append(np.asarray(outside != outside[0, 0])[1:-1, 1:-1])
    most = max(int(piece.sum()) for piece in filled)
    return [piece for piece in filled if piece.sum() == most]


def test_by_hand() -> None:
    square = outer_polygon(np.ones((1, 1), dtype=np.bool_))
    assert sorted(map(tuple, square.tolist())) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    wide = outer_polygon(np.pad(np.ones((2, 5), dtype=np.bool_), ((1, 0), (3, 2))))
    assert sorted(map(tuple, wide.tolist())) == [(3, 1), (3, 3), (8, 1), (8, 3)]
    assert len(outer_polygon(CROSS)) == 12  # every corner once
    assert area(outer_polygon(CROSS)) == 5


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(lambda mask: bool(mask.any())))
@example(np.pad(CROSS, 2))
@example(~np.pad(CROSS, 2))
@example(np.eye(4, dtype=np.bool_))
def test_holds_the_largest_piece_and_nothing_else(mask: BoolArray) -> None:
    polygon = outer_polygon(mask)
    assert len(polygon) >= 4
    sides = np.abs(polygon - np.roll(polygon, 1, axis=0))
    assert ((sides == 0).sum(axis=1) == 1).all()  # upright or level, none without length
    inside = held(polygon, mask.shape)
    candidates = largest_piece_filled(mask)
    assert any(np.array_equal(inside, piece) for piece in candidates)
    assert area(polygon) == candidates[0].sum()


@pytest.mark.parametrize("shape", [(3, 4), (0, 0)])
def test_an_empty_mask_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="mask: expected a pixel inside, got none"):
        outer_polygon(np.zeros(shape, dtype=np.bool_))
