"""Semantic segmentation: the class of every pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from detseg.config.schema.data import DataConfig
from detseg.config.schema.experiment import EvaluationConfig, ExperimentConfig
from detseg.config.schema.model import FcnConfig, UNetConfig
from detseg.draw import draw_semantic, draw_semantic_errors
from detseg.errors import ConfigError
from detseg.ops.tensors import to_arrays, to_float
from detseg.structures import Batch, ClassTable, UInt8Array
from detseg.tasks.kind import AnyDataset, TaskKind, logged_weights

if TYPE_CHECKING:
    from detseg.data.build import Split
    from detseg.data.datasets.contract import EvalSource
    from detseg.metrics.segmentation import SegmentationEvaluator
    from detseg.predict.predictor import SegmentationPredictor


class SemanticSegmentation(TaskKind):
    """Of models that keep the ``Segmenter`` contract."""

    metrics = ("mIoU", "pixel_accuracy", "boundary_IoU", "Dice")
    shown = ("pixel_accuracy", "mIoU")
    finds_objects = False

    def open_dataset(self, data: DataConfig, split: Split, classes: ClassTable | None = None) -> AnyDataset:
        """A data set of label maps; see ``TaskKind``."""
        from detseg.data.build import open_semantic_split  # needs the training libraries

        return open_semantic_split(data, split, classes)

    def settings_from_data(self, config: ExperimentConfig, train_set: EvalSource) -> ExperimentConfig:
        """Weights of the classes as numbers, where they are to follow from the training set; see ``TaskKind``."""
        from detseg.data.datasets.segmentation import SegmentationDataset, median_frequency_weights

        model = config.model
        if not isinstance(model, FcnConfig | UNetConfig) or model.loss.class_weights != "median_frequency":
            return config
        if not isinstance(train_set, SegmentationDataset):
            name = type(train_set).__name__
            raise ConfigError(f"model.loss.class_weights: cannot be found from a {name}; set numbers, or null")
        found = median_frequency_weights(train_set, skip_bad=config.data.on_bad_sample == "skip")
        weights = logged_weights(found, train_set.classes, "median frequency")
        loss = model.loss.model_copy(update={"class_weights": weights})
        return config.model_copy(update={"model": model.model_copy(update={"loss": loss})})

    def targets(self, batch: Batch, seed_and_epoch: tuple[int, int] | None = None) -> Tensor:
        """(B, H, W) uint8 labels of the pixels; see ``TaskKind``."""
        if batch.semantic is None:
            raise ValueError("the batch has no semantic maps: semantic segmentation trains on a data set of masks")
        return batch.semantic

    def evaluator(self, classes: ClassTable, settings: EvaluationConfig) -> SegmentationEvaluator:
        """mIoU and what belongs to it."""
        from detseg.metrics.segmentation import SegmentationEvaluator

        return SegmentationEvaluator(classes, settings.boundary_width, settings.class_weights)

    def draw_targets(self, batch: Batch, classes: ClassTable, limit: int) -> list[UInt8Array]:
        """Images under the colours of their labels; pixels to ignore stay plain. See ``TaskKind``."""
        return _draw(batch, batch.images[:limit], self.targets(batch)[:limit], classes)

    @torch.no_grad()
    def draw_predictions(self, batch: Batch, model: Any, classes: ClassTable, limit: int) -> list[UInt8Array]:
        """Images under the colours of what the model finds; see ``TaskKind``."""
        images = batch.images[:limit]
        return _draw(batch, images, model.predict(to_float(images)).argmax(dim=1).to(torch.uint8), classes)

    @torch.no_grad()
    def draw_errors(self, batch: Batch, model: Any, classes: ClassTable, limit: int) -> list[UInt8Array]:
        """Wrong pixels; see ``TaskKind``."""
        images, truth = batch.images[:limit], self.targets(batch)[:limit].cpu().numpy()
        found = model.predict(to_float(images)).argmax(dim=1).to(torch.uint8).cpu().numpy()
        drawn = []
        for image, true, predicted, window in zip(
            to_arrays(images), truth, found, batch.windows()[: len(images)], strict=True
        ):
            parts = [np.ascontiguousarray(array[window]) for array in (image, true, predicted)]
            drawn.append(draw_semantic_errors(parts[0], parts[1], parts[2]))
        return drawn

    def predictor(self) -> type[SegmentationPredictor]:
        """See ``TaskKind``."""
        from detseg.predict.predictor import SegmentationPredictor  # the package `predict` asks for kinds itself

        return SegmentationPredictor


def _draw(batch: Batch, images: Tensor, semantic: Tensor, classes: ClassTable) -> list[UInt8Array]:
    rows = zip(to_arrays(images), semantic.cpu().numpy(), batch.windows()[: len(images)], strict=True)
    return [
        draw_semantic(np.ascontiguousarray(image[window]), np.ascontiguousarray(labels[window]), classes.names)
        for image, labels, window in rows
    ]
