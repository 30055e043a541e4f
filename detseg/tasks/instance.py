"""Training of detectors of masks."""

from __future__ import annotations

from detseg.config.schema.experiment import EvaluationConfig
from detseg.metrics.detection import DetectionEvaluator
from detseg.tasks.detection import DetectionTask


class InstanceTask(DetectionTask):
    """Trains a ``Detector`` whose detections have masks, on targets with masks. Arguments: see ``Task``."""

    criterion = "mask_AP"
    shown = ("mask_AP50", "mask_AP")

    def build_evaluator(self, settings: EvaluationConfig) -> DetectionEvaluator:
        """COCO AP of masks and of boxes, and VOC AP of boxes."""
        return DetectionEvaluator(self.classes, settings.max_detections, settings.f1_iou, masks=True)
