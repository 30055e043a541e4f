"""Polygons and run lengths by hand, and errors; test_codecs.py compares random ones with pycocotools."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detseg.data.annotations.model import region_counts
from detseg.structures import InstanceMasks

HW = (6, 8)


def filled(*segmentations: object, hw: tuple[int, int] = HW) -> list[np.ndarray[Any, Any]]:
    return list(InstanceMasks(hw, tuple(region_counts(segmentation, hw) for segmentation in segmentations)).dense())


def test_a_rectangle_and_a_union() -> None:
    square, two = filled([[1, 2, 4, 2, 4, 5, 1, 5]], [[0, 0, 2, 0, 2, 1, 0, 1], [6, 5, 8, 5, 8, 6, 6, 6]])
    expected = np.zeros(HW)
    expected[2:5, 1:4] = 1
    assert np.array_equal(square, expected)
    expected[:] = 0
    expected[0, :2] = expected[5, 6:] = 1
    assert np.array_equal(two, expected)
    (runs,) = filled({"size": [2, 3], "counts": [1, 2, 3]}, hw=(2, 3))
    assert runs.tolist() == [[0, 1, 0], [1, 0, 0]]  # down the columns


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], r"expected polygons or run lengths, got \[\]"),
        ("abc", "expected polygons or run lengths, got 'abc'"),
        ([1, 2, 3, 4, 5, 6], r"^expected a list .*got one flat list of numbers; put it in brackets$"),
        ([[[1, 2], [3, 4], [5, 6]]], r"got one of points \[\[x, y\], \.\.\.\]; write its numbers one after the other$"),
        ([1, [2, 3, 4, 5, 6, 7]], r"expected a list of polygons \[\[x, y, x, y, \.\.\.\], \.\.\.\], got 1 in it"),
        ([[1, 2, 3, "4", 5, 6]], r"expected a list of polygons .*, got \[1, 2, 3, '4'"),
        ([[1, 2, 3, 4]], "at least 3 corners, got 4 numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "at least 3 corners, got 7 numbers"),
        ([[1, 2, 3, True, 5, 6]], r"expected a list of polygons .*, got \[1, 2, 3, True"),
        ([[1, 2, 3, float("nan"), 5, 6]], "corners of a polygon"),
        ([[1, 2, 3, 1e300, 5, 6]], "more than 1000000 pixels away"),
        ({"size": [8, 6], "counts": [48]}, r"size: expected .* \[height, width\] = \[6, 8\], got \[8, 6\]"),
        ({"counts": [48]}, "size: expected that of the image, .* got None"),
        *(
            ({"size": [6, 8], "counts": counts}, message)
            for counts, message in (
                (None, "expected run lengths, a list of whole numbers or a compressed string, got None"),
                ([], "expected run lengths"),
                ([6.0, 42.0], r"whole numbers or a compressed string, got \[6\.0, 42\.0\]"),
                ([40], "must add up to 6 x 8 pixels, got 40"),
                ([50, -2], "must add up to 6 x 8 pixels"),
                ("", "not a string of compressed run lengths"),
                ("é", "expected run lengths"),
                ("~~", "not a string of compressed run lengths"),
                ("P", "cut short"),
                ("ooooooooooo0", "too long"),
                ("08", "must add up to 6 x 8 pixels, got 8"),  # pycocotools leaves the rest unset
            )
        ),
    ],
)
def test_what_cannot_be_filled(segmentation: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        region_counts(segmentation, HW)
