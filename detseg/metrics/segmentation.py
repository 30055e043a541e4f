"""The evaluator of semantic segmentation: mIoU and boundary IoU at the size of the original images.

Pixels are summed over the whole data set (VOC, Cityscapes).  It keeps integers only, so any number of processes
together find the same numbers.

Boundary IoU (Cheng et al. 2021, "Boundary IoU", section 4) is the IoU of the bands of truth and prediction.  The band
of a mask holds its pixels within d of its contour: the mask without its erosion by d steps of a 3 × 3 square, no mask
outside the image.  The paper measures instances; here intersections and unions of a class are summed over all images.

Letters: B images of a batch, C classes, h and w pixels of the network input, H and W pixels of an original image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from detseg.errors import DetsegError
from detseg.metrics.interface import class_weights_of
from detseg.metrics.segmentation_result import SegmentationResult, segmentation_result
from detseg.ops.tensors import label_map
from detseg.structures import IGNORE_LABEL, MAX_CLASSES, Batch, ClassTable, IntArray

LabelMap = Tensor | npt.NDArray[np.uint8] | IntArray

_NUM_LABELS = 256
_MAX_PIXELS = 1 << 24  # OpenCV returns counts as float32, which holds every integer up to here


class SegmentationEvaluator:
    """Collects predicted and true label maps; memory does not grow with the number of images.

    Args:
        classes: of the ground truth and the predictions.
        boundary_width: width of the band that boundary IoU compares, as a fraction of the image's diagonal.
        class_weights: by name, 1 for the classes that it leaves out, for a weighted mean of IoU; None: there is none.

    Raises:
        ValueError: a number is out of its range, or there are no classes or more than 255; a ConfigError if a weight is
            for a class that there is not.
    """

    def __init__(
        self, classes: ClassTable, boundary_width: float = 0.02, class_weights: Mapping[str, float] | None = None
    ) -> None:
        if not 0 < boundary_width <= 0.5:
            raise ValueError(f"boundary_width: expected a number above 0 and up to 0.5, got {boundary_width}")
        if not 1 <= len(classes) <= MAX_CLASSES:
            raise ValueError(f"classes: expected 1 to {MAX_CLASSES}, got {len(classes)}")
        self.classes = classes
        self.boundary_width = boundary_width
        self.class_weights = class_weights_of(classes.names, class_weights)
        self._keeps_images = False
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._pair_counts = torch.zeros(_NUM_LABELS, _NUM_LABELS, dtype=torch.int64)
        self._band_overlaps = torch.zeros(2, len(self.classes), dtype=torch.int64)
        self._num_images = 0
        self._seen: set[int] = set()
        self._images: list[tuple[Tensor, Tensor]] = []

    def keep_images(self) -> None:
        """From now on keep the counts of each image, too, for ``image_counts``: 4 bytes for each pair of classes."""
        self._keeps_images = True

    @property
    def image_counts(self) -> tuple[IntArray, IntArray]:
        """Of the images that were kept: (I, C, C) confusion and (I, 2, C) overlaps of bands, as ``segmentation_result``
        has them in sum."""
        num = len(self.classes)
        confusions = np.array([confusion.cpu().numpy() for confusion, _ in self._images], dtype=np.int64)
        bands = np.array([overlaps.cpu().numpy() for _, overlaps in self._images], dtype=np.int64)
        return confusions.reshape(-1, num, num), bands.reshape(-1, 2, num)

    def update_batch(self, batch: Batch, logits: Tensor) -> None:
        """Add the images of an evaluation batch with ``semantic_truths``, except those that were added before.

        Args:
            batch: B images.
            logits: (B, C, h, w) float32, in pixels of ``batch.images``, on any device.

        Raises:
            ValueError: the batch has no truth, or the logits have the wrong shape.
            DetsegError: the logits are not finite.
        """
        expected = (len(batch.semantic_truths), len(self.classes))
        if tuple(logits.shape[:2]) != expected:
            what = f"{expected[0]} images with a semantic truth and {expected[1]} classes"
            raise ValueError(f"logits: expected shape (B, C, h, w) of {what}, got {tuple(logits.shape)}")
        if not len(logits):
            return
        extremes = torch.stack(torch.aminmax(logits.detach()))  # both NaN if there is one anywhere
        if not torch.isfinite(extremes).all():
            raise DetsegError(
                "the model's logits are NaN or infinite, so there is nothing to score; has training diverged? Take an "
                "earlier checkpoint, or train again with a lower optimizer.lr"
            )
        rows = zip(batch.image_ids, logits.detach(), batch.letterboxes, batch.semantic_truths, strict=True)
        for image_id, scores, letterbox, truth in rows:
            if image_id not in self._seen:
                self.update(label_map(scores, letterbox), truth)
                self._seen.add(image_id)

    def update(self, predicted: LabelMap, truth: LabelMap) -> None:
        """Add one image.

        Args:
            predicted: (H, W) uint8 or int64, the label of every pixel, ignored ones too.
            truth: (H, W) uint8 or int64, labels, or 255 where a pixel counts nowhere.

        Raises:
            ValueError: the maps differ in size, are no label maps, or hold labels outside the class table (on a GPU
                ``compute`` raises that).
        """
        found, true = _as_tensor(predicted), _as_tensor(truth)
        if found.ndim != 2 or not found.numel():
            raise ValueError(f"predicted: expected a label map of shape (H, W), got shape {tuple(found.shape)}")
        true = true.to(found.device, non_blocking=True)
        counts = pair_counts(found, true)
        if counts.device.type == "cpu":  # reading counts would make the host wait for a GPU
            check_labels(counts, len(self.classes))
        self._pair_counts = self._pair_counts.to(counts.device) + counts  # in place would fail after inference mode
        width = band_width((found.shape[0], found.shape[1]), self.boundary_width)
        overlaps = band_overlaps(found.to(torch.uint8), true.to(torch.uint8), len(self.classes), width)
        self._band_overlaps = self._band_overlaps.to(found.device) + overlaps
        self._num_images += 1
        if self._keeps_images:
            num = len(self.classes)
            self._images.append((counts[:num, :num].to(torch.int32), overlaps))

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Everything as int64 arrays by name, for another process to ``merge``: ``pair_counts`` (256, 256),
        ``band_overlaps`` (2, C), ``num_images`` (), and ``image_ids`` (N,) of those that ``update_batch`` added."""
        return {
            "pair_counts": self._pair_counts.cpu().numpy().copy(),
            "band_overlaps": self._band_overlaps.cpu().numpy().copy(),
            "num_images": np.array(self._num_images, dtype=np.int64),
            "image_ids": np.array(sorted(self._seen), dtype=np.int64),
        }

    def merge(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Add another evaluator's ``state``; the numbers do not depend on the order. ValueError: both have seen an
        image: sums cannot be taken apart again."""
        twice = self._seen.intersection(state["image_ids"].tolist())
        if twice:
            which = f"image {min(twice)} and {len(twice) - 1} others are in both evaluators and would count twice"
            raise ValueError(f"{which}: show every image to one process, as eval_loader does")
        self._pair_counts = self._pair_counts.cpu() + torch.from_numpy(state["pair_counts"])
        self._band_overlaps = self._band_overlaps.cpu() + torch.from_numpy(state["band_overlaps"])
        self._num_images += int(state["num_images"])
        self._seen.update(state["image_ids"].tolist())

    def compute(self) -> SegmentationResult:
        """Score everything collected so far; the state stays.  Raises ValueError where a label outside the class table
        came from a GPU."""
        counts, num_classes = self._pair_counts.cpu(), len(self.classes)
        check_labels(counts, num_classes)
        return segmentation_result(
            names=self.classes.names,
            confusion=counts[:num_classes, :num_classes].numpy(),
            band_overlaps=self._band_overlaps.cpu().numpy(),
            num_images=self._num_images,
            num_ignored=int(counts[IGNORE_LABEL].sum()),
            class_weights=self.class_weights,
        )


def _as_tensor(labels: LabelMap) -> Tensor:
    # Torch warns of read-only arrays, into which images are read.
    return labels if isinstance(labels, Tensor) else torch.from_numpy(np.require(labels, requirements=["C", "W"]))


def pair_counts(predicted: Tensor, truth: Tensor) -> Tensor:
    """How many pixels have each pair of labels; on a GPU the host does not wait.

    Args:
        predicted, truth: uint8 or int64 of one shape, on one device; other shapes and types raise ValueError.

    Returns:
        (256, 256) int64, rows truth, columns prediction, on the same device.  If a label is outside 0 to 255 there is
        a prediction of 255, for ``check_labels`` to find.
    """
    if predicted.shape != truth.shape:
        shapes = f"{tuple(predicted.shape)} predicted and {tuple(truth.shape)} true"
        raise ValueError(f"label maps: expected one shape, got {shapes}")
    for name, labels in (("predicted", predicted), ("truth", truth)):
        if labels.dtype not in (torch.uint8, torch.int64):
            raise ValueError(f"{name}: expected labels as uint8 or int64, got {labels.dtype}")
    is_quick = predicted.device.type == "cpu" and 0 < predicted.numel() <= _MAX_PIXELS
    count = count_with_opencv if is_quick else count_by_scatter
    counts = count(predicted.to(torch.uint8), truth.to(torch.uint8))
    for labels in (predicted, truth):
        if labels.dtype == torch.int64 and labels.numel():
            lowest, highest = torch.aminmax(labels)
            counts[0, IGNORE_LABEL] += (lowest < 0) | (highest > IGNORE_LABEL)
    return counts


def check_labels(counts: Tensor, num_classes: int) -> None:
    """Raise ValueError if ``pair_counts`` has labels beyond 0 to ``num_classes - 1``, and 255 in the truth."""
    expected = f"expected labels 0 to {num_classes - 1} of {num_classes} classes"
    predicted, truth = counts.sum(dim=0)[num_classes:], counts.sum(dim=1)[num_classes:IGNORE_LABEL]
    if predicted.any():
        label = num_classes + int(predicted.nonzero()[-1])
        outside = ", or a label outside 0 to 255 in one of the maps (pixels to ignore are 255 in the truth, not -1)"
        raise ValueError(f"predicted: {expected}, got {label}{outside if label == IGNORE_LABEL else ''}")
    if truth.any():
        label = num_classes + int(truth.nonzero()[-1])
        raise ValueError(f"truth: {expected}, or {IGNORE_LABEL} to ignore, got {label}; masks of another class table?")


def count_with_opencv(predicted: Tensor, truth: Tensor) -> Tensor:
    """``pair_counts`` of 1 to 2^24 uint8 labels on a CPU, several times as fast as ``bincount``."""
    maps = [truth.numpy().ravel(), predicted.numpy().ravel()]
    counts = cv2.calcHist(maps, [0, 1], None, [_NUM_LABELS] * 2, [0, _NUM_LABELS] * 2)
    return torch.from_numpy(counts.astype(np.int64))


def count_by_scatter(predicted: Tensor, truth: Tensor) -> Tensor:
    """``pair_counts`` of uint8 labels on any device; ``torch.bincount`` would wait for a GPU to learn its size."""
    pairs = truth.flatten().to(torch.int64) * _NUM_LABELS + predicted.flatten()
    counts = torch.zeros(_NUM_LABELS**2, dtype=torch.int64, device=truth.device)
    one = torch.ones(1, dtype=torch.int64, device=truth.device)
    return counts.scatter_add_(0, pairs, one.expand(len(pairs))).view(_NUM_LABELS, _NUM_LABELS)


def band_width(hw: tuple[int, int], diagonal_fraction: float) -> int:
    """d in pixels: ``diagonal_fraction`` of the image's diagonal, rounded, at least 1."""
    return max(round(diagonal_fraction * math.hypot(*hw)), 1)


def bands(labels: Tensor, width: int) -> Tensor:
    """(H, W) uint8 labels → the same with ``IGNORE_LABEL`` wherever a pixel is not in the band of its class; ``width``:
    d, 1 or more, pixels.

    d steps of a 3 × 3 square are one square of side 2 d + 1.  A pixel is in the band of its class exactly when the
    square around it holds another label or reaches outside the image, that is when the lowest and the highest label in
    it differ.  So one minimum and one maximum over squares give the bands of all classes at once, on any device.
    """
    side = 2 * width + 1
    # Outside the image is the highest label, which no class has and which lowers no minimum.
    padded = F.pad(labels, (width, width, width, width), value=IGNORE_LABEL)
    highest, lowest = (
        _over_rows(_over_rows(padded, side, reduce).T.contiguous(), side, reduce).T
        for reduce in (torch.maximum, torch.minimum)
    )
    return labels.masked_fill(highest == lowest, IGNORE_LABEL)


def band_overlaps(predicted: Tensor, truth: Tensor, num_classes: int, width: int) -> Tensor:
    """(H, W) uint8 labels of prediction and truth → (2, C) int64, pixels in the intersection and in the union of their
    bands of ``width`` pixels.  Pixels whose truth is ``IGNORE_LABEL`` are taken out of both maps first."""
    predicted_bands = bands(predicted.masked_fill(truth == IGNORE_LABEL, IGNORE_LABEL), width)
    counts = pair_counts(predicted_bands, bands(truth, width))
    intersections = counts.diagonal()
    unions = counts.sum(dim=0) + counts.sum(dim=1) - intersections
    return torch.stack([intersections, unions])[:, :num_classes]


def _over_rows(labels: Tensor, side: int, reduce: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(H, W) → (H - side + 1, W): ``side`` rows reduced to one, in log2(side) passes."""
    num = 1  # rows that each row stands for
    while num < side:
        step = min(num, side - num)
        labels = reduce(labels[:-step], labels[step:])
        num += step
    return labels
