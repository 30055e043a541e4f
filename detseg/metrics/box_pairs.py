"""Pairs of a detection and an object whose boxes meet, a piece at a time: memory does not grow with crowded images.

Letters: D detections, G objects, P pairs of a piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from detseg.structures import FloatArray, IntArray

_PIECE = 1 << 15
"""Pairs looked at together; what is computed on the way stays in the cache."""


class BoxColumns(NamedTuple):
    """N boxes, each array (N,) float64 in pixels, areas in square pixels; columns, as pairs are gathered from them."""

    left: FloatArray
    top: FloatArray
    right: FloatArray
    bottom: FloatArray
    areas: FloatArray

    @classmethod
    def of(cls, xyxy: FloatArray) -> BoxColumns:
        """The columns of (N, 4)."""
        left, top, right, bottom = np.ascontiguousarray(xyxy.T)
        return cls(left, top, right, bottom, (right - left) * (bottom - top))


class Meeting(NamedTuple):
    """Pairs of boxes with an area in common, by detection and then by object.

    Attributes:
        detections: (P,) int64, positions among the D.
        objects: (P,) int64, positions among the G.
        intersections: (P,) float64, square pixels, above 0.
    """

    detections: IntArray
    objects: IntArray
    intersections: FloatArray


class ObjectRanges(NamedTuple):
    """The objects that each detection is compared with, which lie next to each other.

    Attributes:
        first: (D,) int64, position of the first.
        num: (D,) int64, how many there are.
    """

    first: IntArray
    num: IntArray


def object_ranges(detection_groups: IntArray, object_groups: IntArray) -> ObjectRanges:
    """The objects of each detection's group; (D,) int64 of any order, (G,) int64 ascending."""
    first = np.searchsorted(object_groups, detection_groups, side="left")
    return ObjectRanges(first, np.searchsorted(object_groups, detection_groups, side="right") - first)


def meeting_pairs(found: BoxColumns, true: BoxColumns, ranges: ObjectRanges) -> Iterator[Meeting]:
    """All pairs that meet, the detections in their order.

    Args:
        found: D boxes.
        true: G boxes.
        ranges: what each detection is compared with.
    """
    before = np.cumsum(ranges.num) - ranges.num  # pairs before those of each detection
    starts = np.flatnonzero(np.diff(before // _PIECE, prepend=-1)).tolist()
    for start, end in pairwise([*starts, len(before)]):
        nums = ranges.num[start:end]
        detections = np.repeat(np.arange(start, end), nums)
        objects = np.arange(len(detections)) + np.repeat(
            ranges.first[start:end] - before[start:end] + before[start], nums
        )
        width = np.minimum(found.right[detections], true.right[objects])
        width -= np.maximum(found.left[detections], true.left[objects])
        height = np.minimum(found.bottom[detections], true.bottom[objects])
        height -= np.maximum(found.top[detections], true.top[objects])
        meeting = np.flatnonzero((width > 0) & (height > 0))
        yield Meeting(detections[meeting], objects[meeting], width[meeting] * height[meeting])
