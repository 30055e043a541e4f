"""Objects in images as they come."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from detseg.predict.predictor import ImagePredictor
from detseg.structures import ClassTable, Detections, UInt8Array


class Predictor(ImagePredictor[Detections]):
    """Finds objects in images as they come: ``Detections`` in pixels of the original image, best first.

    An image gets exactly the detections that evaluation computed for it: the same letterbox, the same float32, the
    same threshold, unless ``score_threshold`` asks for fewer.

    Args:
        model: the detector.
        classes: names of its labels.
        input_hw: height and width of the network input, pixels.
        device: where to compute.
        score_threshold: detections below it are left out.

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
    ) -> None:
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold: expected a number from 0 to 1, got {score_threshold}")
        super().__init__(model, classes, input_hw, device)
        self.score_threshold = score_threshold

    def _predict(self, images: list[UInt8Array]) -> list[Detections]:
        results = []
        for found, letterbox in self._at_input_size(images):
            found = found[found.scores >= self.score_threshold].cpu()
            results.append(replace(found.to_original(letterbox), classes=self.classes))
        return results
