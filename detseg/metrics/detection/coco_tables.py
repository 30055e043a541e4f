"""COCO's tables of precision and recall, from what the detections were matched with.

Down the ranking of a class, precision is the share of detections that found an object among those that count.  It can
only rise where an object is found, so that the tables need those places alone, which are few.

Letters: C classes, D detections, F detections that found an object (at one threshold, for one size), L limits on
detections, M detections that overlap an object, R recall levels, S sizes, T IoU thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detseg.metrics.detection.coco_matching import RECALL_LEVELS, Groups, Matches
from detseg.structures import BoolArray, FloatArray, IntArray


class Tables(NamedTuple):
    """The cells that COCO's numbers are means of; -1 where there is no object to find.

    Attributes:
        precision: (T, R, C, S) float64, the best at each recall level or beyond it.
        recall: (T, C, S, L) float64, when so many detections of a class in an image count.
    """

    precision: FloatArray
    recall: FloatArray


class _Ranked(NamedTuple):
    """The matches down the rankings of the classes, one class after the other.

    Attributes:
        matches: (M,) int64, positions in ``Matches.detections``.
        classes: (M,) int64, ascending.
        first_of_class: (C,) int64, where those of each class begin.
        ranks: (M,) int64, place in the group.
        within: (M,) bool, whether so many detections of a group count for precision.
        inside: (S, M) bool, whether it does and the area is of the size.
        num_inside: (S, M) int32, for how many detections of the class down to this one that is so, matched or not.
    """

    matches: IntArray
    classes: IntArray
    first_of_class: IntArray
    ranks: IntArray
    within: BoolArray
    inside: BoolArray
    num_inside: IntArray


def tables(
    groups: Groups,
    matches: Matches,
    outside: BoolArray,
    num_objects: IntArray,
    max_detections: int,
    limits: Sequence[int],
) -> Tables:
    """Precision and recall in every cell.

    Args:
        groups: of the detections.
        matches: of those that overlap an object.
        outside: (D, S) whether a detection's area is of another size: then it is not wrong to find nothing.
        num_objects: (C, S) int64, objects to find.
        max_detections: how many detections of a group count for precision, best first.
        limits: L such numbers for recall; ``groups`` has room for all.
    """
    ranked = _down_the_rankings(groups, matches, outside, len(num_objects), max_detections)
    needed = _found_at_levels(num_objects.T)  # S C R
    num_thresholds, _, num_sizes = matches.found.shape
    precision = np.empty((num_thresholds, needed.shape[2], len(num_objects), num_sizes))
    recall = np.empty((num_thresholds, len(num_objects), num_sizes, len(limits)))
    for threshold in range(num_thresholds):
        found = np.ascontiguousarray(matches.found[threshold, ranked.matches].T)  # S M
        ignored = np.ascontiguousarray(matches.ignored[threshold, ranked.matches].T)
        counted = _counted(ranked, found, ignored)
        size, row = np.nonzero(found)  # F each, by size, class, place
        cells = size * len(num_objects) + ranked.classes[row]
        for place, limit in enumerate(limits):
            num_found = np.bincount(cells[ranked.ranks[row] < limit], minlength=num_objects.size)
            recall[threshold, :, :, place] = num_found.reshape(num_objects.T.shape).T / np.maximum(num_objects, 1)
        within = ranked.within[row]
        best = _best_precision(cells[within], counted[size, row][within], needed)  # S C R
        precision[threshold] = best.transpose(2, 1, 0)
    none = num_objects == 0
    precision[:, :, none] = -1
    recall[:, none] = -1
    return Tables(precision, recall)


def _down_the_rankings(
    groups: Groups, matches: Matches, outside: BoolArray, num_classes: int, max_detections: int
) -> _Ranked:
    detection_classes = groups.detection_groups[groups.ranking] // max(groups.num_images, 1)  # D, ascending
    places = np.empty_like(groups.ranking)  # D, in the ranking
    places[groups.ranking] = np.arange(len(places))
    order = np.argsort(places[matches.detections])
    places = places[matches.detections[order]]
    classes = detection_classes[places]
    ranks = groups.ranks[matches.detections[order]]
    inside = (~outside & (groups.ranks < max_detections)[:, None])[groups.ranking].T  # S D
    sums = _summed(inside)
    class_starts = np.searchsorted(detection_classes, np.arange(num_classes))
    return _Ranked(
        matches=order,
        classes=classes,
        first_of_class=np.searchsorted(classes, np.arange(num_classes)),
        ranks=ranks,
        within=ranks < max_detections,
        inside=inside[:, places],
        num_inside=sums[:, places + 1] - sums[:, class_starts[classes]],
    )


def _counted(ranked: _Ranked, found: BoolArray, ignored: BoolArray) -> IntArray:
    """(S, M) and (S, M) → (S, M) detections of the class down to each match that are right or wrong, not ignored.

    A detection without an object counts if it is of the size; one with an object, if that counts.
    """
    as_if_alone = (found | ignored) & ranked.inside
    change = _summed((found & ranked.within).view(np.int8) - as_if_alone.view(np.int8))
    before = change[:, ranked.first_of_class]  # S C, in the classes before each
    counted: IntArray = ranked.num_inside + change[:, 1:] - before[:, ranked.classes]
    return counted


def _best_precision(cells: IntArray, counted: IntArray, needed: IntArray) -> FloatArray:
    """The best precision at each recall level or beyond it; 0 at levels that are not reached.

    Args:
        cells: (F,) int64, size times C plus class of each detection that found an object, by cell and by rank.
        counted: (F,) int, detections that count down to it.
        needed: (S, C, R) int64, how many must be found to reach a level.

    Returns:
        (S, C, R) float64.
    """
    nums = np.bincount(cells, minlength=needed[..., 0].size)
    ends = np.cumsum(nums)
    starts = ends - nums
    num_found = np.arange(1, len(cells) + 1) - starts[cells]
    precision = num_found / (counted + np.spacing(1))  # pycocotools adds it lest it divides by 0; 1 of 1 falls below 1
    for start, end in zip(starts[nums > 1].tolist(), ends[nums > 1].tolist(), strict=True):
        from_the_last = precision[start:end][::-1]
        np.maximum.accumulate(from_the_last, out=from_the_last)
    starts, nums = starts.reshape(needed.shape[:2]), nums.reshape(needed.shape[:2])
    not_reached = len(precision)
    at = np.where(needed <= nums[..., None], starts[..., None] + needed - 1, not_reached)
    best: FloatArray = np.append(precision, 0.0)[at]
    return best


def _found_at_levels(num_objects: IntArray) -> IntArray:
    """(S, C) → (S, C, R) how many objects must be found to reach each recall level, at least 1."""
    needed = np.ones((*num_objects.shape, len(RECALL_LEVELS)), dtype=np.int64)
    for num in np.unique(num_objects[num_objects > 0]):
        recalls = np.arange(num + 1) / num
        needed[num_objects == num] = np.maximum(np.searchsorted(recalls, RECALL_LEVELS, side="left"), 1)
    return needed


def _summed(values: BoolArray | npt.NDArray[np.int8]) -> IntArray:
    """(..., N) → (..., N + 1) int32, the sum of those before each, and of all."""
    sums = np.zeros((*values.shape[:-1], values.shape[-1] + 1), dtype=np.int32)
    np.cumsum(values, axis=-1, out=sums[..., 1:])
    return sums
