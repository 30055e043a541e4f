"""What label maps are wrong about, beyond the confusion of classes: where, how small, how sure, and which labels are
probably wrong themselves.

Letters: C classes, H and W pixels of an image, T thresholds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from detseg.evaluation.report.calibration import Calibration
from detseg.evaluation.report.outcomes import Curve
from detseg.metrics.segmentation import band_width, bands
from detseg.ops.tensors import logits_at_original_size
from detseg.structures import IGNORE_LABEL, Batch, BoolArray, FloatArray, IntArray, UInt8Array

REGION_SIZES = ("0 to 64 px", "64 to 256 px", "256 to 1024 px", "1024 to 4096 px", "from 4096 px")
_REGION_ENDS = (64, 256, 1024, 4096)
_STEPS, _BINS = 100, 10
_SURE = 0.8  # probability from which a wrong pixel makes the label suspect
_SMALLEST_SUSPECT = 16  # pixels
_OF_A_CLASS = 3  # suspects of an image and label that are kept


@dataclass(frozen=True)
class DoubtedRegion:
    """Pixels in which a model that is sure of itself finds another class than the label says.

    Attributes:
        doubt: the sum over its pixels of the probability of what is found, less that of the label.
        image: position of the image in the data set.
        box: x1, y1, x2, y2, half-open.
        area: pixels.
        label, found: classes.
    """

    doubt: float
    image: int
    box: tuple[int, int, int, int]
    area: int
    label: int
    found: int


class MapStudy:
    """Collects logits and true maps, image by image; memory grows by a few numbers an image.

    Args:
        num_classes: C.
        boundary_width: of the band along the true outlines, as a fraction of the image's diagonal.

    Attributes:
        pixels, wrong: pixels that count, and wrong ones: [inside, along the true outlines].
        regions, regions_found: (C, 5) connected regions of the truth by ``REGION_SIZES``, and those of which half or
            more is found.
        doubted: regions whose label is suspect, of each label the three largest doubts of an image.
    """

    def __init__(self, num_classes: int, boundary_width: float) -> None:
        self.boundary_width = boundary_width
        self.num_images = 0
        self.pixels, self.wrong = np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64)
        self.regions, self.regions_found = (np.zeros((num_classes, len(REGION_SIZES)), dtype=np.int64) for _ in "12")
        self.doubted: list[DoubtedRegion] = []
        self._by_probability = np.zeros((num_classes, 2, _STEPS + 1), dtype=np.int64)  # of others, of the class
        self._bins = np.zeros((3, _BINS))  # pixels, sums of confidence, right ones

    def update_batch(self, batch: Batch, logits: Tensor) -> None:
        """Add the images of a batch; arguments as of the evaluator."""
        for of_image, letterbox, truth in zip(logits, batch.letterboxes, batch.semantic_truths, strict=True):
            probabilities = logits_at_original_size(of_image, letterbox).softmax(dim=0).cpu().numpy()
            self.update(probabilities, truth)

    def update(self, probabilities: Any, truth: UInt8Array) -> None:
        """Add an image: (C, H, W) float32 probabilities, (H, W) labels or 255."""
        valid = truth != IGNORE_LABEL
        found = probabilities.argmax(axis=0).astype(np.uint8)
        confidence = probabilities.max(axis=0)
        for label, of_class in enumerate(probabilities):
            places = (of_class[valid] * _STEPS).astype(np.int64) + (truth[valid] == label) * (_STEPS + 1)
            self._by_probability[label] += np.bincount(places, minlength=2 * (_STEPS + 1)).reshape(2, -1)
        right, sure = (found == truth)[valid], confidence[valid].astype(np.float64)
        bins = np.minimum((sure * _BINS).astype(np.int64), _BINS - 1)
        for row, weights in enumerate((np.ones(len(sure)), sure, right)):
            self._bins[row] += np.bincount(bins, weights, _BINS)
        hw = (truth.shape[0], truth.shape[1])
        band = bands(torch.from_numpy(truth.copy()), band_width(hw, self.boundary_width)).numpy()
        inside, along = valid & (band == IGNORE_LABEL), valid & (band != IGNORE_LABEL)
        for place, where in enumerate((inside, along)):
            self.pixels[place] += np.count_nonzero(where)
            self.wrong[place] += np.count_nonzero(where & (found != truth))
        self._count_regions(truth, found)
        self._doubt(probabilities, confidence, found, truth, inside)
        self.num_images += 1

    def _count_regions(self, truth: UInt8Array, found: UInt8Array) -> None:
        for label in np.unique(truth[truth != IGNORE_LABEL]).tolist():
            num, regions, stats, _ = cv2.connectedComponentsWithStats((truth == label).astype(np.uint8), connectivity=8)
            areas = stats[1:, cv2.CC_STAT_AREA]
            covered = np.bincount(regions[found == label], minlength=num)[1:]
            sizes = np.searchsorted(_REGION_ENDS, areas, side="right")
            np.add.at(self.regions[label], sizes, 1)
            np.add.at(self.regions_found[label], sizes[covered * 2 >= areas], 1)

    def _doubt(
        self, probabilities: Any, confidence: Any, found: UInt8Array, truth: UInt8Array, inside: BoolArray
    ) -> None:
        wrong = inside & (found != truth) & (confidence >= _SURE)
        of_label = np.take_along_axis(probabilities, np.where(inside, truth, 0)[None].astype(np.int64), axis=0)[0]
        pairs = truth.astype(np.int64) * 256 + found
        regions = list[DoubtedRegion]()
        for pair in np.unique(pairs[wrong]).tolist():
            num, numbers, stats, _ = cv2.connectedComponentsWithStats((wrong & (pairs == pair)).astype(np.uint8))
            doubts = np.bincount(numbers.ravel(), (confidence - of_label).ravel(), num)
            for row in range(1, num):
                x, y, w, h, area = (int(value) for value in stats[row])
                if area >= _SMALLEST_SUSPECT:
                    box = (x, y, x + w, y + h)
                    regions.append(DoubtedRegion(float(doubts[row]), self.num_images, box, area, *divmod(pair, 256)))
        kept = Counter[int]()
        for region in sorted(regions, key=lambda region: -region.doubt):
            kept[region.label] += 1
            if kept[region.label] <= _OF_A_CLASS:
                self.doubted.append(region)

    def curves(self) -> list[Curve]:
        """Of each class alone, its pixels kept from a probability on; the objects to find are its pixels."""
        thresholds: FloatArray = np.arange(_STEPS + 1) / _STEPS
        found = []
        for others, own in self._by_probability:
            right, wrong = (np.cumsum(counts[::-1])[::-1] for counts in (own, others))
            found.append(Curve(thresholds, right + wrong, right, int(own.sum())))
        return found

    def calibration(self) -> Calibration:
        """Of the probability of the class that each pixel is taken for."""
        return Calibration.of_sums(self._bins[0].astype(np.int64), self._bins[1], self._bins[2])


def image_ious(confusions: IntArray) -> FloatArray:
    """(I, C, C) confusions of images → (I,) mean IoU of the classes in each; NaN where nothing counts."""
    right = np.diagonal(confusions, axis1=1, axis2=2)
    union = confusions.sum(axis=1) + confusions.sum(axis=2) - right
    ious = np.where(union > 0, right / np.maximum(union, 1), 0.0).sum(axis=1)
    num = (union > 0).sum(axis=1)
    found: FloatArray = np.where(num > 0, ious / np.maximum(num, 1), np.nan)
    return found


def fixed_confusions(confusion: IntArray) -> list[tuple[int, int, float]]:
    """What mIoU would gain if the pixels of a class that are taken for another were right: true class, found class and
    gain, the largest first."""
    gains, now = [], _mean_iou(confusion)
    for true, found in np.argwhere(confusion * (1 - np.eye(len(confusion), dtype=np.int64))).tolist():
        fixed = confusion.copy()
        fixed[true, true] += fixed[true, found]
        fixed[true, found] = 0
        gains.append((true, found, _mean_iou(fixed) - now))
    return sorted(gains, key=lambda row: -row[2])


def _mean_iou(confusion: IntArray) -> float:
    right = np.diagonal(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - right
    return float((right[union > 0] / union[union > 0]).mean())
