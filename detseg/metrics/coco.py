"""COCO's twelve numbers and the AP of each class, of boxes and of masks (Lin et al. 2014, "Microsoft COCO").

pycocotools is the reference: every cell of the tables of precision and recall equals its own to the last bit, but for
its builds that fuse multiplication and addition.  There are three differences: it takes an object with annotation id 0
for unmatched, some numbers of its summary are -1 where the limit on detections is not 100, and with a result file of
boxes and masks it takes the areas of the boxes even where masks are compared.

Small, medium or large is decided by the area: of an object as its file states it; of a detection by its box where boxes
are compared and by its mask where masks are.

Detections and objects of one class in one image are a group.  At each IoU threshold and for each size, the detections
of a group choose one after the other, best score first: of the objects that are not taken the one with the highest IoU,
of equals the last; one that counts if there is any, else one to ignore.  Crowd regions are never taken.  All groups
make their first choices together, then their second ones, and so on.

Letters: C classes, D detections that count, G objects, L limits on detections, M detections that overlap an object,
P pairs, R recall levels, S sizes, T IoU thresholds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from detseg.metrics.records import DetectionRecords, MaskRecords, overlapping_pairs
from detseg.structures import BoolArray, ClassTable, FloatArray, IntArray

_IOU_THRESHOLDS: FloatArray = np.linspace(0.5, 0.95, 10)
_IOU_50, _IOU_75 = 0, 5  # positions among them
RECALL_LEVELS: FloatArray = np.linspace(0, 1, 101)
_SIZES = ("all", "small", "medium", "large")
# (S, 2), least and greatest area of each size, square pixels, both included.
_AREA_RANGES: FloatArray = np.array([[0, 1e5**2], [0, 32**2], [32**2, 96**2], [96**2, 1e5**2]])
_CHUNK = 1 << 10  # detections that choose at a time: memory does not grow with the number of images
_MAX_MASKS = 255  # whose areas pycocotools 2.0.11 counts at a time; it overflows with more
_NO_PAIRS = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)


@dataclass(frozen=True)
class CocoNumbers:
    """COCO's numbers in [0, 1]; NaN where there are no objects (of that size or class), for which pycocotools has -1.

    ``summary``: AP, AP50, AP75, AP_small, AP_medium, AP_large, AR_1, AR_10, AR_<max_detections>, AR_small, AR_medium,
    AR_large; with ``max_detections`` of 1 or 10 two of them are one.
    """

    summary: dict[str, float]
    class_ap: tuple[float, ...]  # over IoU 0.50 to 0.95, of each class in the order of the labels
    class_ap50: tuple[float, ...]  # at IoU 0.5


def coco_numbers(
    records: DetectionRecords, classes: ClassTable, max_detections: int, iou_type: Literal["bbox", "segm"] = "bbox"
) -> CocoNumbers:
    """The numbers of boxes or of masks.

    Args:
        records: ignored objects (crowd or difficult) count as COCO's crowd regions; ``MaskRecords`` for masks.
        classes: means are summed in the order of the source ids, as pycocotools does.
        max_detections: detections of a class in an image that count, best first; COCO's rule is 100.
        iou_type: compare boxes (``bbox``) or masks (``segm``).
    """
    precision, recall = coco_tables(records, classes, max_detections, iou_type)  # T R C S, T C S L
    limits = _detection_limits(max_detections)
    summary = {
        "AP": _mean(precision[:, :, :, 0]),
        "AP50": _mean(precision[_IOU_50, :, :, 0]),
        "AP75": _mean(precision[_IOU_75, :, :, 0]),
    }
    summary |= {f"AP_{_SIZES[size]}": _mean(precision[:, :, :, size]) for size in (1, 2, 3)}
    summary |= {f"AR_{limit}": _mean(recall[:, :, 0, limits.index(limit)]) for limit in (1, 10, max_detections)}
    summary |= {f"AR_{_SIZES[size]}": _mean(recall[:, :, size, limits.index(max_detections)]) for size in (1, 2, 3)}
    positions = _class_positions(classes)
    return CocoNumbers(
        summary=summary,
        class_ap=tuple(_mean(precision[:, :, k, 0]) for k in positions),
        class_ap50=tuple(_mean(precision[_IOU_50, :, k, 0]) for k in positions),
    )


def coco_tables(
    records: DetectionRecords, classes: ClassTable, max_detections: int, iou_type: Literal["bbox", "segm"] = "bbox"
) -> tuple[FloatArray, FloatArray]:
    """Every cell that the numbers are means of; arguments as for ``coco_numbers``.

    Returns:
        (T, R, C, S) float64, the best precision at each recall level or beyond, and (T, C, S, L) float64 recall at the
        limits 1, 10 and ``max_detections``, ascending; classes by source id; -1 where there is no object to find.
    """
    return _tables(coco_matches(records, classes, max_detections, iou_type), max_detections)


@dataclass(frozen=True, eq=False)
class CocoMatches:
    """Which detections are right at each threshold and for each size, best score first in each class.

    Classes are numbered by source id. Images are numbered by id.
    """

    classes: IntArray  # (D,) ascending
    images: IntArray  # (D,)
    ranks: IntArray  # (D,) place among those of its class in its image, from 0
    found: BoolArray  # (T, S, D) it found an object that counts
    missed: BoolArray  # (T, S, D) it found none; else it is ignored
    num_objects: IntArray  # (C, S) to find
    object_classes: IntArray  # (G,) of the objects of any size that are to be found
    object_images: IntArray  # (G,)


def coco_matches(
    records: DetectionRecords, classes: ClassTable, max_detections: int, iou_type: Literal["bbox", "segm"] = "bbox"
) -> CocoMatches:
    """Match detections and objects; arguments as for ``coco_numbers``. At least ten detections of a class in an image
    are there, whatever ``max_detections``."""
    positions = _class_positions(classes)
    ranked = _rank_detections(records, positions, _detection_limits(max_detections)[-1])
    if iou_type == "bbox":
        overlaps = _box_overlaps(records, ranked)
    else:
        assert isinstance(records, MaskRecords)
        overlaps = _mask_overlaps(records, ranked)
    crowd = records.object_ignore[ranked.objects]
    ignore = crowd[:, None] | _outside_sizes(records.object_areas[ranked.objects])  # G S
    object_classes = positions[records.object_labels[ranked.objects]]
    num_objects = np.array([np.bincount(object_classes[~column], minlength=len(classes)) for column in ignore.T]).T
    found, ignored = _match(ranked, overlaps, crowd, ignore)
    missed = ~(found | ignored | _outside_sizes(overlaps.detection_areas).T)  # of another size it counts if it is right
    num_images, to_find = max(len(records.image_ids), 1), ~ignore[:, 0]
    return CocoMatches(
        classes=ranked.classes,
        images=ranked.groups % num_images,
        ranks=ranked.ranks,
        found=found,
        missed=missed,
        num_objects=num_objects,
        object_classes=object_classes[to_find],
        object_images=ranked.object_groups[to_find] % num_images,
    )


def _detection_limits(max_detections: int) -> list[int]:
    return sorted({1, 10, max_detections})


def _class_positions(classes: ClassTable) -> IntArray:
    """(C,) int64, the place of each label by source id, the order in which pycocotools sums."""
    return np.searchsorted(np.sort(classes.source_ids), classes.source_ids)


def _mean(table: FloatArray) -> float:
    """The mean of the cells that exist (the others are -1); NaN if there are none."""
    cells = table[table > -1]
    return float(np.mean(cells)) if len(cells) else float("nan")


def _outside_sizes(areas: FloatArray) -> BoolArray:
    """(N,) square pixels → (N, S) whether each area is outside the range of each size."""
    outside: BoolArray = (areas[:, None] < _AREA_RANGES[:, 0]) | (areas[:, None] > _AREA_RANGES[:, 1])
    return outside


@dataclass(frozen=True, eq=False)
class _Ranked:
    """The detections that count, by class, best score first (of equals the lower image id, then the order of the
    records), and the objects by group."""

    detections: IntArray  # (D,) positions in the records
    classes: IntArray  # (D,) ascending
    groups: IntArray  # (D,) class times number of images plus image
    ranks: IntArray  # (D,) place in the group, from 0
    objects: IntArray  # (G,) positions in the records; those of a group in their order there
    object_groups: IntArray  # (G,) ascending


def _rank_detections(records: DetectionRecords, class_positions: IntArray, max_detections: int) -> _Ranked:
    """The best ``max_detections`` of each class in each image."""
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
    groups, ranks = groups[counted], ranks[counted]
    return _Ranked(detections[counted], classes[counted], groups, ranks, objects, object_groups[objects])


@dataclass(frozen=True, eq=False)
class _Overlaps:
    """The areas of the detections, and their overlaps with objects of the same group: P pairs with IoU >= 0.5."""

    detection_areas: FloatArray  # (D,) square pixels
    detections: IntArray  # (P,) positions in `_Ranked.detections`
    objects: IntArray  # (P,) positions in `_Ranked.objects`; those of a detection ascend
    ious: FloatArray  # (P,); with a crowd region the fraction of the detection inside it


def _box_overlaps(records: DetectionRecords, ranked: _Ranked) -> _Overlaps:
    boxes, areas = _by_width_and_height(records.detection_boxes[ranked.detections])
    object_boxes, object_areas = _by_width_and_height(records.object_boxes[ranked.objects])
    crowd = records.object_ignore[ranked.objects]
    parts = [_NO_PAIRS]
    pairs = overlapping_pairs(boxes, object_boxes, ranked.groups, ranked.object_groups)
    for detections, objects, intersections in pairs:
        area = areas[detections]
        ious = intersections / np.where(crowd[objects], area, area + object_areas[objects] - intersections)
        enough = ious >= _IOU_THRESHOLDS[0]
        parts.append((detections[enough], objects[enough], ious[enough]))
    return _Overlaps(areas, *map(np.concatenate, zip(*parts, strict=True)))


def _by_width_and_height(xyxy: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(N, 4) boxes with the right and lower edge as left + width and top + height, as in pycocotools; (N,) areas."""
    sides = xyxy[:, 2:] - xyxy[:, :2]
    return np.concatenate([xyxy[:, :2], xyxy[:, :2] + sides], axis=1), sides[:, 0] * sides[:, 1]


