"""Which detections overlap which objects of their group enough to be matched at all: of boxes, and of masks.

With a crowd region the overlap is the share of the detection that lies in it, not IoU.

Letters: P pairs of a detection and an object.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from detseg.metrics.box_pairs import BoxColumns, meeting_pairs, object_ranges
from detseg.metrics.coco_groups import Groups
from detseg.metrics.coco_rules import IOU_THRESHOLDS
from detseg.metrics.mask_records import MaskColumn, MaskRecords
from detseg.metrics.records import DetectionRecords
from detseg.structures import FloatArray, IntArray

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
    for detections, objects, intersections in meeting_pairs(found, true, ranges):
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
