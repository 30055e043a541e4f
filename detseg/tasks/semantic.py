"""Training of semantic segmentation."""

from __future__ import annotations

import torch
from torch import Tensor

from detseg.config.schema.training import EvaluationConfig
from detseg.draw import draw_semantic
from detseg.metrics.segmentation.evaluator import SegmentationEvaluator
from detseg.ops.images import to_arrays, to_float
from detseg.structures import Batch, UInt8Array
from detseg.training.task import Task


class SegmentationTask(Task):
    """Trains anything that satisfies the ``Segmenter`` contract. Arguments: see ``Task``."""

    criterion = "mIoU"
    shown = ("pixel_accuracy", "mIoU")

    def build_evaluator(self, settings: EvaluationConfig) -> SegmentationEvaluator:
        """mIoU and what belongs to it."""
        return SegmentationEvaluator(self.classes, settings.boundary_width)

    def targets(self, batch: Batch) -> Tensor:
        """(B, H, W) uint8 labels of the pixels.

        Raises:
            ValueError: the batch comes from a reader of boxes.
        """
        if batch.semantic is None:
            raise ValueError("the batch has no semantic maps: a SegmentationTask trains on a data set of masks")
        return batch.semantic

    def draw_targets(self, batch: Batch, limit: int) -> list[UInt8Array]:
        """The first ``limit`` images of a batch under the colours of their labels; pixels to ignore stay plain."""
        return self._draw(batch.images[:limit], self.targets(batch)[:limit])

    @torch.no_grad()
    def draw_predictions(self, batch: Batch, limit: int) -> list[UInt8Array]:
        """The first ``limit`` images of a batch under the colours of what the evaluated model finds."""
        images = batch.images[:limit]
        return self._draw(images, self.evaluated_model.predict(to_float(images)).argmax(dim=1).to(torch.uint8))

    def _draw(self, images: Tensor, semantic: Tensor) -> list[UInt8Array]:
        pairs = zip(to_arrays(images), semantic.cpu().numpy(), strict=True)
        return [draw_semantic(image, labels, self.classes.names) for image, labels in pairs]