def _mask_overlaps(records: MaskRecords, ranked: _Ranked) -> _Overlaps:
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
        rows, columns = np.nonzero(ious >= _IOU_THRESHOLDS[0])
        parts.append((detections[rows], columns + low, ious[rows, columns]))
    return _Overlaps(np.concatenate([np.zeros(0), *areas]), *map(np.concatenate, zip(*parts, strict=True)))


def mask_ious(records: MaskRecords, detections: IntArray, objects: IntArray, crowd: bool) -> FloatArray:
    """(N,) and (M,) positions in the records, at least one each, of one image, → (N, M) IoU of their masks; with
    ``crowd`` regions the fraction of the detection that is inside."""
    hw = records.image_hw[records.image_ids == records.object_image_ids[objects[0]]][0].tolist()
    return ious_of_masks(hw, records.detection_masks[detections], records.object_masks[objects], crowd)


def ious_of_masks(hw: Sequence[int], masks: Iterable[bytes], others: Iterable[bytes], crowd: bool) -> FloatArray:
    """N and M masks of an image of ``hw`` pixels, as compressed run lengths, → (N, M) IoU; with ``crowd`` regions the
    fraction of the first that is inside."""
    from pycocotools import mask

    first, second = ([{"size": list(hw), "counts": counts} for counts in column] for column in (masks, others))
    ious: FloatArray = np.asarray(mask.iou(first, second, [crowd] * len(second)), dtype=np.float64)
    return ious


