"""What differs by the kind of task, for training, evaluation and prediction alike.

A kind has no state and imports none of the training libraries before a method needs them.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from detseg.config.schema.data import DataConfig
from detseg.config.schema.experiment import EvaluationConfig, ExperimentConfig
from detseg.structures import Batch, ClassTable, UInt8Array

if TYPE_CHECKING:
    from detseg.data.build import Split
    from detseg.data.datasets.contract import EvalSource
    from detseg.data.datasets.detection import DetectionDataset
    from detseg.data.datasets.segmentation import SegmentationDataset
    from detseg.metrics.interface import Evaluator
    from detseg.predict.predictor import Predictor, SegmentationPredictor

logger = logging.getLogger("detseg")

AnyDataset: TypeAlias = "DetectionDataset | SegmentationDataset"


class TaskKind(ABC):
    """A kind of task."""

    metrics: ClassVar[tuple[str, ...]]  # of the results' ``headline``; the first chooses the best checkpoint by default
    shown: ClassVar[tuple[str, ...]]  # the metrics in the progress bar and in the line of an epoch
    finds_objects: ClassVar[bool] = True  # whether results are detections with scores; else each pixel has a class
    finds_masks: ClassVar[bool] = False  # whether detections have masks

    @abstractmethod
    def open_dataset(self, data: DataConfig, split: Split, classes: ClassTable | None = None) -> AnyDataset:
        """Open a split of the data that settings name.

        Args:
            data: the ``data`` section.
            split: the shapes set has no test split.
            classes: the class table of the training split or of a checkpoint; None: this is the training split, and
                ``data.classes`` or the data name the classes.

        Raises:
            DataError: something is missing or wrong, or the layout does not have what this kind learns from.
        """

    def settings_from_data(self, config: ExperimentConfig, train_set: EvalSource) -> ExperimentConfig:
        """The settings with numbers for what follows from the training set, each logged. ConfigError: they follow from
        data sets that settings name, and this is another one."""
        return config

    @abstractmethod
    def targets(self, batch: Batch, seed_and_epoch: tuple[int, int] | None = None) -> Any:
        """What of a batch the model's losses are computed against.

        Args:
            batch: of a loader.
            seed_and_epoch: of a training, for what a model draws at random; None: not in training.

        Raises:
            ValueError: the batch comes from a data set of another kind.
        """

    @abstractmethod
    def evaluator(self, classes: ClassTable, settings: EvaluationConfig) -> Evaluator:
        """What predictions are scored by."""

    @abstractmethod
    def draw_targets(self, batch: Batch, classes: ClassTable, limit: int) -> list[UInt8Array]:
        """The first ``limit`` images of a batch with their targets drawn, (H, W, 3) uint8 RGB each; of an evaluation
        batch without the padding of the letterbox."""

    @abstractmethod
    def draw_predictions(self, batch: Batch, model: Any, classes: ClassTable, limit: int) -> list[UInt8Array]:
        """The first ``limit`` images of a batch with what the model finds, as ``draw_targets``."""

    @abstractmethod
    def draw_errors(self, batch: Batch, model: Any, classes: ClassTable, limit: int) -> list[UInt8Array]:
        """The first ``limit`` images of a batch, in grey, with what the model finds and is not there, and with what is
        there and it does not find."""

    @abstractmethod
    def predictor(self) -> type[Predictor | SegmentationPredictor]:
        """The class of what predicts for images as they come."""


def logged_weights(weights: Sequence[float], classes: ClassTable, how: str) -> tuple[float, ...]:
    """Weights of classes for the settings, logged with ``how`` they were found."""
    # Four digits that count: the weight of a class that fills nearly all must not become 0, which switches it off.
    rounded = tuple(float(f"{weight:.4g}") for weight in weights)
    shown = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(classes.names, rounded, strict=True))
    logger.info(f"class weights by {how}: {shown}")
    return rounded
