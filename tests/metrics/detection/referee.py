"""pycocotools on the evaluator's records, and records that try every rule of COCO's matching."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as mask_api
from pycocotools.cocoeval import COCOeval

from benchmarks.coco_records import as_coco
from detseg.metrics.detection.records import DetectionRecords, MaskRecords
from detseg.structures import ClassTable, FloatArray
from tests.metrics.detection.builders import coco_index


def referee(records: DetectionRecords, classes: ClassTable, max_detections: int) -> COCOeval:
    """pycocotools after ``accumulate``, with the limits 1, 10 and ``max_detections``, ascending, on detections.

    Masks are compared where the records have some.
    """
    objects, detections = map(coco_index, as_coco(records, classes))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(objects, detections, iouType="segm" if isinstance(records, MaskRecords) else "bbox")
        evaluation.params.maxDets = sorted({1, 10, max_detections})
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def referee_tables(
    records: DetectionRecords, classes: ClassTable, max_detections: int
) -> tuple[FloatArray, FloatArray]:
    """pycocotools' tables; precision at ``max_detections``, recall at each limit."""
    evaluation = referee(records, classes, max_detections)
    column = evaluation.params.maxDets.index(max_detections)
    return evaluation.eval["precision"][..., column], evaluation.eval["recall"]


@dataclass(frozen=True)
class Case:
    """How random records are made."""

    seed: int
    num_images: int  # including some without anything
    num_objects: int  # in all images
    num_detections: int
    num_classes: int = 3  # of which the last two may lack objects or detections
    grid: float = 0.0  # boxes lie on multiples of it, so that IoUs tie and hit thresholds exactly; 0: anywhere
    num_scores: int = 5

    @property
    def classes(self) -> ClassTable:
        """Source ids neither sorted nor contiguous."""
        source_ids = np.random.default_rng(self.seed).permutation(np.arange(self.num_classes) * 3 + 1)
        return ClassTable(tuple(f"class {k}" for k in source_ids), tuple(source_ids.tolist()))

    def records(self) -> DetectionRecords:
        """Objects of all sizes, some the same; detections around them, the same, or elsewhere; in no order."""
        rng = np.random.default_rng(self.seed)
        image_ids = rng.choice(10**6, self.num_images, replace=False) - 1000
        sides = rng.choice([4.0, 32.0, 96.0, 200.0], self.num_objects)[:, None] * rng.uniform(0.5, 1.5, (1, 2))
        corners = rng.uniform(0, 100, (self.num_objects, 2)) * rng.choice([0.1, 1, 2])
        boxes = self._snapped(np.concatenate([corners, corners + sides], axis=1))
        boxes[rng.random(len(boxes)) < 0.1] = boxes[:1]
        object_images = rng.choice(image_ids, self.num_objects)
        labels = rng.integers(0, max(self.num_classes - 1, 1), self.num_objects)
        areas = np.where(rng.random(len(boxes)) < 0.3, rng.choice([32.0**2, 96.0**2, 0.0, 2e10]), 0.7 * _areas(boxes))

        like = rng.integers(0, max(self.num_objects, 1), self.num_detections)
        known = boxes[like] if len(boxes) else np.tile([0.0, 0, 8, 8], (self.num_detections, 1))
        spread = rng.choice([0.0, 0.02, 0.2, 3.0], (self.num_detections, 1))
        moved = known + rng.normal(0, 1, known.shape) * spread * np.tile(known[:, 2:] - known[:, :2], 2)
        # A few have no area, or less.
        found = self._snapped(np.where(rng.random((len(moved), 1)) < 0.02, moved[:, [2, 1, 0, 3]], moved))
        found_labels = (
            rng.choice([0, 0, self.num_classes - 1], self.num_detections) if self.num_classes > 1 else like * 0
        )
        where = rng.choice(image_ids, self.num_detections)
        if len(boxes):
            close = rng.random(self.num_detections) < 0.8
            where = np.where(close, object_images[like], where)
            found_labels = np.where(close, labels[like], found_labels)
        return DetectionRecords(
            image_ids=image_ids,
            detection_image_ids=where,
            detection_boxes=found,
            detection_scores=rng.integers(0, self.num_scores, self.num_detections) / max(self.num_scores - 1, 1),
            detection_labels=found_labels.astype(np.int64),
            object_image_ids=object_images,
            object_boxes=boxes,
            object_labels=labels,
            object_ignore=rng.random(self.num_objects) < 0.2,
            object_areas=areas,
        )

    def mask_records(self, hw: tuple[int, int] = (60, 50)) -> MaskRecords:
        """The same with the pixels of each box for its mask, some less a corner, some of nothing."""
        records = self.records()
        rng = np.random.default_rng(self.seed + 1)
        columns = [
            np.array([_mask(box, hw, rng.random()) for box in boxes], dtype=np.object_)
            for boxes in (records.detection_boxes, records.object_boxes)
        ]
        sizes = np.tile(np.array(hw, dtype=np.int64), (self.num_images, 1))
        return MaskRecords(**vars(records), image_hw=sizes, detection_masks=columns[0], object_masks=columns[1])

    def _snapped(self, boxes: FloatArray) -> FloatArray:
        snapped: FloatArray = np.round(boxes / self.grid) * self.grid if self.grid else boxes
        return snapped


def _areas(boxes: FloatArray) -> FloatArray:
    areas: FloatArray = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return areas


def _mask(box: FloatArray, hw: tuple[int, int], kind: float) -> bytes:
    x1, y1, x2, y2 = np.clip(np.round(box / 5), 0, [hw[1], hw[0], hw[1], hw[0]]).astype(int)
    mask = np.zeros(hw, dtype=np.uint8, order="F")
    mask[y1:y2, x1:x2] = 1
    if kind < 0.2:
        mask[(y1 + y2) // 2 :, x1 : (x1 + x2) // 2] = 0
    counts = mask_api.encode(mask)["counts"]
    assert isinstance(counts, bytes)
    return counts