def _match(ranked: _Ranked, overlaps: _Overlaps, crowd: BoolArray, ignore: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Match detections with objects; (G,) ``crowd`` may be matched any number of times, (G, S) ``ignore`` do not count.

    Returns:
        (T, S, D) whether a detection found an object that counts, and whether it found one that does not.
    """
    detections, rows = np.unique(overlaps.detections, return_inverse=True)
    rounds = ranked.ranks[detections]
    # Pairs by round, then by detection, the best last.
    order = np.lexsort((overlaps.ious, rows, rounds[rows]))
    rows, objects = rows[order], overlaps.objects[order]
    enough = overlaps.ious[order][:, None] >= np.minimum(_IOU_THRESHOLDS, 1 - 1e-10)  # P T
    counts = ~ignore

    num_thresholds, num_sizes = len(_IOU_THRESHOLDS), ignore.shape[1]
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
    matches = np.zeros((2, num_thresholds, num_sizes, len(ranked.detections)), dtype=np.bool_)
    matches[..., detections] = np.stack([found, ignored]).transpose(0, 2, 3, 1)
    return matches[0], matches[1]


def _tables(matches: CocoMatches, max_detections: int) -> tuple[FloatArray, FloatArray]:
    """The tables of ``coco_tables`` (pycocotools' ``accumulate``)."""
    found, missed, num_objects = matches.found, matches.missed, matches.num_objects
    num_thresholds, (num_classes, num_sizes), limits = len(found), num_objects.shape, _detection_limits(max_detections)
    precision = np.full((num_thresholds, len(RECALL_LEVELS), num_classes, num_sizes), -1.0)
    recall = np.full((num_thresholds, num_classes, num_sizes, len(limits)), -1.0)
    ends = np.searchsorted(matches.classes, np.arange(num_classes + 1)).tolist()
    for k, size in np.argwhere(num_objects).tolist():
        rows, num = slice(ends[k], ends[k + 1]), num_objects[k, size]
        hits, misses, ranks = found[:, size, rows], missed[:, size, rows], matches.ranks[rows]
        for place, limit in enumerate(limits):
            recall[:, k, size, place] = np.count_nonzero(hits[:, ranks < limit], axis=1) / num
        within = ranks < max_detections
        num_found = np.cumsum(hits[:, within], axis=1)
        precisions = num_found / (num_found + np.cumsum(misses[:, within], axis=1) + np.spacing(1))  # 1 / 1 below 1
        best = np.maximum.accumulate(precisions[:, ::-1], axis=1)[:, ::-1]  # at each place in the ranking or beyond
        best = np.pad(best, ((0, 0), (0, 1)))  # 0 where a level is not reached
        for threshold, recalls in enumerate(num_found / num):
            precision[threshold, :, k, size] = best[threshold, np.searchsorted(recalls, RECALL_LEVELS)]
    return precision, recall
