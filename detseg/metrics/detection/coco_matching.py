"""COCO's matching of detections with objects, for all images, classes, IoU thresholds and sizes at once.

Detections and objects of one class in one image are a group; matches are within a group only.  At each IoU threshold
and for each size, the detections of a group choose one after the other, best score first: of the objects that are not
taken the one with the highest IoU, of equals the last; one that counts if there is any, else one to ignore.  Crowd
regions are never taken.  Groups are independent, so all make their first choices together, then their second ones, and
so on.  pycocotools' ``evaluateImg`` has the same result by loops over images, classes, sizes, thresholds, detections
and objects.

Letters: D detections that count, G objects, M detections that overlap an object, P pairs, S sizes, T IoU thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from detseg.metrics.detection.box_pairs import overlapping_pairs
from detseg.metrics.detection.records import DetectionRecords, MaskRecords
from detseg.structures import BoolArray, FloatArray, IntArray

IOU_THRESHOLDS: FloatArray = np.linspace(0.5, 0.95, 10)

SIZES = ("all", "small", "medium", "large")
_AREA_RANGES: FloatArray = np.array([[0, 1e5**2], [0, 32**2], [32**2, 96**2], [96**2, 1e5**2]])
"""(S, 2), least and greatest area of each size, square pixels, both included."""

_CHUNK = 1 << 10
"""Detections that choose at a time: memory does not grow with the number of images."""

_MAX_MASKS = 255
"""Masks whose areas pycocotools 2.0.11 counts at a time; it overflows with more."""


def outside_sizes(areas: FloatArray) -> BoolArray:
    """(N,) square pixels → (N, S) whether each area is outside the range of each size."""
    outside: BoolArray = (areas[:, None] < _AREA_RANGES[:, 0]) | (areas[:, None] > _AREA_RANGES[:, 1])
    return outside


@dataclass(frozen=True, eq=False)
class RankedDetections:
    """The detections that count, by class, best score first, and the objects by group.

    Of equal scores the lower image id comes first, then the order of the records.

    Attributes:
        detections: (D,) int64, positions in the records.
        classes: (D,) int64, ascending.
        groups: (D,) int64, class times number of images plus image.
        ranks: (D,) int64, place in the group, from 0.
        objects: (G,) int64, positions in the records; those of a group in their order there.
        object_groups: (G,) int64, ascending.
    """

    detections: IntArray
    classes: IntArray
    groups: IntArray
    ranks: IntArray
    objects: IntArray
    object_groups: IntArray


def rank_detections(records: DetectionRecords, class_positions: IntArray, max_detections: int) -> RankedDetections:
    """Rank the best ``max_detections`` of each class in each image.

    Args:
        records: of any order.
        class_positions: (C,) int64, place of each label among the classes of the ranking.
        max_detections: 1 or more.
    """
    image_ids = np.sort(records.image_ids)
    num_images = len(image_ids)
    # In the smallest type: numpy sorts 8 and 16 bits in one pass.
    images = np.searchsorted(image_ids, records.detection_image_ids).astype(np.min_scalar_type(num_images))
    classes = class_positions[records.detection_labels].astype(np.min_scalar_type(len(class_positions)))
    detections = np.lexsort((images, -records.detection_scores, classes))
    images, classes = images[detections], classes[detections].astype(np.int64)
    groups = classes * num_images + images
    by_group = np.lexsort((images, classes))
    positions = np.arange(len(groups))
    group_starts = np.where(np.diff(groups[by_group], prepend=-1) != 0, positions, 0)
    ranks = np.empty_like(positions)
    ranks[by_group] = positions - np.maximum.accumulate(group_starts)
    counted = ranks < max_detections

    object_images = np.searchsorted(image_ids, records.object_image_ids)
    object_groups = class_positions[records.object_labels] * num_images + object_images
    objects = np.argsort(object_groups, kind="stable")
    return RankedDetections(
        detections=detections[counted],
        classes=classes[counted],
        groups=groups[counted],
        ranks=ranks[counted],
        objects=objects,
        object_groups=object_groups[objects],
    )


@dataclass(frozen=True, eq=False)
class Overlaps:
    """The areas of the detections, and their overlaps with objects of the same group: P pairs with IoU >= 0.5.

    Attributes:
        detection_areas: (D,) float64, square pixels.
        detections: (P,) int64, positions in ``RankedDetections.detections``.
        objects: (P,) int64, positions in ``RankedDetections.objects``; those of a detection ascend.
        ious: (P,) float64; with a crowd region the fraction of the detection inside it.
    """

    detection_areas: FloatArray
    detections: IntArray
    objects: IntArray
    ious: FloatArray


def box_overlaps(records: DetectionRecords, ranked: RankedDetections) -> Overlaps:
    """The overlaps of boxes; each IoU equals pycocotools' to the last bit."""
    boxes, areas = _by_width_and_height(records.detection_boxes[ranked.detections])
    object_boxes, object_areas = _by_width_and_height(records.object_boxes[ranked.objects])
    crowd = records.object_ignore[ranked.objects]
    parts = [_NO_PAIRS]
    pairs = overlapping_pairs(boxes, object_boxes, ranked.groups, ranked.object_groups)
    for detections, objects, intersections in pairs:
        area = areas[detections]
        ious = intersections / np.where(crowd[objects], area, area + object_areas[objects] - intersections)
        enough = ious >= IOU_THRESHOLDS[0]
        parts.append((detections[enough], objects[enough], ious[enough]))
    return Overlaps(areas, *map(np.concatenate, zip(*parts, strict=True)))


