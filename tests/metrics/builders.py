"""For the tests of metrics: input from plain lists, random records that try every rule of COCO's matching, and
pycocotools on both."""

from __future__ import annotations

import contextlib
import copy
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.coco_records import as_coco
from detseg.metrics.records import DetectionRecords, MaskRecords
from detseg.structures import BoolArray, ClassTable, DetectorOutput, FloatArray, ImageAnnotations, InstanceMasks

Box = Sequence[float]  # x1, y1, x2, y2
Rows = list[tuple[Box, float, int]]  # box, score, label


def found(rows: Sequence[tuple[Box, float, int]], masks: BoolArray | None = None) -> DetectorOutput:
    """Detections from (box, score, label) rows and (N, H, W) masks."""
    return DetectorOutput(
        torch.tensor([box for box, _, _ in rows], dtype=torch.float64).reshape(-1, 4).float(),
        torch.tensor([score for _, score, _ in rows], dtype=torch.float32),
        torch.tensor([label for _, _, label in rows], dtype=torch.int64),
        masks=None if masks is None else InstanceMasks.from_dense(masks),
    )


def truth(
    rows: Sequence[tuple[Box, int]],
    difficult: Sequence[int] = (),
    crowd: Sequence[int] = (),
    masks: BoolArray | None = None,
) -> ImageAnnotations:
    """Annotations from (box, label) rows and (N, H, W) masks; ``difficult`` and ``crowd`` hold positions."""
    boxes = np.array([box for box, _ in rows], dtype=np.float64).reshape(-1, 4)
    num = len(rows)
    return ImageAnnotations(
        boxes=boxes,
        labels=np.array([label for _, label in rows], dtype=np.int64),
        crowd=np.isin(np.arange(num), list(crowd)),
        difficult=np.isin(np.arange(num), list(difficult)),
        truncated=np.zeros(num, dtype=np.bool_),
        area=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) if masks is None else masks.sum(axis=(1, 2)).astype(float),
        masks=None if masks is None else InstanceMasks.from_dense(masks),
    )


def rectangles(boxes: Sequence[Box], hw: tuple[int, int]) -> BoolArray:
    masks = np.zeros((len(boxes), *hw), dtype=np.bool_)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[int(y1) : int(y2), int(x1) : int(x2)] = True
    return masks


def images_of_coco(
    dataset: dict[str, Any], results: list[dict[str, Any]], masks: bool = False
) -> Iterator[tuple[int, DetectorOutput, ImageAnnotations]]:
    """Id, detections and objects of each image, in the order of the file; masks by pycocotools' ``annToRLE``."""
    labels = {category["id"]: label for label, category in enumerate(dataset["categories"])}
    index = coco_index(copy.deepcopy(dataset))
    for image in dataset["images"]:
        objects = [entry for entry in dataset["annotations"] if entry["image_id"] == image["id"]]
        rows = [entry for entry in results if entry["image_id"] == image["id"]]
        crowd = [k for k, entry in enumerate(objects) if entry["iscrowd"]]
        annotations = replace(
            truth([(xyxy(entry["bbox"]), labels[entry["category_id"]]) for entry in objects], crowd=crowd),
            area=np.array([entry["area"] for entry in objects], dtype=np.float64),
            masks=_masks(index, image, objects) if masks else None,
        )
        detections = found([(xyxy(row["bbox"]), row["score"], labels[row["category_id"]]) for row in rows])
        yield image["id"], replace(detections, masks=_masks(index, image, rows) if masks else None), annotations


def plain_cocoeval(dataset: dict[str, Any], results: list[dict[str, Any]], iou_type: str = "bbox") -> Any:
    """pycocotools as its manual says: load, evaluate, accumulate, summarize."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = coco_index(copy.deepcopy(dataset))
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(copy.deepcopy(results)), iouType=iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def as_stats(numbers: Iterable[float]) -> list[float]:
    """Our numbers the way pycocotools writes them: -1 for what is not defined."""
    return [-1.0 if math.isnan(number) else number for number in numbers]


def coco_classes(dataset: dict[str, Any]) -> ClassTable:
    categories = dataset["categories"]
    return ClassTable(tuple(entry["name"] for entry in categories), tuple(entry["id"] for entry in categories))


def xyxy(xywh: Sequence[float]) -> list[float]:
    x, y, width, height = xywh
    return [x, y, x + width, y + height]


def coco_index(dataset: dict[str, Any]) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = dataset
        index.createIndex()
    return index


def _masks(index: Any, image: dict[str, Any], entries: Sequence[dict[str, Any]]) -> InstanceMasks:
    counts = (index.annToRLE(entry)["counts"] for entry in entries)
    texts = tuple(text.encode() if isinstance(text, str) else text for text in counts)
    return InstanceMasks((image["height"], image["width"]), texts)


def referee(records: DetectionRecords, classes: ClassTable, max_detections: int) -> COCOeval:
    """pycocotools after ``accumulate``, with the limits 1, 10 and ``max_detections``; of masks where there are some."""
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


CASES = st.builds(
    Case,
    seed=st.integers(0, 2**30),
    num_images=st.sampled_from([1, 2, 3, 8]),
    num_objects=st.sampled_from([0, 1, 3, 10, 40]),
    num_detections=st.sampled_from([0, 1, 5, 30, 150]),
    num_classes=st.sampled_from([1, 2, 3, 5]),
    grid=st.sampled_from([0.0, 1.0, 4.0, 8.0]),
    num_scores=st.sampled_from([1, 2, 5, 1000]),
)


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
