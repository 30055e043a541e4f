"""COCO's twelve numbers and the AP of each class, of boxes and of masks, computed by pycocotools, the referee.

pycocotools is handed the evaluator's arrays instead of files, with two things seen to.  Annotation ids begin at 1: to
pycocotools, an object with id 0 stays unmatched.  The summary is taken here from its precision and recall tables: its
own is right for 100 detections only (-1 else).  For 100 the numbers are those of its summary to the last bit.

What is small, medium or large goes by the area: of an object as its file states it; of a detection by its box where
boxes are compared, by its mask where masks are.  So does pycocotools' ``loadRes`` with a file of boxes and with one of
masks; with a file of both it takes the area of the box even where masks are compared.

Letters: T IoU thresholds, R recall levels, C classes, S size ranges, M limits on detections.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np

from detseg.metrics.mask_records import MaskColumn, MaskRecords
from detseg.metrics.records import DetectionRecords
from detseg.ops.masks import mask_areas
from detseg.structures import ClassTable, FloatArray, IntArray

_Entry = dict[str, Any]
_IouType = Literal["bbox", "segm"]

_SIZES = ("all", "small", "medium", "large")
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
    """Let pycocotools evaluate boxes.

    Args:
        records: ignored objects (crowd or difficult) are handed over as ``iscrowd``, areas as they are.
        classes: its source ids become the category ids, so that means are summed in pycocotools' order.
        max_detections: how many detections count, of one class in one image, best first; COCO's rule is 100.
    """
    images = [{"id": image_id} for image_id in records.image_ids.tolist()]
    objects, detections = _object_entries(records, classes), _detection_entries(records, classes)
    return _numbers(images, objects, detections, classes, max_detections, "bbox")


def coco_mask_numbers(records: MaskRecords, classes: ClassTable, max_detections: int) -> CocoNumbers:
    """Let pycocotools evaluate masks; arguments as for ``coco_numbers``."""
    sizes = dict(zip(records.image_ids.tolist(), records.image_hw.tolist(), strict=True))
    # Masks come as run lengths of the image's size, but pycocotools looks for the sizes here too.
    images = [{"id": image_id, "height": height, "width": width} for image_id, (height, width) in sizes.items()]
    objects, detections = _object_entries(records, classes), _detection_entries(records, classes)
    _add_masks(objects, records.object_masks, sizes)
    _add_masks(detections, records.detection_masks, sizes)
    for entry in detections:
        entry["area"] = int(mask_areas([entry["segmentation"]["counts"]])[0])
    return _numbers(images, objects, detections, classes, max_detections, "segm")


def _numbers(
    images: list[_Entry],
    objects: list[_Entry],
    detections: list[_Entry],
    classes: ClassTable,
    max_detections: int,
    iou_type: _IouType,
) -> CocoNumbers:
    categories = [{"id": k, "name": name} for k, name in zip(classes.source_ids, classes.names, strict=True)]
    truth = {"images": images, "categories": categories, "annotations": objects}
    found = {"images": images, "categories": categories, "annotations": detections}
    limits = sorted({1, 10, max_detections})
    precision, recall = _evaluate(truth, found, limits, iou_type)  # (T, R, C, S, M), (T, C, S, M)
    most = limits.index(max_detections)
    summary = {
        "AP": _mean(precision[:, :, :, 0, most]),
        "AP50": _mean(precision[_IOU_50, :, :, 0, most]),
        "AP75": _mean(precision[_IOU_75, :, :, 0, most]),
    }
    for size in (1, 2, 3):
        summary[f"AP_{_SIZES[size]}"] = _mean(precision[:, :, :, size, most])
    for limit in (1, 10, max_detections):
        summary[f"AR_{limit}"] = _mean(recall[:, :, 0, limits.index(limit)])
    for size in (1, 2, 3):
        summary[f"AR_{_SIZES[size]}"] = _mean(recall[:, :, size, most])

    positions = np.searchsorted(np.sort(classes.source_ids), classes.source_ids)  # pycocotools sorts the categories
    return CocoNumbers(
        summary=summary,
        class_ap=np.array([_mean(precision[:, :, k, 0, most]) for k in positions], dtype=np.float64),
        class_ap50=np.array([_mean(precision[_IOU_50, :, k, 0, most]) for k in positions], dtype=np.float64),
    )


def _evaluate(truth: _Entry, found: _Entry, limits: list[int], iou_type: _IouType) -> tuple[FloatArray, FloatArray]:
    """pycocotools' tables of precision (T, R, C, S, M) and recall (T, C, S, M)."""
    from pycocotools import coco, cocoeval

    indices = []
    with _print_silenced(coco), _print_silenced(cocoeval):
        for dataset in (truth, found):
            index = coco.COCO()
            index.dataset = dataset
            index.createIndex()
            indices.append(index)
        evaluation = cocoeval.COCOeval(*indices, iouType=iou_type)
        evaluation.params.maxDets = limits
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _object_entries(records: DetectionRecords, classes: ClassTable) -> list[_Entry]:
    entries = _entries(records.object_image_ids, records.object_labels, records.object_boxes, classes)
    for entry, area, ignore in zip(entries, records.object_areas.tolist(), records.object_ignore.tolist(), strict=True):
        entry.update(area=area, iscrowd=int(ignore))
    return entries


def _detection_entries(records: DetectionRecords, classes: ClassTable) -> list[_Entry]:
    entries = _entries(records.detection_image_ids, records.detection_labels, records.detection_boxes, classes)
    for entry, score in zip(entries, records.detection_scores.tolist(), strict=True):
        _, _, width, height = entry["bbox"]
        entry.update(area=width * height, iscrowd=0, score=score)
    return entries


def _add_masks(entries: list[_Entry], masks: MaskColumn, sizes: dict[int, list[int]]) -> None:
    for entry, counts in zip(entries, masks, strict=True):
        entry["segmentation"] = {"size": sizes[entry["image_id"]], "counts": counts}


def _entries(image_ids: IntArray, labels: IntArray, boxes: FloatArray, classes: ClassTable) -> list[_Entry]:
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()
    category_ids = [classes.source_ids[label] for label in labels.tolist()]
    rows = zip(image_ids.tolist(), category_ids, xywh, strict=True)
    return [
        {"id": n, "image_id": image_id, "category_id": category_id, "bbox": bbox}
        for n, (image_id, category_id, bbox) in enumerate(rows, start=1)
    ]


def _mean(table: FloatArray) -> float:
    """The mean of the cells that exist (pycocotools marks the others by -1); NaN if there are none."""
    cells = table[table > -1]
    return float(np.mean(cells)) if len(cells) else float("nan")


@contextmanager
def _print_silenced(module: ModuleType) -> Iterator[None]:
    """Give one module a ``print`` that says nothing, and leave the process's stdout to its other users."""
    vars(module)["print"] = lambda *_: None
    try:
        yield
    finally:
        vars(module).pop("print", None)
