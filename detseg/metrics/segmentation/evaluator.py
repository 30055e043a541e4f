"""The evaluator of semantic segmentation: mIoU and what belongs to it, at the size of the original images.

Training, ``tools/evaluate.py`` and exported models are all scored by it.  Pixels are summed over the whole data set
(VOC, Cityscapes).  It keeps integers only, so any number of processes together find the same numbers.

Letters: B images of a batch, C classes, h and w pixels of the network input, H and W pixels of an original image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detseg.errors import DetsegError
from detseg.metrics.segmentation.boundary import band_overlaps, band_width
from detseg.metrics.segmentation.confusion import check_labels, pair_counts
from detseg.metrics.segmentation.result import SegmentationResult, segmentation_result
from detseg.ops.semantic import label_map
from detseg.structures import IGNORE_LABEL, MAX_CLASSES, Batch, ClassTable, IntArray

LabelMap = Tensor | npt.NDArray[np.uint8] | IntArray


class SegmentationEvaluator:
    """Collects predicted and true label maps; memory does not grow with the number of images.

    Args:
        classes: of the ground truth and the predictions.
        boundary_width: width of the band that boundary IoU compares, as a fraction of the image's diagonal.

    Raises:
        ValueError: a number is out of its range, or there are no classes or more than 255.
    """

    def __init__(self, classes: ClassTable, boundary_width: float = 0.02) -> None:
        if not 0 < boundary_width <= 0.5:
            raise ValueError(f"boundary_width: expected a number above 0 and up to 0.5, got {boundary_width}")
        if not 1 <= len(classes) <= MAX_CLASSES:
            raise ValueError(f"classes: expected 1 to {MAX_CLASSES}, got {len(classes)}")
        self.classes = classes
        self.boundary_width = boundary_width
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._pair_counts = torch.zeros(256, 256, dtype=torch.int64)
        self._band_overlaps = torch.zeros(2, len(self.classes), dtype=torch.int64)
        self._num_images = 0
        self._seen: set[int] = set()

    def update_batch(self, batch: Batch, logits: Tensor) -> None:
        """Add the images of an evaluation batch, except those that were added before.

        Args:
            batch: with ``semantic_truths``.
            logits: (B, C, h, w) float32, in pixels of ``batch.images``, on any device.

        Raises:
            ValueError: the batch has no truth, or the logits have the wrong shape.
            DetsegError: the logits are not finite.
        """
        expected = (len(batch.semantic_truths), len(self.classes))
        if tuple(logits.shape[:2]) != expected:
            raise ValueError(
                f"logits: expected shape (B, C, h, w) of {expected[0]} images with a semantic truth and {expected[1]} "
                f"classes, got {tuple(logits.shape)}"
            )
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

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Everything as int64 arrays by name, for another process to ``merge``.

        Returns:
            ``pair_counts`` (256, 256) as of ``pair_counts``, ``band_overlaps`` (2, C) intersections and unions,
            ``num_images`` (), and ``image_ids`` of the images that were added by ``update_batch``.
        """
        return {
            "pair_counts": self._pair_counts.cpu().numpy().copy(),
            "band_overlaps": self._band_overlaps.cpu().numpy().copy(),
            "num_images": np.array(self._num_images, dtype=np.int64),
            "image_ids": np.array(sorted(self._seen), dtype=np.int64),
        }

    def merge(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Add another evaluator's ``state``; the numbers do not depend on the order.

        Raises:
            ValueError: it has another number of classes, or both have seen an image: sums cannot be taken apart again.
        """
        overlaps = torch.from_numpy(state["band_overlaps"])
        if overlaps.shape != self._band_overlaps.shape:
            raise ValueError(f"expected the state of {len(self.classes)} classes, got one of {overlaps.shape[1]}")
        twice = self._seen.intersection(state["image_ids"].tolist())
        if twice:
            raise ValueError(
                f"image {min(twice)} and {len(twice) - 1} others are in both evaluators and would count twice: show "
                f"every image to one process, as eval_loader does"
            )
        self._pair_counts = self._pair_counts.cpu() + torch.from_numpy(state["pair_counts"])
        self._band_overlaps = self._band_overlaps.cpu() + overlaps
        self._num_images += int(state["num_images"])
        self._seen.update(state["image_ids"].tolist())

    def compute(self) -> SegmentationResult:
        """Score everything collected so far; the state stays.

        Raises:
            ValueError: a label outside the class table came from a GPU.
        """
        counts, num_classes = self._pair_counts.cpu(), len(self.classes)
        check_labels(counts, num_classes)
        return segmentation_result(
            names=self.classes.names,
            confusion=counts[:num_classes, :num_classes].numpy(),
            band_overlaps=self._band_overlaps.cpu().numpy(),
            num_images=self._num_images,
            num_ignored=int(counts[IGNORE_LABEL].sum()),
        )


def _as_tensor(labels: LabelMap) -> Tensor:
    # Torch warns of read-only arrays, into which images are read.
    return labels if isinstance(labels, Tensor) else torch.from_numpy(np.require(labels, requirements=["C", "W"]))
