"""Evaluator input from plain lists, and pycocotools called in the plain way, for the tests of metrics."""

from __future__ import annotations

import contextlib
import copy
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detseg.structures import BoolArray, ClassTable, DetectorOutput, ImageAnnotations, InstanceMasks

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
    """(N, H, W) masks that fill boxes of whole pixels."""
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
    """The class table in the order of the file."""
    categories = dataset["categories"]
    return ClassTable(tuple(entry["name"] for entry in categories), tuple(entry["id"] for entry in categories))


def xyxy(xywh: Sequence[float]) -> list[float]:
    """COCO's form of a box in ours."""
    x, y, width, height = xywh
    return [x, y, x + width, y + height]


def coco_index(dataset: dict[str, Any]) -> Any:
    """pycocotools' ``COCO`` of the contents of an annotation file."""
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = dataset
        index.createIndex()
    return index


def _masks(index: Any, image: dict[str, Any], entries: Sequence[dict[str, Any]]) -> InstanceMasks:
    counts = (index.annToRLE(entry)["counts"] for entry in entries)
    texts = tuple(text.encode() if isinstance(text, str) else text for text in counts)
    return InstanceMasks((image["height"], image["width"]), texts)
