"""COCO's twelve numbers and the AP of each class, of boxes and of masks (Lin et al. 2014, "Microsoft COCO").

pycocotools is the reference: every cell of the tables of precision and recall equals its own to the last bit, but is
computed from arrays instead of Python loops.  IoUs of masks are counted by its compiled code; those of boxes are
float64 arithmetic as in its builds for x86-64 (one that fuses multiplication and addition may differ in the last bit).
There are two differences: pycocotools takes an object with annotation id 0 for unmatched, and some numbers of its
summary are -1 where the limit on detections is not 100.

Small, medium or large is decided by the area: of an object as its file states it; of a detection by its box where boxes
are compared and by its mask where masks are.  pycocotools does the same with result files of boxes or of masks; with a
file of both it takes the area of the box even where masks are compared.

Letters: T IoU thresholds, R recall levels, C classes, S sizes, L limits on detections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from detseg.metrics.detection.coco_matching import (
    SIZES,
    box_overlaps,
    mask_overlaps,
    match,
    outside_sizes,
    rank_detections,
)
from detseg.metrics.detection.coco_tables import tables
from detseg.metrics.detection.records import DetectionRecords, MaskRecords
from detseg.structures import ClassTable, FloatArray, IntArray

_IOU_50, _IOU_75 = 0, 5  # positions in the thresholds 0.50, 0.55, ..., 0.95


@dataclass(frozen=True)
class CocoNumbers:
    """COCO's numbers in [0, 1]; NaN where there are no objects (of that size or class), for which pycocotools has -1.

    Attributes:
        summary: AP, AP50, AP75, AP_small, AP_medium, AP_large, AR_1, AR_10, AR_<max_detections>, AR_small, AR_medium,
            AR_large; with ``max_detections`` of 1 or 10 two of them are one.
        class_ap: AP over IoU 0.50 to 0.95 of each class, in the order of the labels.
        class_ap50: AP at IoU 0.5 of each class.
    """

    summary: dict[str, float]
    class_ap: tuple[float, ...]
    class_ap50: tuple[float, ...]


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
    for size in (1, 2, 3):
        summary[f"AP_{SIZES[size]}"] = _mean(precision[:, :, :, size])
    for limit in (1, 10, max_detections):
        summary[f"AR_{limit}"] = _mean(recall[:, :, 0, limits.index(limit)])
    for size in (1, 2, 3):
        summary[f"AR_{SIZES[size]}"] = _mean(recall[:, :, size, limits.index(max_detections)])
    positions = _class_positions(classes)
    return CocoNumbers(
        summary=summary,
        class_ap=tuple(_mean(precision[:, :, k, 0]) for k in positions),
        class_ap50=tuple(_mean(precision[_IOU_50, :, k, 0]) for k in positions),
    )


def coco_tables(
    records: DetectionRecords, classes: ClassTable, max_detections: int, iou_type: Literal["bbox", "segm"] = "bbox"
) -> tuple[FloatArray, FloatArray]:
    """Every cell that the numbers are means of, as ``tables``; arguments as for ``coco_numbers``.

    Classes are by ascending source id; the L limits of recall are 1, 10 and ``max_detections``, ascending.
    """
    limits, positions = _detection_limits(max_detections), _class_positions(classes)
    ranked = rank_detections(records, positions, limits[-1])
    if iou_type == "bbox":
        overlaps = box_overlaps(records, ranked)
    else:
        assert isinstance(records, MaskRecords)
        overlaps = mask_overlaps(records, ranked)
    crowd = records.object_ignore[ranked.objects]
    ignore = crowd[:, None] | outside_sizes(records.object_areas[ranked.objects])  # G S
    object_classes = positions[records.object_labels[ranked.objects]]
    num_objects = np.array([np.bincount(object_classes[~column], minlength=len(classes)) for column in ignore.T]).T
    matches = match(ranked, overlaps, crowd, ignore)
    return tables(ranked, matches, outside_sizes(overlaps.detection_areas), num_objects, max_detections, limits)


def _detection_limits(max_detections: int) -> list[int]:
    return sorted({1, 10, max_detections})


def _class_positions(classes: ClassTable) -> IntArray:
    """(C,) int64, the place of each label by source id, the order in which pycocotools sums."""
    return np.searchsorted(np.sort(classes.source_ids), classes.source_ids)


def _mean(table: FloatArray) -> float:
    """The mean of the cells that exist (the others are -1); NaN if there are none."""
    cells = table[table > -1]
    return float(np.mean(cells)) if len(cells) else float("nan")
