"""Our metrics beside pycocotools and torchmetrics; what both sides find is compared."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from benchmarks.coco_records import as_coco, synthetic_records, with_ellipses
from benchmarks.comparison import Row, in_turn, timed
from detseg.metrics.coco import coco_numbers, coco_tables
from detseg.metrics.detection import DetectionEvaluator
from detseg.metrics.records import DetectionRecords, MaskRecords
from detseg.metrics.segmentation import check_labels, pair_counts
from detseg.structures import IGNORE_LABEL, ClassTable, UInt8Array

CLASSES = ClassTable(tuple(f"class {k}" for k in range(80)))
NUM_CLASSES = 21  # of the confusion matrix


def coco_evaluation(blocks: int = 2, small: bool = False) -> Iterator[Row]:
    """Boxes of 5000 images, all that our evaluator computes of them, and masks of 250 images."""
    records, work = _validation_set(25 if small else 5000)
    peer, peer_name = Peer(records), f"pycocotools {version('pycocotools')}"
    everything = DetectionEvaluator(CLASSES)
    everything.merge(records.to_state())
    numbers = partial(coco_numbers, records, CLASSES, 100)
    compute = timed(everything.compute)
    numbers()
    compute()
    all_of_ours: list[float] = []

    def theirs() -> float:  # its minute is measured once for both rows
        all_of_ours.append(compute())
        return timed(peer.evaluate)()

    times = in_turn(timed(numbers), theirs, blocks, warm_up=0)
    peer.check(records)
    equal = "tables and numbers equal to the last bit"
    note = f"{equal}; its createIndex before that, {peer.seconds_of_index:.2g} s, is not counted"
    yield Row("COCO evaluation, boxes", work, peer_name, *times, "s", 8.0, note)
    note = "ours with VOC AP, best F1 and diagnosis on top"
    yield Row("DetectionEvaluator.compute", work, peer_name, tuple(all_of_ours), times[1], "s", note=note)

    boxes, work = _validation_set(25 if small else 250)
    masks = with_ellipses(boxes)
    peer = Peer(masks)
    times = in_turn(timed(partial(coco_numbers, masks, CLASSES, 100, "segm")), timed(peer.evaluate), blocks + 1)
    peer.check(masks)
    yield Row("COCO evaluation, masks", work, peer_name, *times, "s", note=equal)


def _validation_set(num_images: int) -> tuple[DetectionRecords, str]:
    """Records with as many objects and detections an image as of COCO val2017, and that in words."""
    num_objects, num_detections = num_images * 36 // 5, num_images * 100
    words = f"{num_images} images, {num_objects} objects, {num_detections // 1000} k detections, {len(CLASSES)} classes"
    return synthetic_records(num_images, num_objects, num_detections, len(CLASSES)), words


class Peer:
    """pycocotools with the records loaded, as it has them after reading two files."""

    def __init__(self, records: DetectionRecords) -> None:
        self._iou_type: Any = "segm" if isinstance(records, MaskRecords) else "bbox"
        self._indices = [COCO(), COCO()]
        for index, content in zip(self._indices, as_coco(records, CLASSES), strict=True):
            index.dataset = content
        with contextlib.redirect_stdout(io.StringIO()):
            self.seconds_of_index = timed(lambda: [index.createIndex() for index in self._indices])()

    def evaluate(self) -> None:
        """Everything up to its summary."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._evaluation = COCOeval(*self._indices, iouType=self._iou_type)
            self._evaluation.evaluate()
            self._evaluation.accumulate()
            self._evaluation.summarize()

    def check(self, records: DetectionRecords) -> None:
        """Compare our numbers and tables with what it found last, to the last bit."""
        summary = coco_numbers(records, CLASSES, 100, self._iou_type).summary
        precision, recall = coco_tables(records, CLASSES, 100, self._iou_type)
        np.testing.assert_array_equal(list(summary.values()), self._evaluation.stats)
        np.testing.assert_array_equal(precision, self._evaluation.eval["precision"][..., 2])
        np.testing.assert_array_equal(recall, self._evaluation.eval["recall"])


def confusion_matrix(blocks: int = 5, small: bool = False) -> Iterator[Row]:
    """Labels of both types; maps of regions, with and without torchmetrics' check, and of noise without it."""
    torch.set_num_threads(2)
    cv2.setNumThreads(2)
    num_images, side = (2, 96) if small else (8, 512)
    for name, maps in (("regions", _regions(num_images, side)), ("noise", _noise(num_images, side))):
        for dtype, checked in itertools.product((torch.uint8, torch.int64), (True, False)):
            if checked and name == "noise":
                continue
            predicted, truth = (torch.from_numpy(labels).to(dtype) for labels in maps)
            counts = torch.zeros(256, 256, dtype=torch.int64)
            theirs = MulticlassConfusionMatrix(NUM_CLASSES, ignore_index=IGNORE_LABEL, validate_args=checked)
            updates = (partial(_count, counts), theirs.update)
            ours, other = (timed(partial(_twice, update, predicted, truth), 2, 1e3) for update in updates)
            times = in_turn(ours, other, blocks)
            assert torch.equal(counts[:NUM_CLASSES, :NUM_CLASSES], theirs.confmat)  # both saw as many updates
            kind = f"{name}, {str(dtype).removeprefix('torch.')}"
            work = f"{num_images} × {side} × {side}, {NUM_CLASSES} classes, {kind}"
            peer = f"torchmetrics {version('torchmetrics')}{'' if checked else ', validate_args=False'}"
            yield Row("confusion matrix, update", work, peer, *times, "ms", 2.0, "2 threads; counts compared")


def _count(sums: Tensor, predicted: Tensor, truth: Tensor) -> None:
    counts = pair_counts(predicted, truth)
    check_labels(counts, NUM_CLASSES)
    sums += counts


def _twice(update: Callable[[Tensor, Tensor], object], predicted: Tensor, truth: Tensor) -> None:
    update(predicted, truth)
    update(predicted, truth)


def _regions(num_images: int, side: int) -> tuple[UInt8Array, UInt8Array]:
    """Predicted and true: patches of about 40 pixels, their predictions shifted and partly of other classes."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, NUM_CLASSES, (num_images, 12, 12), dtype=np.uint8)
    truth = np.stack([cv2.resize(grid, (side, side), interpolation=cv2.INTER_NEAREST) for grid in coarse])
    predicted = np.where(rng.random((num_images, side, 1)) < 0.2, truth[::-1], np.roll(truth, 5, axis=2))
    truth[:, :, ::40] = IGNORE_LABEL
    return predicted, truth


def _noise(num_images: int, side: int) -> tuple[UInt8Array, UInt8Array]:
    """Predicted and true: every pixel on its own, 3 % ignored."""
    rng = np.random.default_rng(0)
    predicted, truth = rng.integers(0, NUM_CLASSES, (2, num_images, side, side), dtype=np.uint8)
    truth[rng.random(truth.shape) < 0.03] = IGNORE_LABEL
    return predicted, truth
