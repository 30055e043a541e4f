"""Training of detectors."""

from __future__ import annotations

from typing import Any

from torch import nn

from detseg.config.training import EvaluationConfig, OptimizerConfig, ScheduleConfig
from detseg.draw import draw_boxes
from detseg.metrics.detection import DetectionEvaluator
from detseg.ops.images import to_arrays, to_float
from detseg.structures import Batch, BoxTargets, ClassTable, UInt8Array
from detseg.training.task import Task

DRAWN_SCORE = 0.3
"""Detections below this score are not drawn."""


class DetectionTask(Task):
    """Trains anything that satisfies the ``Detector`` contract.

    Args:
        model: the detector, an ``nn.Module``.
        classes: names of its labels.
        optimizer: settings of the optimiser.
        schedule: settings of the learning rate's course.
        evaluation: settings of the evaluator.
        ema_decay, ema_warmup_steps, config: see ``Task``.
    """

    criterion = "AP"
    shown = ("AP50", "AP")

    def __init__(
        self,
        model: nn.Module,
        classes: ClassTable,
        optimizer: OptimizerConfig | None = None,
        schedule: ScheduleConfig | None = None,
        evaluation: EvaluationConfig | None = None,
        ema_decay: float = 0.0,
        ema_warmup_steps: int = 0,
        config: dict[str, Any] | None = None,
    ) -> None:
        evaluation = evaluation or EvaluationConfig()
        evaluator = DetectionEvaluator(classes, evaluation.max_detections, evaluation.operating_iou)
        super().__init__(model, classes, evaluator, optimizer, schedule, ema_decay, ema_warmup_steps, config)

    def targets(self, batch: Batch) -> list[BoxTargets]:
        """The objects of each image."""
        return batch.targets

    def draw_targets(self, batch: Batch, limit: int) -> list[UInt8Array]:
        """The first ``limit`` images of a batch with their objects, those to ignore included."""
        return [
            draw_boxes(image, target.boxes.cpu(), target.labels.cpu(), self.classes.names)
            for image, target in zip(to_arrays(batch.images[:limit]), batch.targets[:limit], strict=True)
        ]

    def draw_predictions(self, batch: Batch, limit: int) -> list[UInt8Array]:
        """The first ``limit`` images of a batch with the better detections of the evaluated model."""
        images = batch.images[:limit]
        pictures = []
        for image, found in zip(to_arrays(images), self.evaluated_model.predict(to_float(images)), strict=True):
            shown = found.cpu()[found.cpu().scores >= DRAWN_SCORE]
            pictures.append(draw_boxes(image, shown.boxes, shown.labels, self.classes.names, shown.scores))
        return pictures
