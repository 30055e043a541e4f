"""Pairs of a detection and an object whose boxes meet, a piece at a time: memory does not grow with crowded images.

Letters: D detections, G objects, P pairs of a piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from detseg.metrics.detection.records import DetectionRecords
from detseg.structures import BoolArray, FloatArray, IntArray

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


class OverlappingPairs(NamedTuple):
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


def overlapping_pairs(found: BoxColumns, true: BoxColumns, ranges: ObjectRanges) -> Iterator[OverlappingPairs]:
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
        yield OverlappingPairs(detections[meeting], objects[meeting], width[meeting] * height[meeting])


class BestMatches(NamedTuple):
    """The object that each detection overlaps most.

    Attributes:
        objects: (D,) int64, position of the object; the first of equals; -1 where the image has none of the class.
        ious: (D,) float64 in [0, 1]; 0 where there is no object.
    """

    objects: IntArray
    ious: FloatArray


class MatchFlags(NamedTuple):
    """What became of each detection; one that is neither right nor ignored is a false positive.

    Attributes:
        right: (D,) bool, true positives.
        ignored: (D,) bool, detections of crowd or difficult objects, which count neither way.
    """

    right: BoolArray
    ignored: BoolArray


class Ranking(NamedTuple):
    """Detections that count, best score first, with what has been found down to each.

    Attributes:
        scores: (D,) float64, descending.
        true_positives: (D,) int64, among this and all better detections.
        num_objects: objects that should be found.
    """

    scores: FloatArray
    true_positives: IntArray
    num_objects: int


def best_matches(records: DetectionRecords) -> BestMatches:
    """Find the object of the same image and class that each detection overlaps most."""
    num_labels = 1 + max(records.detection_labels.max(initial=0), records.object_labels.max(initial=0))
    detection_keys = _image_positions(records, records.detection_image_ids) * num_labels + records.detection_labels
    object_keys = _image_positions(records, records.object_image_ids) * num_labels + records.object_labels
    by_key = np.argsort(object_keys, kind="stable")
    ranges = object_ranges(detection_keys, object_keys[by_key])
    best = ranges.first.copy()  # (D,) where no box meets a detection's, all of its objects are equal
    ious = np.zeros(len(best))
    found, true = BoxColumns.of(records.detection_boxes), BoxColumns.of(records.object_boxes[by_key])
    for detections, objects, intersections in overlapping_pairs(found, true, ranges):
        unions = found.areas[detections] + true.areas[objects] - intersections
        pair_ious = np.divide(intersections, unions, out=np.zeros_like(unions), where=unions > 0)
        firsts = np.flatnonzero(np.diff(detections, prepend=-1))
        if not len(firsts):
            continue
        highest = np.maximum.reduceat(pair_ious, firsts)
        winners = np.flatnonzero(pair_ious == np.repeat(highest, np.diff(firsts, append=len(detections))))
        detections = detections[firsts]
        best[detections] = objects[winners[np.searchsorted(winners, firsts)]]  # the first of equals
        ious[detections] = highest
    paired = ranges.num > 0
    positions = np.full(len(best), -1, dtype=np.int64)
    positions[paired] = by_key[best[paired]]
    return BestMatches(positions, ious)


def match_at_iou(records: DetectionRecords, overlaps: BestMatches, iou_threshold: float) -> MatchFlags:
    """Tell right, ignored and wrong detections apart.

    Right is the best-scored detection of an object by IoU >= ``iou_threshold`` (in (0, 1]); any further one is wrong.
    Of equal scores the first in the order of the records is the better.
    """
    hit = overlaps.ious >= iou_threshold
    ignored = np.zeros(len(hit), dtype=np.bool_)
    ignored[hit] = records.object_ignore[overlaps.objects[hit]]
    claims = np.flatnonzero(hit & ~ignored)
    claims = claims[np.argsort(-records.detection_scores[claims], kind="stable")]
    _, first_claims = np.unique(overlaps.objects[claims], return_index=True)
    right = np.zeros(len(hit), dtype=np.bool_)
    right[claims[first_claims]] = True
    return MatchFlags(right, ignored)


def rank_classes(records: DetectionRecords, flags: MatchFlags, num_classes: int) -> list[Ranking]:
    """The ranking of each class."""
    counted = np.flatnonzero(~flags.ignored)
    counted = counted[np.lexsort((-records.detection_scores[counted], records.detection_labels[counted]))]
    ends = np.cumsum(np.bincount(records.detection_labels[counted], minlength=num_classes))
    num_objects = np.bincount(records.object_labels[~records.object_ignore], minlength=num_classes)
    return [
        _ranking(records, flags, detections, num)
        for detections, num in zip(np.split(counted, ends)[:-1], num_objects.tolist(), strict=True)
    ]


def rank_all(records: DetectionRecords, flags: MatchFlags) -> Ranking:
    """The ranking of all classes together."""
    counted = np.flatnonzero(~flags.ignored)
    counted = counted[np.argsort(-records.detection_scores[counted], kind="stable")]
    return _ranking(records, flags, counted, int(np.count_nonzero(~records.object_ignore)))


def _ranking(records: DetectionRecords, flags: MatchFlags, best_first: IntArray, num_objects: int) -> Ranking:
    return Ranking(
        scores=records.detection_scores[best_first],
        true_positives=np.cumsum(flags.right[best_first], dtype=np.int64),
        num_objects=num_objects,
    )


def _image_positions(records: DetectionRecords, image_ids: IntArray) -> IntArray:
    return np.searchsorted(records.image_ids, image_ids).astype(np.int64)


def voc07_average_precision(ranking: Ranking) -> float:
    """VOC 2007: the mean over recall 0, 0.1, ..., 1 of the best precision at that recall or more.

    Returns:
        AP in [0, 1]; NaN where there is nothing to find.
    """
    if not ranking.num_objects:
        return float("nan")
    recall, precision = recall_precision(ranking)
    levels = np.arange(11) / 10  # division, so that a recall of 3/10 reaches the level 0.3 and is not an ulp below it
    best = [precision[recall >= level].max(initial=0) for level in levels]
    return float(np.mean(best))


def voc10_average_precision(ranking: Ranking) -> float:
    """VOC 2010 and later: the area under the precision-recall curve made monotone.

    Returns:
        AP in [0, 1]; NaN where there is nothing to find.
    """
    if not ranking.num_objects:
        return float("nan")
    recall, precision = recall_precision(ranking)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0) * envelope))


def recall_precision(ranking: Ranking) -> tuple[FloatArray, FloatArray]:
    """(D,) recall and (D,) precision, both in [0, 1], of the detections down to each."""
    found = ranking.true_positives
    return found / ranking.num_objects, found / np.arange(1, len(found) + 1)


_NAN = float("nan")


class OperatingPoint(NamedTuple):
    """What is reached by keeping the detections with ``score >= threshold``.

    Attributes:
        threshold: a score; NaN where no threshold finds anything.
        precision: in [0, 1]; NaN without detections.
        recall: in [0, 1].
        f1: 2 precision recall / (precision + recall), in [0, 1].
    """

    threshold: float
    precision: float
    recall: float
    f1: float


def best_operating_point(ranking: Ranking) -> OperatingPoint:
    """The point of the best F1; of equals the one with the highest threshold.

    A threshold cannot part detections of equal score, so they are kept or left together.

    Args:
        ranking: judged by the rule of ``detseg.metrics.detection.voc_matching`` (VOC's), at any IoU.

    Returns:
        The point; all NaN where there is nothing to find.
    """
    scores, found = ranking.scores, ranking.true_positives
    if not ranking.num_objects:
        return OperatingPoint(_NAN, _NAN, _NAN, _NAN)
    if not len(scores) or not found[-1]:
        return OperatingPoint(_NAN, 0.0 if len(scores) else _NAN, 0.0, 0.0)
    kept = np.arange(1, len(scores) + 1)
    last_of_equals = np.append(scores[1:] != scores[:-1], True)
    f1 = np.where(last_of_equals, 2 * found / (kept + ranking.num_objects), -1.0)
    best = int(np.argmax(f1))
    return OperatingPoint(
        threshold=float(scores[best]),
        precision=float(found[best] / kept[best]),
        recall=float(found[best] / ranking.num_objects),
        f1=float(f1[best]),
    )
