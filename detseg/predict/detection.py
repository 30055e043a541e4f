"""Objects in images as they come."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from detseg.models.yolo.detector import YoloDetector
from detseg.predict.predictor import ImagePredictor
from detseg.structures import ClassTable, DetectorOutput, UInt8Array


class Predictor(ImagePredictor[DetectorOutput]):
    """Finds objects in images as they come: ``DetectorOutput`` in pixels of the original image, best first.

    An image gets exactly the detections that evaluation computed for it: the same letterbox, the same float32, the
    same threshold, unless ``score_threshold`` asks for fewer.

    Args:
        model: the detector.
        classes: names of its labels.
        input_hw: height and width of the network input, pixels.
        device: where to compute.
        score_threshold: detections below it are left out.
        compile: see ``ImagePredictor``.

    Raises:
        ValueError: ``score_threshold`` is not in [0, 1].
    """

    def __init__(
        self,
        model: nn.Module,
        classes: ClassTable,
        input_hw: tuple[int, int],
        device: torch.device | str = "cpu",
        score_threshold: float = 0.0,
        *,
        compile: bool = False,
    ) -> None:
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold: expected a number from 0 to 1, got {score_threshold}")
        super().__init__(model, classes, input_hw, device, compile=compile)
        self.score_threshold = score_threshold

    def _predict(self, images: list[UInt8Array]) -> list[DetectorOutput]:
        return [
            replace(found.cpu().to_original(letterbox), classes=self.classes)
            for found, letterbox in self._at_input_size(images)
        ]

    def _found(self, images: Tensor) -> list[DetectorOutput]:
        if isinstance(self.model, YoloDetector):
            # The same, without the thousand candidates below the threshold, which would take longer than all the rest.
            return self.model.predict(images, self.score_threshold)
        return [found[found.scores >= self.score_threshold] for found in super()._found(images)]