def mask_overlaps(records: MaskRecords, ranked: RankedDetections) -> Overlaps:
    """The overlaps of masks; pycocotools counts their pixels."""
    from pycocotools import mask

    sizes = dict(zip(records.image_ids.tolist(), records.image_hw.tolist(), strict=True))
    found, true = (
        [{"size": sizes[i], "counts": counts} for i, counts in zip(ids[rows].tolist(), masks[rows], strict=True)]
        for ids, masks, rows in (
            (records.detection_image_ids, records.detection_masks, ranked.detections),
            (records.object_image_ids, records.object_masks, ranked.objects),
        )
    )
    areas = [mask.area(found[first : first + _MAX_MASKS]) for first in range(0, len(found), _MAX_MASKS)]
    crowd = records.object_ignore[ranked.objects].tolist()
    by_group = np.argsort(ranked.groups, kind="stable")
    groups = ranked.groups[by_group]
    common = np.intersect1d(groups, ranked.object_groups)
    ends = (
        np.searchsorted(sorted_groups, common, side).tolist()
        for sorted_groups in (groups, ranked.object_groups)
        for side in ("left", "right")
    )
    parts = [_NO_PAIRS]
    for first, last, low, high in zip(*ends, strict=True):
        detections = by_group[first:last]
        ious = mask.iou([found[d] for d in detections], true[low:high], crowd[low:high])
        rows, columns = np.nonzero(ious >= IOU_THRESHOLDS[0])
        parts.append((detections[rows], columns + low, ious[rows, columns]))
    return Overlaps(np.concatenate([np.zeros(0), *areas]), *map(np.concatenate, zip(*parts, strict=True)))


_NO_PAIRS = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)


def _by_width_and_height(xyxy: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(N, 4) boxes with the right and lower edge as left + width and top + height, as in pycocotools; (N,) areas."""
    sides = xyxy[:, 2:] - xyxy[:, :2]
    return np.concatenate([xyxy[:, :2], xyxy[:, :2] + sides], axis=1), sides[:, 0] * sides[:, 1]


@dataclass(frozen=True, eq=False)
class Matches:
    """What the detections that overlap an object are matched with.

    Attributes:
        detections: (M,) int64, positions in ``RankedDetections.detections``, ascending.
        found: (T, S, M) bool, an object that counts.
        ignored: (T, S, M) bool, an object that does not.
    """

    detections: IntArray
    found: BoolArray
    ignored: BoolArray


def match(ranked: RankedDetections, overlaps: Overlaps, crowd: BoolArray, ignore: BoolArray) -> Matches:
    """Match detections with objects.

    Args:
        ranked: detections and objects.
        overlaps: the pairs that may match.
        crowd: (G,) whether an object may be matched any number of times.
        ignore: (G, S) whether an object does not count.
    """
    detections, rows = np.unique(overlaps.detections, return_inverse=True)
    rounds = ranked.ranks[detections]
    # Pairs by round, then by detection, the best last.
    order = np.lexsort((overlaps.ious, rows, rounds[rows]))
    rows, objects = rows[order], overlaps.objects[order]
    enough = overlaps.ious[order][:, None] >= np.minimum(IOU_THRESHOLDS, 1 - 1e-10)  # P T
    counts = ~ignore

    num_thresholds, num_sizes = len(IOU_THRESHOLDS), ignore.shape[1]
    free = np.ones((len(crowd), num_thresholds, num_sizes), dtype=np.bool_)
    found = np.zeros((len(detections), num_thresholds, num_sizes), dtype=np.bool_)
    ignored = np.zeros_like(found)
    firsts = np.append(np.flatnonzero(np.diff(rows, prepend=-1)), len(rows))  # M + 1, first pair of each detection
    queue = rows[firsts[:-1]]
    new_chunk = (np.diff(rounds[queue], prepend=-1) != 0) | (np.arange(len(queue)) % _CHUNK == 0)
    for start, end in pairwise([*np.flatnonzero(new_chunk).tolist(), len(queue)]):
        first, last = firsts[start], firsts[end]
        objects_ = objects[first:last]
        num = last - first
        # A choice is a number: the higher the better, at least `num` for objects that count, -1 where not possible.
        choices = np.arange(num, dtype=np.int32)[:, None] + np.int32(num) * counts[objects_]  # p S
        possible = free[objects_] & enough[first:last, :, None]  # p T S
        choices = np.where(possible, choices[:, None], np.int32(-1))
        best = np.maximum.reduceat(choices, firsts[start:end] - first)  # m T S
        found[queue[start:end]] = best >= num
        ignored[queue[start:end]] = (best >= 0) & (best < num)
        row, threshold, size = np.nonzero(best >= 0)
        free[objects_[best[row, threshold, size] % num], threshold, size] = False
        free[objects_[crowd[objects_]]] = True
    by_threshold = (np.ascontiguousarray(flags.transpose(1, 2, 0)) for flags in (found, ignored))
    return Matches(detections, *by_threshold)
