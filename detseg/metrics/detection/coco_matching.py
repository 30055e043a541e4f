"""COCO's matching rule at all thresholds and sizes and in all images at once.

In each group, at each IoU threshold and for each size, detections choose one after the other, best score first: of the
objects that are not taken the one with the highest IoU, of equals the last; one of the size if there is any, else one
that is to be ignored.  Crowd regions are never taken up.  Groups do not know each other, so all make their first
choices together, then all their second ones: there are as many rounds as the fullest group has detections that overlap
an object.  pycocotools, whose result is the same, loops over images, sizes, thresholds, detections and objects.

Letters: G objects, M detections that overlap an object, P pairs, S sizes, T IoU thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from detseg.metrics.detection.records import DetectionRecords, MaskColumn, MaskRecords
from detseg.metrics.detection.voc_matching import BoxColumns, object_ranges, overlapping_pairs
from detseg.structures import BoolArray, FloatArray, IntArray

IOU_THRESHOLDS: FloatArray = np.linspace(0.5, 0.95, 10)
RECALL_LEVELS: FloatArray = np.linspace(0, 1, 101)

SIZES = ("all", "small", "medium", "large")
AREA_RANGES: FloatArray = np.array([[0, 1e5**2], [0, 32**2], [32**2, 96**2], [96**2, 1e5**2]])
"""(S, 2), least and greatest area of each size, square pixels; both belong to it."""

_PIECE = 1 << 13
"""Pairs decided at a time, so that memory does not grow with a round."""


def outside_ranges(areas: FloatArray) -> BoolArray:
    """(N,) square pixels → (N, S) whether each lies outside the area range of each size; NaN lies in all."""
    outside: BoolArray = (areas[:, None] < AREA_RANGES[:, 0]) | (areas[:, None] > AREA_RANGES[:, 1])
    return outside


class Matches(NamedTuple):
    """What the detections that overlap an object were matched with.

    Attributes:
        detections: (M,) int64, positions in ``Groups.detections``, ascending.
        found: (T, M, S) bool, an object that counts.
        ignored: (T, M, S) bool, one that does not.
    """

    detections: IntArray
    found: BoolArray
    ignored: BoolArray


def match(groups: Groups, overlaps: Overlaps, crowd: BoolArray, ignore: BoolArray) -> Matches:
    """Match detections with objects.

    Args:
        groups: of detections and objects.
        overlaps: the pairs that may match.
        crowd: (G,) whether an object of ``groups`` may be matched any number of times.
        ignore: (G, S) whether it is neither right nor wrong to find.
    """
    detections, rows = np.unique(overlaps.detections, return_inverse=True)
    rounds = places_in_runs(groups.detection_groups[detections])
    # The pairs of a detection lie together, the best last.
    order = np.lexsort((overlaps.ious, rows, rounds[rows]))
    rows, objects, ious = rows[order], overlaps.objects[order], overlaps.ious[order]
    enough = ious[:, None] >= np.minimum(IOU_THRESHOLDS, 1 - 1e-10)  # P T
    counts = ~ignore  # G S

    num_thresholds, num_sizes = len(IOU_THRESHOLDS), ignore.shape[1]
    cells = np.arange(num_thresholds * num_sizes).reshape(num_thresholds, num_sizes)
    free = np.ones((len(crowd), num_thresholds, num_sizes), dtype=np.bool_)
    flat = free.reshape(-1)
    found = np.zeros((num_thresholds, len(detections), num_sizes), dtype=np.bool_)
    ignored = np.zeros_like(found)
    for start, end in _pieces(rows, rounds):
        row, object_ = rows[start:end], objects[start:end]
        num = end - start
        # A choice as a number: the higher the better, at least `num` where the object counts, -1 where it cannot be.
        choices = np.arange(num, dtype=np.int32)[:, None] + np.int32(num) * counts[object_]  # p S
        possible = free[object_] & enough[start:end, :, None]  # p T S
        choices = np.where(possible, choices[:, None], np.int32(-1))
        firsts = np.flatnonzero(np.diff(row, prepend=-1))
        best = choices if len(firsts) == num else np.maximum.reduceat(choices, firsts)  # m T S
        row = row[firsts]
        found[:, row] = (best >= num).swapaxes(0, 1)
        ignored[:, row] = ((best >= 0) & (best < num)).swapaxes(0, 1)
        chosen = object_[np.where(best >= num, best - num, best)]  # m T S, where there is a choice
        flat[(chosen * cells.size + cells)[best >= 0]] = False
        free[object_[crowd[object_]]] = True
    return Matches(detections, found, ignored)


def _pieces(rows: IntArray, rounds: IntArray) -> Iterator[tuple[int, int]]:
    """Begin and end of about ``_PIECE`` pairs of one round, those of a detection undivided.

    Args:
        rows: (P,) int64, the detection of each pair, equal ones together, by round.
        rounds: (M,) int64, the round of each detection.
    """
    firsts = np.flatnonzero(np.diff(rows, prepend=-1))
    round_ = rounds[rows[firsts]]  # M, ascending
    begins = firsts[np.searchsorted(round_, round_, side="left")]
    piece = (firsts - begins) // _PIECE
    new = (np.diff(round_, prepend=-1) != 0) | (np.diff(piece, prepend=0) != 0)
    return pairwise([*firsts[new].tolist(), len(rows)])


class Groups(NamedTuple):
    """Detections and objects sorted by group, that is by class and then by image.

    Attributes:
        detections: (D,) int64, positions in the records; of each group the best scores first, as many as count.
        detection_groups: (D,) int64, ascending; class times I plus image.
        ranks: (D,) int64, place of a detection in its group, from 0.
        ranking: (D,) int64, positions in ``detections`` by class, best score first; of equal scores the lower image id
            comes first, then the order of the records.
        objects: (G,) int64, positions in the records; those of a group in their order there.
        object_groups: (G,) int64, ascending.
        num_images: I.
    """

    detections: IntArray
    detection_groups: IntArray
    ranks: IntArray
    ranking: IntArray
    objects: IntArray
    object_groups: IntArray
    num_images: int


def group(records: DetectionRecords, class_positions: IntArray, max_detections: int) -> Groups:
    """Sort records into groups.

    Args:
        records: of any order.
        class_positions: (C,) int64, place of each label among the classes, as the tables have them.
        max_detections: how many detections of a group count, best first.
    """
    image_ids = np.sort(records.image_ids)
    num_images, num_classes = len(image_ids), len(class_positions)
    images = _narrow(np.searchsorted(image_ids, records.detection_image_ids), num_images)
    classes = _narrow(class_positions[records.detection_labels], num_classes)
    best_first = np.lexsort((images, -records.detection_scores, classes))
    images, classes = images[best_first], classes[best_first]
    grouped = np.lexsort((images, classes))
    groups = classes[grouped].astype(np.int64) * num_images + images[grouped]
    ranks = places_in_runs(groups)
    counted = ranks < max_detections
    grouped = grouped[counted]

    places = np.full(len(best_first), -1, dtype=np.int64)
    places[grouped] = np.arange(len(grouped))

    object_images = np.searchsorted(image_ids, records.object_image_ids)
    object_groups = class_positions[records.object_labels] * num_images + object_images
    objects = np.argsort(object_groups, kind="stable")
    return Groups(
        detections=best_first[grouped],
        detection_groups=groups[counted],
        ranks=ranks[counted],
        ranking=places[places >= 0],
        objects=objects,
        object_groups=object_groups[objects],
        num_images=num_images,
    )


def places_in_runs(values: IntArray) -> IntArray:
    """(N,) not negative, equal ones together → (N,) int64, the place of each among its equals, from 0."""
    positions = np.arange(len(values))
    begins = np.where(np.diff(values, prepend=-1) != 0, positions, 0)
    return positions - np.maximum.accumulate(begins)


def _narrow(positions: IntArray, num: int) -> IntArray:
    """The same numbers below ``num`` in the smallest type: numpy sorts 16 bits in one pass (here 10 times faster)."""
    return positions.astype(np.min_scalar_type(num))


_MOST_AREAS = 255
"""Of masks at a time: pycocotools 2.0.11 overflows with more."""

_LEAST_IOU = IOU_THRESHOLDS[0]


class Overlaps(NamedTuple):
    """Pairs of one group with IoU >= 0.5, by detection and then by object.

    Attributes:
        detections: (P,) int64, positions in ``Groups.detections``.
        objects: (P,) int64, positions in ``Groups.objects``.
        ious: (P,) float64.
    """

    detections: IntArray
    objects: IntArray
    ious: FloatArray


def box_overlaps(records: DetectionRecords, groups: Groups) -> Overlaps:
    """The pairs whose boxes overlap enough; each IoU is that of pycocotools to the last bit."""
    found = _by_width_and_height(records.detection_boxes[groups.detections])
    true = _by_width_and_height(records.object_boxes[groups.objects])
    crowd = records.object_ignore[groups.objects]
    parts = [_of_no_pair()]
    ranges = object_ranges(groups.detection_groups, groups.object_groups)
    for detections, objects, intersections in overlapping_pairs(found, true, ranges):
        areas = found.areas[detections]
        ious = intersections / np.where(crowd[objects], areas, areas + true.areas[objects] - intersections)
        enough = ious >= _LEAST_IOU
        parts.append(Overlaps(detections[enough], objects[enough], ious[enough]))
    return Overlaps(*map(np.concatenate, zip(*parts, strict=True)))


def mask_overlaps(records: MaskRecords, groups: Groups) -> Overlaps:
    """The pairs whose masks overlap enough, as pycocotools counts their pixels."""
    from pycocotools import mask

    sizes = _image_sizes(records)
    crowd = records.object_ignore[groups.objects].tolist()
    first, num = object_ranges(groups.detection_groups, groups.object_groups)
    starts = np.flatnonzero((groups.ranks == 0) & (num > 0))
    ends = np.searchsorted(groups.detection_groups, groups.detection_groups[starts], side="right")
    parts = [_of_no_pair()]
    for start, end, low, high in zip(starts, ends, first[starts], (first + num)[starts], strict=True):
        detections, objects = groups.detections[start:end], groups.objects[low:high]
        size = sizes[int(records.object_image_ids[objects[0]])]
        found = _run_lengths(records.detection_masks[detections], size)
        true = _run_lengths(records.object_masks[objects], size)
        ious = mask.iou(found, true, crowd[low:high])
        rows, columns = np.nonzero(ious >= _LEAST_IOU)
        parts.append(Overlaps(rows + start, columns + low, ious[rows, columns]))
    return Overlaps(*map(np.concatenate, zip(*parts, strict=True)))


def detection_mask_areas(records: MaskRecords, groups: Groups) -> FloatArray:
    """(D,) float64, the pixels of the mask of each detection (pycocotools' count takes a tenth of our codec's time)."""
    from pycocotools import mask

    sizes = _image_sizes(records)
    image_ids, masks = records.detection_image_ids[groups.detections], records.detection_masks[groups.detections]
    rows = zip(image_ids.tolist(), masks, strict=True)
    run_lengths = [{"size": sizes[image_id], "counts": counts} for image_id, counts in rows]
    areas = [mask.area(run_lengths[first : first + _MOST_AREAS]) for first in range(0, len(masks), _MOST_AREAS)]
    return np.concatenate([np.zeros(0), *areas])


def _by_width_and_height(xyxy: FloatArray) -> BoxColumns:
    """The columns of (N, 4); the far edges go by way of width and height, in which pycocotools is given them."""
    left, top, right, bottom = np.ascontiguousarray(xyxy.T)
    width, height = right - left, bottom - top
    return BoxColumns(left, top, left + width, top + height, width * height)


def _image_sizes(records: MaskRecords) -> dict[int, list[int]]:
    return dict(zip(records.image_ids.tolist(), records.image_hw.tolist(), strict=True))


def _run_lengths(masks: MaskColumn, size: list[int]) -> list[dict[str, Any]]:
    return [{"size": size, "counts": counts} for counts in masks]


def _of_no_pair() -> Overlaps:
    none = np.zeros(0, dtype=np.int64)
    return Overlaps(none, none, np.zeros(0))
