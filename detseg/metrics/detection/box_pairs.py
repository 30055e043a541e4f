"""Pairs of a detection and an object whose boxes overlap, in chunks: memory does not grow with crowded images."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from detseg.structures import FloatArray, IntArray


def overlapping_pairs(
    detection_boxes: FloatArray,
    object_boxes: FloatArray,
    detection_groups: IntArray,
    object_groups: IntArray,
    chunk_size: int = 1 << 15,
) -> Iterator[tuple[IntArray, IntArray, FloatArray]]:
    """All pairs of a detection and an object of the same group with an area in common.

    Args:
        detection_boxes: (D, 4) float64 xyxy, pixels.
        object_boxes: (G, 4) float64 xyxy, pixels.
        detection_groups: (D,) int64.
        object_groups: (G,) int64, ascending.
        chunk_size: about how many pairs are compared at a time; those of a detection stay together.

    Yields:
        Of P pairs, by detection and then by object: (P,) int64 positions of the detections and (P,) int64 of the
        objects, and (P,) float64 areas of the intersections, above 0.
    """
    firsts = np.searchsorted(object_groups, detection_groups, side="left")
    counts = np.searchsorted(object_groups, detection_groups, side="right") - firsts
    before = np.cumsum(counts) - counts  # pairs of all earlier detections
    left, top, right, bottom = np.ascontiguousarray(detection_boxes.T)
    object_left, object_top, object_right, object_bottom = np.ascontiguousarray(object_boxes.T)
    starts = np.flatnonzero(np.diff(before // chunk_size, prepend=-1)).tolist()
    for start, end in pairwise([*starts, len(before)]):
        num = counts[start:end]
        detections = np.repeat(np.arange(start, end), num)
        objects = np.arange(len(detections)) + np.repeat(firsts[start:end] - before[start:end] + before[start], num)
        width = np.minimum(right[detections], object_right[objects])
        width -= np.maximum(left[detections], object_left[objects])
        height = np.minimum(bottom[detections], object_bottom[objects])
        height -= np.maximum(top[detections], object_top[objects])
        overlap = np.flatnonzero((width > 0) & (height > 0))
        yield detections[overlap], objects[overlap], width[overlap] * height[overlap]
