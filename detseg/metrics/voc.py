"""Pascal VOC's matching rule and average precision (Everingham et al. 2010, "The Pascal VOC Challenge", section 4.2),
and the score threshold of the best F1.

A detection is compared with the object of its image and class that it overlaps most, even if a better detection has
that object already; then it is a false positive.  Corners are half-open here, so that the plain IoU equals the one that
the development kit computes from inclusive corners with its + 1.

Letters: D detections, G objects.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from detseg.metrics.coco import mask_ious
from detseg.metrics.records import DetectionRecords, IouType, MaskRecords, overlapping_pairs
from detseg.structures import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class BestMatches:
    """The object of the same image and class that each detection overlaps most."""

    objects: IntArray  # (D,) position of the object, the first of equals; -1 where none overlaps
    ious: FloatArray  # (D,) in [0, 1]; 0 where none overlaps


@dataclass(frozen=True, eq=False)
class Ranking:
    """The detections of a class that count (are not of crowd or difficult objects), best score first."""

    detections: IntArray  # (D,) positions in the records
    scores: FloatArray  # (D,) descending
    true_positives: IntArray  # (D,) among this and all better detections
    num_objects: int  # to find


def best_matches(records: DetectionRecords, iou_type: IouType = "bbox") -> BestMatches:
    """Find the object of the same image and class that each detection overlaps most, by boxes or by masks."""
    image_ids = np.sort(records.image_ids)
    num_labels = 1 + max(records.detection_labels.max(initial=0), records.object_labels.max(initial=0))
    detection_groups = np.searchsorted(image_ids, records.detection_image_ids) * num_labels + records.detection_labels
    object_groups = np.searchsorted(image_ids, records.object_image_ids) * num_labels + records.object_labels
    by_group = np.argsort(object_groups, kind="stable")
    best = np.full(len(detection_groups), -1, dtype=np.int64)
    best_ious = np.zeros(len(detection_groups))
    pairs = _box_pairs if iou_type == "bbox" else _mask_pairs
    for detections, objects, ious in pairs(records, by_group, detection_groups, object_groups[by_group]):
        if not len(detections):
            continue
        firsts = np.flatnonzero(np.diff(detections, prepend=-1))
        highest = np.maximum.reduceat(ious, firsts)
        winners = np.flatnonzero(ious == np.repeat(highest, np.diff(firsts, append=len(ious))))
        detections = detections[firsts]
        best[detections] = by_group[objects[winners[np.searchsorted(winners, firsts)]]]  # the first of equals
        best_ious[detections] = highest
    return BestMatches(best, best_ious)


_Pairs = Iterator[tuple[IntArray, IntArray, FloatArray]]
"""Detections and objects of one group that overlap, by detection and then by object, and their IoU: positions of the
detections in the records, and of the objects among those by group."""


def _box_pairs(
    records: DetectionRecords, by_group: IntArray, detection_groups: IntArray, object_groups: IntArray
) -> _Pairs:
    boxes, object_boxes = records.detection_boxes, records.object_boxes[by_group]
    areas, object_areas = ((b[:, 2:] - b[:, :2]).prod(axis=1) for b in (boxes, object_boxes))
    pairs = overlapping_pairs(boxes, object_boxes, detection_groups, object_groups)
    for detections, objects, intersections in pairs:
        yield detections, objects, intersections / (areas[detections] + object_areas[objects] - intersections)


def _mask_pairs(
    records: DetectionRecords, by_group: IntArray, detection_groups: IntArray, object_groups: IntArray
) -> _Pairs:
    assert isinstance(records, MaskRecords)
    in_order = np.argsort(detection_groups, kind="stable")
    groups = np.intersect1d(detection_groups, object_groups)
    ends = (
        np.searchsorted(of_all, groups, side)
        for of_all in (detection_groups[in_order], object_groups)
        for side in ("left", "right")
    )
    for start, end, first, last in zip(*(column.tolist() for column in ends), strict=True):
        detections = in_order[start:end]
        ious = mask_ious(records, detections, by_group[first:last], crowd=False)
        rows, columns = np.nonzero(ious)
        yield detections[rows], first + columns, ious[rows, columns]


def rank_classes(
    records: DetectionRecords, matches: BestMatches, iou_threshold: float, num_classes: int
) -> list[Ranking]:
    """Rank the detections of each class; of equal scores the first in the order of the records comes first.

    A detection is right if it is the first of those that match its object by IoU >= ``iou_threshold`` (in (0, 1]).
    """
    hit = matches.ious >= iou_threshold
    ignored = hit.copy()
    ignored[hit] = records.object_ignore[matches.objects[hit]]
    counted = np.flatnonzero(~ignored)
    counted = counted[np.argsort(-records.detection_scores[counted], kind="stable")]
    candidates = counted[hit[counted]]
    _, first_of_object = np.unique(matches.objects[candidates], return_index=True)
    right = np.zeros(len(hit), dtype=np.bool_)
    right[candidates[first_of_object]] = True

    counted = counted[np.argsort(records.detection_labels[counted], kind="stable")]
    ends = np.cumsum(np.bincount(records.detection_labels[counted], minlength=num_classes))
    num_objects = np.bincount(records.object_labels[~records.object_ignore], minlength=num_classes).tolist()
    return [
        Ranking(best_first, records.detection_scores[best_first], np.cumsum(right[best_first], dtype=np.int64), num)
        for best_first, num in zip(np.split(counted, ends)[:-1], num_objects, strict=True)
    ]


def average_precisions(ranking: Ranking) -> tuple[float, float]:
    """AP of VOC 2007, and of VOC 2010 and later, both in [0, 1]; NaN where there is nothing to find.

    2007: the mean over recall 0, 0.1, ..., 1 of the best precision at that recall or a higher one.  2010: the area
    under the precision-recall curve, precision made monotone.
    """
    if not ranking.num_objects:
        return math.nan, math.nan
    found = ranking.true_positives
    recall, precision = found / ranking.num_objects, found / np.arange(1, len(found) + 1)
    levels = np.arange(11) / 10  # by division, so that a recall of 3 / 10 equals the level 0.3
    voc07 = np.mean([precision[recall >= level].max(initial=0) for level in levels])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(voc07), float(np.sum(np.diff(recall, prepend=0) * envelope))


class BestF1(NamedTuple):
    """What the detections with ``score >= threshold`` reach; fractions in [0, 1]."""

    threshold: float  # NaN where no threshold finds anything
    precision: float  # NaN without detections
    recall: float
    f1: float  # 2 precision recall / (precision + recall)


def best_f1(ranking: Ranking) -> BestF1:
    """The threshold with the best F1, the highest of equals; all NaN where there is nothing to find.

    Detections of equal score are kept or dropped together, since no threshold separates them.
    """
    scores, found = ranking.scores, ranking.true_positives
    if not ranking.num_objects:
        return BestF1(math.nan, math.nan, math.nan, math.nan)
    if not len(scores) or not found[-1]:
        return BestF1(math.nan, 0.0 if len(scores) else math.nan, 0.0, 0.0)
    kept = np.arange(1, len(scores) + 1)
    last_of_equals = np.append(scores[1:] != scores[:-1], True)
    f1 = np.where(last_of_equals, 2 * found / (kept + ranking.num_objects), -1.0)
    best = int(np.argmax(f1))
    recall = found[best] / ranking.num_objects
    return BestF1(float(scores[best]), float(found[best] / kept[best]), float(recall), float(f1[best]))
