"""Which detections are right: the matching rule of Pascal VOC's development kit, on all images at once.

Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge", section 4.2.  A detection is compared with
the object of its class that it overlaps most, even if a better-scored detection has taken that object already; so the
best object of a detection depends on no other detection, and nothing has to be done in a loop.

Letters: D detections, G objects, P pairs of a detection and an object of the same image and class.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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
    first = np.searchsorted(object_keys[by_key], detection_keys, side="left")  # (D,)
    counts = np.searchsorted(object_keys[by_key], detection_keys, side="right") - first  # (D,)
    starts = np.cumsum(counts) - counts  # (D,) where each detection's pairs begin

    pair_detections = np.repeat(np.arange(len(counts)), counts)  # (P,)
    pair_objects = by_key[np.arange(len(pair_detections)) - np.repeat(starts - first, counts)]  # (P,)
    pair_ious = _matched_iou(records.detection_boxes[pair_detections], records.object_boxes[pair_objects])
    best_first = np.lexsort((-pair_ious, pair_detections))  # stable: the first of equal objects stays first

    paired = counts > 0
    best = best_first[starts[paired]]
    objects = np.full(len(counts), -1, dtype=np.int64)
    ious = np.zeros(len(counts))
    objects[paired] = pair_objects[best]
    ious[paired] = pair_ious[best]
    return BestOverlaps(objects, ious)


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


def rank_class(records: DetectionRecords, verdicts: Verdicts, label: int) -> Ranking:
    """The ranking of one class."""
    return _rank(records, verdicts, records.detection_labels == label, records.object_labels == label)


def rank_all(records: DetectionRecords, verdicts: Verdicts) -> Ranking:
    """The ranking of all classes together."""
    return _rank(records, verdicts, np.bool_(True), np.bool_(True))


def _rank(
    records: DetectionRecords, verdicts: Verdicts, detections: BoolArray | np.bool_, objects: BoolArray | np.bool_
) -> Ranking:
    counted = np.flatnonzero(detections & ~verdicts.ignored)
    counted = counted[np.argsort(-records.detection_scores[counted], kind="stable")]
    return Ranking(
        scores=records.detection_scores[counted],
        true_positives=np.cumsum(verdicts.right[counted], dtype=np.int64),
        num_objects=int(np.count_nonzero(objects & ~records.object_ignore)),
    )


def _image_positions(records: DetectionRecords, image_ids: IntArray) -> IntArray:
    return np.searchsorted(records.image_ids, image_ids).astype(np.int64)


def _matched_iou(boxes: FloatArray, others: FloatArray) -> FloatArray:
    """(P, 4) and (P, 4) xyxy → (P,) IoU of each row with its partner; 0 where neither has an area."""
    lower = np.maximum(boxes[:, :2], others[:, :2])
    upper = np.minimum(boxes[:, 2:], others[:, 2:])
    intersection = np.prod(np.clip(upper - lower, 0, None), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(others[:, 2:] - others[:, :2], axis=1)
    union = areas - intersection
    iou: FloatArray = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return iou
