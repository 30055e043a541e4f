"""COCO's twelve numbers and the AP of each class, of boxes and of masks: those of pycocotools, the referee.

They are computed from the evaluator's arrays in five steps: group, overlap, match, tabulate, average.  pycocotools does
the same in Python loops over images, classes, sizes, thresholds and detections, which takes a minute where this takes a
second (``benchmarks/coco_evaluation.py``).  Every cell of its tables of precision and recall, and so every number, is
the same to the last bit (``tests/metrics/detection/test_coco_tables.py``).  IoUs of masks are counted by its compiled
code; those of boxes are plain float64 arithmetic, as in its builds for x86-64 (one that fuses multiplication and
addition may differ in an IoU's last bit).

Two of its habits are left out.  It takes an object with annotation id 0 for unmatched; here are no ids.  Its summary is
right for a limit of 100 detections only (-1 else); here it is right for any.

What is small, medium or large goes by the area: of an object as its file states it; of a detection by its box where
boxes are compared, by its mask where masks are.  So does pycocotools' ``loadRes`` with a file of boxes and with one of
masks; with a file of both it takes the area of the box even where masks are compared.

Letters: T IoU thresholds, R recall levels, C classes, D detections that count, S sizes, L limits on detections.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detseg.metrics.detection.coco_matching import (
    SIZES,
    Groups,
    Overlaps,
    box_overlaps,
    detection_mask_areas,
    group,
    mask_overlaps,
    match,
    outside_ranges,
)
from detseg.metrics.detection.coco_tables import Tables, tables
from detseg.metrics.detection.records import DetectionRecords, MaskRecords
from detseg.structures import ClassTable, FloatArray, IntArray

_IOU_50, _IOU_75 = 0, 5  # positions in the thresholds 0.50, 0.55, ..., 0.95


class CocoNumbers(NamedTuple):
    """What COCO measures; NaN where pycocotools says -1: there are no objects (of that size or class).

    Attributes:
        summary: AP, AP50, AP75, AP_small, AP_medium, AP_large, AR_1, AR_10, AR_<max_detections>, AR_small, AR_medium,
            AR_large; in pycocotools' order.  With ``max_detections`` of 1 or 10 two of them are one.
        class_ap: (C,) float64, AP over IoU 0.50 to 0.95.
        class_ap50: (C,) float64.
    """

    summary: dict[str, float]
    class_ap: FloatArray
    class_ap50: FloatArray


def coco_numbers(records: DetectionRecords, classes: ClassTable, max_detections: int) -> CocoNumbers:
    """The numbers of boxes.

    Args:
        records: ignored objects (crowd or difficult) count as COCO's crowd regions do, areas as they are.
        classes: means are summed in the order of the source ids, as pycocotools does.
        max_detections: how many detections count, of one class in one image, best first; COCO's rule is 100.
    """
    return _numbers(box_tables(records, classes, max_detections), classes, max_detections)


def coco_mask_numbers(records: MaskRecords, classes: ClassTable, max_detections: int) -> CocoNumbers:
    """The numbers of masks; arguments as for ``coco_numbers``."""
    return _numbers(mask_tables(records, classes, max_detections), classes, max_detections)


def box_tables(records: DetectionRecords, classes: ClassTable, max_detections: int) -> Tables:
    """Every cell that the numbers of boxes are means of; classes by source id, limits as ``detection_limits``."""
    groups = group(records, _positions(classes), detection_limits(max_detections)[-1])
    width, height = (records.detection_boxes[groups.detections, 2:] - records.detection_boxes[groups.detections, :2]).T
    return _tables(records, groups, box_overlaps(records, groups), width * height, len(classes), max_detections)


def mask_tables(records: MaskRecords, classes: ClassTable, max_detections: int) -> Tables:
    """Every cell that the numbers of masks are means of, as ``box_tables``."""
    groups = group(records, _positions(classes), detection_limits(max_detections)[-1])
    areas = detection_mask_areas(records, groups)
    return _tables(records, groups, mask_overlaps(records, groups), areas, len(classes), max_detections)


def detection_limits(max_detections: int) -> list[int]:
    """How many detections of a class in an image count in the columns of the table of recall, ascending."""
    return sorted({1, 10, max_detections})


def _tables(
    records: DetectionRecords,
    groups: Groups,
    overlaps: Overlaps,
    detection_areas: FloatArray,
    num_classes: int,
    max_detections: int,
) -> Tables:
    crowd = records.object_ignore[groups.objects]
    ignore = crowd[:, None] | outside_ranges(records.object_areas[groups.objects])  # G S
    cells = groups.object_groups // max(groups.num_images, 1)
    num_objects = np.stack([np.bincount(cells[~column], minlength=num_classes) for column in ignore.T], axis=1)
    matches = match(groups, overlaps, crowd, ignore)
    outside = outside_ranges(detection_areas)
    return tables(groups, matches, outside, num_objects, max_detections, detection_limits(max_detections))


def _numbers(cells: Tables, classes: ClassTable, max_detections: int) -> CocoNumbers:
    precision, recall = cells  # T R C S, T C S L
    limits = detection_limits(max_detections)
    most = limits.index(max_detections)
    summary = {
        "AP": _mean(precision[:, :, :, 0]),
        "AP50": _mean(precision[_IOU_50, :, :, 0]),
        "AP75": _mean(precision[_IOU_75, :, :, 0]),
    }
    for size in (1, 2, 3):
        summary[f"AP_{SIZES[size]}"] = _mean(precision[:, :, :, size])
    for limit in (1, 10, max_detections):
        summary[f"AR_{limit}"] = _mean(recall[:, :, 0, limits.index(limit)])
    for size in (1, 2, 3):
        summary[f"AR_{SIZES[size]}"] = _mean(recall[:, :, size, most])
    positions = _positions(classes)
    return CocoNumbers(
        summary=summary,
        class_ap=np.array([_mean(precision[:, :, k, 0]) for k in positions], dtype=np.float64),
        class_ap50=np.array([_mean(precision[_IOU_50, :, k, 0]) for k in positions], dtype=np.float64),
    )


def _positions(classes: ClassTable) -> IntArray:
    """(C,) int64, the place of each label by source id, in which order pycocotools sums."""
    return np.searchsorted(np.sort(classes.source_ids), classes.source_ids)


def _mean(table: FloatArray) -> float:
    """The mean of the cells that exist (pycocotools marks the others by -1); NaN if there are none."""
    cells = table[table > -1]
    return float(np.mean(cells)) if len(cells) else float("nan")
