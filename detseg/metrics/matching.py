"""Which detections are right: the matching rule of Pascal VOC's development kit, on all images at once.

Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge", section 4.2.  A detection is compared with
the object of its class that it overlaps most, even if a better-scored detection has taken that object already; so the
best object of a detection depends on no other detection, and nothing has to be done in a loop.

Letters: D detections, G objects.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detseg.metrics.box_pairs import BoxColumns, meeting_pairs, object_ranges
from detseg.metrics.records import DetectionRecords
from detseg.structures import BoolArray, FloatArray, IntArray


class BestOverlaps(NamedTuple):
    """The object that each detection overlaps most.

    Attributes:
        objects: (D,) int64, position of the object; the first of equals; -1 where the image has none of the class.
        ious: (D,) float64 in [0, 1]; 0 where there is no object.
    """

    objects: IntArray
    ious: FloatArray


class Verdicts(NamedTuple):
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


def best_overlaps(records: DetectionRecords) -> BestOverlaps:
    """Find the object of the same image and class that each detection overlaps most."""
    num_labels = 1 + max(records.detection_labels.max(initial=0), records.object_labels.max(initial=0))
    detection_keys = _image_positions(records, records.detection_image_ids) * num_labels + records.detection_labels
    object_keys = _image_positions(records, records.object_image_ids) * num_labels + records.object_labels
    by_key = np.argsort(object_keys, kind="stable")
    ranges = object_ranges(detection_keys, object_keys[by_key])
    best = ranges.first.copy()  # (D,) where no box meets a detection's, all of its objects are equal
    ious = np.zeros(len(best))
    found, true = BoxColumns.of(records.detection_boxes), BoxColumns.of(records.object_boxes[by_key])
    for detections, objects, intersections in meeting_pairs(found, true, ranges):
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
    return BestOverlaps(positions, ious)


def judge(records: DetectionRecords, overlaps: BestOverlaps, iou_threshold: float) -> Verdicts:
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
    return Verdicts(right, ignored)


def rank_classes(records: DetectionRecords, verdicts: Verdicts, num_classes: int) -> list[Ranking]:
    """The ranking of each class."""
    counted = np.flatnonzero(~verdicts.ignored)
    counted = counted[np.lexsort((-records.detection_scores[counted], records.detection_labels[counted]))]
    ends = np.cumsum(np.bincount(records.detection_labels[counted], minlength=num_classes))
    num_objects = np.bincount(records.object_labels[~records.object_ignore], minlength=num_classes)
    return [
        _ranking(records, verdicts, detections, num)
        for detections, num in zip(np.split(counted, ends)[:-1], num_objects.tolist(), strict=True)
    ]


def rank_all(records: DetectionRecords, verdicts: Verdicts) -> Ranking:
    """The ranking of all classes together."""
    counted = np.flatnonzero(~verdicts.ignored)
    counted = counted[np.argsort(-records.detection_scores[counted], kind="stable")]
    return _ranking(records, verdicts, counted, int(np.count_nonzero(~records.object_ignore)))


def _ranking(records: DetectionRecords, verdicts: Verdicts, best_first: IntArray, num_objects: int) -> Ranking:
    return Ranking(
        scores=records.detection_scores[best_first],
        true_positives=np.cumsum(verdicts.right[best_first], dtype=np.int64),
        num_objects=num_objects,
    )


def _image_positions(records: DetectionRecords, image_ids: IntArray) -> IntArray:
    return np.searchsorted(records.image_ids, image_ids).astype(np.int64)
