"""The evaluator's records: made up, of the size of a whole validation set, and as pycocotools takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from detseg.metrics.records import DetectionRecords, MaskColumn, MaskRecords
from detseg.structures import ClassTable, FloatArray, IntArray

Content = dict[str, Any]

_WH = np.array([640, 480])


def as_coco(records: DetectionRecords, classes: ClassTable) -> tuple[Content, Content]:
    """The objects and the detections, each as a ``COCO().dataset``; with masks where the records have some.

    Ids count from 1, as pycocotools takes an object with id 0 for unmatched.  The area of a detection is that of its
    box, or of its mask, as ``loadRes`` has it from a file of boxes or of masks.
    """
    images: list[Content] = [{"id": image_id} for image_id in records.image_ids.tolist()]
    objects = _entries(records.object_image_ids, records.object_labels, records.object_boxes, classes)
    for entry, area, ignore in zip(objects, records.object_areas.tolist(), records.object_ignore.tolist(), strict=True):
        entry.update(area=area, iscrowd=int(ignore))
    detections = _entries(records.detection_image_ids, records.detection_labels, records.detection_boxes, classes)
    for entry, score in zip(detections, records.detection_scores.tolist(), strict=True):
        entry.update(area=entry["bbox"][2] * entry["bbox"][3], iscrowd=0, score=score)
    if isinstance(records, MaskRecords):
        size_of = dict(zip(records.image_ids.tolist(), records.image_hw.tolist(), strict=True))
        for image in images:
            image["height"], image["width"] = size_of[image["id"]]
        for entries, masks in ((objects, records.object_masks), (detections, records.detection_masks)):
            for entry, counts in zip(entries, masks, strict=True):
                entry["segmentation"] = {"size": size_of[entry["image_id"]], "counts": counts}
        for entry in detections:
            entry["area"] = int(mask_api.area(entry["segmentation"]))
    names = zip(classes.source_ids, classes.names, strict=True)
    shared = {"images": images, "categories": [{"id": k, "name": name} for k, name in names]}
    return {**shared, "annotations": objects}, {**shared, "annotations": detections}


def _entries(image_ids: IntArray, labels: IntArray, boxes: FloatArray, classes: ClassTable) -> list[Content]:
    rows = zip(image_ids.tolist(), labels.tolist(), boxes.tolist(), strict=True)
    return [
        {"id": n, "image_id": image_id, "category_id": classes.source_ids[k], "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for n, (image_id, k, (x1, y1, x2, y2)) in enumerate(rows, start=1)
    ]


def synthetic_records(
    num_images: int, num_objects: int, num_detections: int, num_classes: int, model: int = 0, spread: float = 1.0
) -> DetectionRecords:
    """Images that show up to three classes each, some of which are much more frequent than others.

    Sides are 8 to 400 pixels, 1.2 % of the objects are crowd regions.  35 % of the detections are near an object (off
    by 2, 6 or 15 % of its sides), closer ones with better scores; scores are in steps of 1/4096, so that many tie. The
    objects are always the same; another ``model`` finds others by chance; ``spread`` moves its boxes farther off.
    """
    rng = np.random.default_rng(0)
    frequencies = np.arange(1, num_classes + 1) ** -0.8
    frequencies /= frequencies.sum()
    shown = rng.choice(num_classes, (num_images, 3), p=frequencies)
    object_images = np.sort(rng.integers(0, num_images, num_objects))
    object_labels = shown[object_images, rng.integers(0, 3, num_objects)]
    side, aspect = np.exp(rng.uniform(np.log(8), np.log(400), num_objects)), np.exp(rng.normal(0, 0.4, num_objects))
    sides = np.stack([side * aspect, side / aspect], axis=1).clip(2, _WH)
    corners = rng.random((num_objects, 2)) * (_WH - sides)
    boxes = np.concatenate([corners, corners + sides], axis=1)

    ignore, fill = rng.random(num_objects) < 0.012, rng.uniform(0.4, 1, num_objects)

    rng = np.random.default_rng([1, model])
    like, near = rng.integers(0, num_objects, num_detections), rng.random(num_detections) < 0.35
    images = np.where(near, object_images[like], rng.integers(0, num_images, num_detections))
    guessed = rng.choice(num_classes, num_detections, p=frequencies)
    others = np.where(rng.random(num_detections) < 0.5, shown[images, like % 3], guessed)
    labels = np.where(near & (rng.random(num_detections) < 0.85), object_labels[like], others)
    errors = rng.normal(0, 1, (num_detections, 4)) * rng.choice([0.02, 0.06, 0.15], (num_detections, 1)) * spread
    found = np.where(near[:, None], boxes[like] + errors * np.tile(sides[like], 2), boxes[rng.permutation(like)])
    low = np.minimum(found[:, :2], found[:, 2:]).clip(0, _WH - 2)
    found = np.concatenate([low, np.maximum(np.maximum(found[:, :2], found[:, 2:]).clip(0, _WH), low + 1)], axis=1)
    good = 0.9 - np.abs(errors).max(axis=1, initial=0) + rng.normal(0, 0.15, num_detections)
    scores = np.where(near, good.clip(0.01, 0.99), rng.beta(1, 6, num_detections))
    by_image = np.argsort(images, kind="stable")
    return DetectionRecords(
        image_ids=np.arange(num_images),
        detection_image_ids=images[by_image],
        detection_boxes=found[by_image].astype(np.float32).astype(np.float64),
        detection_scores=(np.round(scores * 4096) / 4096)[by_image],
        detection_labels=labels[by_image],
        object_image_ids=object_images,
        object_boxes=boxes,
        object_labels=object_labels,
        object_ignore=ignore,
        object_areas=sides.prod(axis=1) * fill,
    )


def with_ellipses(records: DetectionRecords) -> MaskRecords:
    """The same with the ellipse in each box (24 corners) for its mask."""
    image_hw: IntArray = np.tile(_WH[::-1], (len(records.image_ids), 1))
    masks = _ellipses(records.detection_boxes), _ellipses(records.object_boxes)
    return MaskRecords(**vars(records), image_hw=image_hw, detection_masks=masks[0], object_masks=masks[1])


def _ellipses(xyxy: FloatArray) -> MaskColumn:
    turn, (width, height) = np.linspace(0, 2 * np.pi, 24, endpoint=False), _WH.tolist()
    centres, radii = (xyxy[:, :2] + xyxy[:, 2:]) / 2, (xyxy[:, 2:] - xyxy[:, :2]) / 2
    corners = centres[:, None] + radii[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    polygons = corners.reshape(len(xyxy), -1).tolist()
    return np.array([mask_api.frPyObjects([one], height, width)[0]["counts"] for one in polygons], dtype=object)
