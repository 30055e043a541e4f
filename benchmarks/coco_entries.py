"""The evaluator's records as pycocotools takes them: two data sets of dictionaries, without a way through files."""

from __future__ import annotations

from typing import Any

from pycocotools import mask as mask_api

from detseg.metrics.records import DetectionRecords, MaskColumn, MaskRecords
from detseg.structures import ClassTable, FloatArray, IntArray

Entry = dict[str, Any]


def as_coco(records: DetectionRecords, classes: ClassTable) -> tuple[Entry, Entry]:
    """The objects and the detections, each as a ``COCO().dataset``; with masks where the records have some.

    Ids count from 1, as pycocotools takes an object with id 0 for unmatched.  The area of a detection is that of its
    box, or of its mask, as ``loadRes`` has it from a file of boxes or of masks.
    """
    images: list[Entry] = [{"id": image_id} for image_id in records.image_ids.tolist()]
    objects = _entries(records.object_image_ids, records.object_labels, records.object_boxes, classes)
    for entry, area, ignore in zip(objects, records.object_areas.tolist(), records.object_ignore.tolist(), strict=True):
        entry.update(area=area, iscrowd=int(ignore))
    detections = _entries(records.detection_image_ids, records.detection_labels, records.detection_boxes, classes)
    for entry, score in zip(detections, records.detection_scores.tolist(), strict=True):
        entry.update(area=entry["bbox"][2] * entry["bbox"][3], iscrowd=0, score=score)
    if isinstance(records, MaskRecords):
        sizes = records.image_hw.tolist()
        for image, (height, width) in zip(images, sizes, strict=True):
            image.update(height=height, width=width)
        size_of = dict(zip(records.image_ids.tolist(), sizes, strict=True))
        _add_masks(objects, records.object_masks, size_of)
        _add_masks(detections, records.detection_masks, size_of)
        for entry in detections:
            entry["area"] = int(mask_api.area(entry["segmentation"]))
    categories = [{"id": k, "name": name} for k, name in zip(classes.source_ids, classes.names, strict=True)]
    shared = {"images": images, "categories": categories}
    return {**shared, "annotations": objects}, {**shared, "annotations": detections}


def _entries(image_ids: IntArray, labels: IntArray, boxes: FloatArray, classes: ClassTable) -> list[Entry]:
    rows = zip(image_ids.tolist(), labels.tolist(), boxes.tolist(), strict=True)
    return [
        {
            "id": number,
            "image_id": image_id,
            "category_id": classes.source_ids[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
        }
        for number, (image_id, label, (x1, y1, x2, y2)) in enumerate(rows, start=1)
    ]


def _add_masks(entries: list[Entry], masks: MaskColumn, size_of: dict[int, list[int]]) -> None:
    for entry, counts in zip(entries, masks, strict=True):
        entry["segmentation"] = {"size": size_of[entry["image_id"]], "counts": counts}
