"""COCO's tables of precision and recall, from the matches (pycocotools' ``accumulate``).

Down the ranking of a class, precision is the fraction of detections that found an object among those that count.  It
rises only where an object is found, so the best precision is read at those places.

Letters: C classes, D detections, F detections that found an object, L limits on detections, M detections that overlap
an object, R recall levels, S sizes, T IoU thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detseg.metrics.detection.coco_matching import Matches, RankedDetections
from detseg.structures import BoolArray, FloatArray, IntArray

_RECALL_LEVELS: FloatArray = np.linspace(0, 1, 101)


def tables(
    ranked: RankedDetections,
    matches: Matches,
    outside: BoolArray,
    num_objects: IntArray,
    max_detections: int,
    limits: Sequence[int],
) -> tuple[FloatArray, FloatArray]:
    """Precision and recall in every cell that COCO's numbers are means of.

    Args:
        ranked: the detections.
        matches: of those that overlap an object.
        outside: (D, S) whether the area of a detection is of another size: without an object it is then ignored.
        num_objects: (C, S) int64, objects to find.
        max_detections: detections of a class in an image that count for precision, best first.
        limits: L such numbers for recall, each at most as many as ``ranked`` keeps.

    Returns:
        (T, R, C, S) float64, the best precision at each recall level or beyond, and (T, C, S, L) float64 recall; -1
        where there is no object to find.
    """
    num_thresholds, num_sizes, _ = matches.found.shape
    num_classes = len(num_objects)
    classes, ranks = ranked.classes[matches.detections], ranked.ranks[matches.detections]  # M
    within = ranks < max_detections
    class_starts = np.searchsorted(ranked.classes, np.arange(num_classes))  # in D
    match_starts = np.searchsorted(classes, np.arange(num_classes))  # in M
    precision = np.empty((num_thresholds, len(_RECALL_LEVELS), num_classes, num_sizes))
    recall = np.empty((num_thresholds, num_classes, num_sizes, len(limits)))
    for size in range(num_sizes):
        inside = ~outside[:, size] & (ranked.ranks < max_detections)
        sums = _sums(inside)
        inside = inside[matches.detections]
        needed = np.empty((num_classes, len(_RECALL_LEVELS)), dtype=np.int64)
        for k, num in enumerate(num_objects[:, size].tolist()):
            needed[k] = _needed_at_levels(num)
        for threshold in range(num_thresholds):
            found, ignored = matches.found[threshold, size], matches.ignored[threshold, size]
            # A detection without an object counts if it is of the size, one with an object if that object counts.
            counts = np.where(found, within, inside & ~ignored)
            changes = _sums(counts.view(np.int8) - inside.view(np.int8))
            num_before = sums[class_starts] + changes[match_starts]  # in all earlier classes
            num_counted = sums[matches.detections + 1] + changes[1:] - num_before[classes]
            hits = np.flatnonzero(found & within)
            precision[threshold, :, :, size] = _best_precision(classes[hits], num_counted[hits], needed).T
            for place, limit in enumerate(limits):
                num_found = np.bincount(classes[found & (ranks < limit)], minlength=num_classes)
                recall[threshold, :, size, place] = num_found / np.maximum(num_objects[:, size], 1)
    precision[:, :, num_objects == 0] = -1
    recall[:, num_objects == 0] = -1
    return precision, recall


def _best_precision(classes: IntArray, num_counted: IntArray, needed: IntArray) -> FloatArray:
    """The best precision at each recall level or beyond; 0 at levels that are not reached.

    Args:
        classes: (F,) int64, of the detections that found an object, by class and by rank.
        num_counted: (F,) int, detections of the class that count down to each.
        needed: (C, R) int64, how many must be found to reach a level.

    Returns:
        (C, R) float64.
    """
    nums = np.bincount(classes, minlength=len(needed))
    starts = np.cumsum(nums) - nums
    num_found = np.arange(1, len(classes) + 1) - starts[classes]
    precision = num_found / (num_counted + np.spacing(1))  # as pycocotools: 1 of 1 is an ulp below 1
    for start, num in zip(starts[nums > 1].tolist(), nums[nums > 1].tolist(), strict=True):
        last_first = precision[start : start + num][::-1]
        np.maximum.accumulate(last_first, out=last_first)
    not_reached = len(precision)
    places = np.where(needed <= nums[:, None], starts[:, None] + needed - 1, not_reached)
    best: FloatArray = np.append(precision, 0.0)[places]
    return best


def _needed_at_levels(num_objects: int) -> IntArray:
    """(R,) int64, how many of the objects must be found to reach each recall level, at least 1."""
    recalls = np.arange(num_objects + 1) / max(num_objects, 1)
    return np.maximum(np.searchsorted(recalls, _RECALL_LEVELS, side="left"), 1)


def _sums(values: BoolArray | npt.NDArray[np.int8]) -> IntArray:
    """(N,) → (N + 1,) int64, the sum of all values before each, and of all."""
    sums = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, out=sums[1:])
    return sums
