"""One evaluator for detectors and segmenters of any program: pycocotools for boxes, counted pixels for label maps."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.data.formats.coco_writer import coco_ground_truth, coco_results
from detseg.structures import IGNORE_LABEL, UInt8Array

Detect = Callable[[UInt8Array], tuple[Any, Any, Any]]
"""(H, W, 3) RGB → boxes (N, 4) xyxy in its pixels, labels (N,) from 0 on, scores (N,)."""
Segment = Callable[[UInt8Array], UInt8Array]
"""(H, W, 3) RGB → (H, W) labels."""


def box_scores(detect: Detect, dataset: DetectionDataset) -> dict[str, float]:
    """COCO's AP and AP50 of the detections in all images, by pycocotools."""
    found: list[dict[str, object]] = []
    for index in range(len(dataset)):
        columns = detect(dataset[index].image)
        found += coco_results(dataset.image_id(index), *columns, None, dataset.classes)
    if not found:
        return {"AP": 0.0, "AP50": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        truth = COCO()
        truth.dataset = coco_ground_truth(dataset)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"AP": float(evaluation.stats[0]), "AP50": float(evaluation.stats[1])}


def map_scores(segment: Segment, dataset: SegmentationDataset) -> dict[str, float]:
    """The mean IoU over the classes that occur, of all pixels of all images together; void ones do not count."""
    num = len(dataset.classes)
    pairs = np.zeros((num, num), dtype=np.int64)  # truth, found
    for index in range(len(dataset)):
        sample = dataset[index]
        assert sample.semantic is not None
        counts = sample.semantic != IGNORE_LABEL
        places = sample.semantic[counts].astype(np.int64) * num + segment(sample.image)[counts]
        pairs += np.bincount(places, minlength=num * num).reshape(num, num)
    union = pairs.sum(axis=0) + pairs.sum(axis=1) - pairs.diagonal()
    return {"mIoU": float((pairs.diagonal()[union > 0] / union[union > 0]).mean())}
