"""Evaluator input from plain lists, and pycocotools called in the plain way, for the tests of metrics."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detseg.metrics.detection.evaluator import DetectionEvaluator
from detseg.metrics.detection.records import DetectionRecords
from detseg.structures import ClassTable, Detections, ImageAnnotations, InstanceMasks

Box = Sequence[float]  # x1, y1, x2, y2


def found(rows: Sequence[tuple[Box, float, int]]) -> Detections:
    """Detections from (box, score, label) rows."""
    return Detections(
        torch.tensor([box for box, _, _ in rows], dtype=torch.float64).reshape(-1, 4).float(),
        torch.tensor([score for _, score, _ in rows], dtype=torch.float32),
        torch.tensor([label for _, _, label in rows], dtype=torch.int64),
    )


def truth(
    rows: Sequence[tuple[Box, int]], difficult: Sequence[int] = (), crowd: Sequence[int] = ()
) -> ImageAnnotations:
    """Annotations from (box, label) rows; ``difficult`` and ``crowd`` hold positions."""
    boxes = np.array([box for box, _ in rows], dtype=np.float64).reshape(-1, 4)
    num = len(rows)
    return ImageAnnotations(
        boxes=boxes,
        labels=np.array([label for _, label in rows], dtype=np.int64),
        crowd=np.isin(np.arange(num), list(crowd)),
        difficult=np.isin(np.arange(num), list(difficult)),
        truncated=np.zeros(num, dtype=np.bool_),
        area=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
    )


def evaluator_of_coco(dataset: dict[str, Any], results: list[dict[str, Any]], **options: Any) -> DetectionEvaluator:
    """An evaluator filled image by image from the contents of a COCO annotation file and a COCO result file."""
    evaluator = DetectionEvaluator(coco_classes(dataset)[0], **options)
    for image in images_of_coco(dataset, results, evaluator.masks):
        evaluator.update(*image)
    return evaluator


def images_of_coco(
    dataset: dict[str, Any], results: list[dict[str, Any]], masks: bool = False
) -> Iterator[tuple[int, Detections, ImageAnnotations]]:
    """Id, detections and objects of each image, in the order of the file; masks by pycocotools' ``annToRLE``."""
    _, labels = coco_classes(dataset)
    index = _index(copy.deepcopy(dataset))
    for image in dataset["images"]:
        objects = [entry for entry in dataset["annotations"] if entry["image_id"] == image["id"]]
        rows = [entry for entry in results if entry["image_id"] == image["id"]]
        annotations = ImageAnnotations(
            boxes=np.array([xyxy(entry["bbox"]) for entry in objects], dtype=np.float64).reshape(-1, 4),
            labels=np.array([labels[entry["category_id"]] for entry in objects], dtype=np.int64),
            crowd=np.array([entry["iscrowd"] for entry in objects], dtype=np.bool_),
            difficult=np.zeros(len(objects), dtype=np.bool_),
            truncated=np.zeros(len(objects), dtype=np.bool_),
            area=np.array([entry["area"] for entry in objects], dtype=np.float64),
            masks=_masks(index, image, objects) if masks else None,
        )
        detections = found([(xyxy(row["bbox"]), row["score"], labels[row["category_id"]]) for row in rows])
        yield image["id"], replace(detections, masks=_masks(index, image, rows) if masks else None), annotations


def evaluator_of_coco_in_float64(dataset: dict[str, Any], results: list[dict[str, Any]]) -> DetectionEvaluator:
    """The same without rounding the detections to the float32 of ``Detections``.

    The published example has overlaps that are exactly a threshold, such as 0.8: there the rounding shows.
    """
    table, labels = coco_classes(dataset)
    evaluator = DetectionEvaluator(table)
    objects = dataset["annotations"]
    records = DetectionRecords(
        image_ids=np.array([image["id"] for image in dataset["images"]], dtype=np.int64),
        detection_image_ids=np.array([row["image_id"] for row in results], dtype=np.int64),
        detection_boxes=np.array([xyxy(row["bbox"]) for row in results], dtype=np.float64),
        detection_scores=np.array([row["score"] for row in results], dtype=np.float64),
        detection_labels=np.array([labels[row["category_id"]] for row in results], dtype=np.int64),
        object_image_ids=np.array([entry["image_id"] for entry in objects], dtype=np.int64),
        object_boxes=np.array([xyxy(entry["bbox"]) for entry in objects], dtype=np.float64),
        object_labels=np.array([labels[entry["category_id"]] for entry in objects], dtype=np.int64),
        object_ignore=np.array([entry["iscrowd"] for entry in objects], dtype=np.bool_),
        object_areas=np.array([entry["area"] for entry in objects], dtype=np.float64),
    )
    evaluator.merge(vars(records))
    return evaluator


def plain_cocoeval(
    dataset: dict[str, Any],
    results: list[dict[str, Any]],
    iou_type: str = "bbox",
    limits: Sequence[int] = (1, 10, 100),
) -> Any:
    """pycocotools as its manual says: load, evaluate, accumulate, summarize."""
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = _index(dataset)
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(results), iouType=iou_type)
        evaluation.params.maxDets = list(limits)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def stats(evaluator: DetectionEvaluator) -> NDArray[np.float64]:
    """Our twelve numbers the way pycocotools writes them: -1 for what is not defined."""
    return as_stats(evaluator.compute().coco.values())


def as_stats(numbers: Iterable[float]) -> NDArray[np.float64]:
    """Our numbers the way pycocotools writes them: -1 for what is not defined."""
    values = np.array(list(numbers))
    return np.where(np.isnan(values), -1.0, values)


def coco_classes(dataset: dict[str, Any]) -> tuple[ClassTable, dict[int, int]]:
    """The class table in the order of the file, and the label of each category id."""
    ids = tuple(category["id"] for category in dataset["categories"])
    names = tuple(category["name"] for category in dataset["categories"])
    return ClassTable(names, ids), {source_id: label for label, source_id in enumerate(ids)}


def xyxy(xywh: Sequence[float]) -> list[float]:
    """COCO's form of a box in ours."""
    x, y, width, height = xywh
    return [x, y, x + width, y + height]


def _index(dataset: dict[str, Any]) -> Any:
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = dataset
        index.createIndex()
    return index


def _masks(index: Any, image: dict[str, Any], entries: Sequence[dict[str, Any]]) -> InstanceMasks:
    counts = (index.annToRLE(entry)["counts"] for entry in entries)
    texts = tuple(text.encode() if isinstance(text, str) else text for text in counts)
    return InstanceMasks((image["height"], image["width"]), texts)
