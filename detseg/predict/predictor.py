"""Predictors whose network is computed by torch.

Letters for dimensions: B images, C classes, H and W pixels of an image, h and w pixels of the network input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detseg.data.images.values import ValueRange
from detseg.models.acceleration import compile_networks, fuse
from detseg.models.yolo.detector import YoloDetector
from detseg.ops.letterbox import Letterbox
from detseg.ops.tensors import label_map, logits_at_original_size, to_float
from detseg.predict.interface import MapPredictor, ObjectPredictor, check_finite, preprocess
from detseg.predict.results import Detections, SegmentationMap
from detseg.structures import SCORE_THRESHOLD, ClassTable, DetectorOutput, Float32Array, UInt8Array


def as_input(images: UInt8Array, device: torch.device) -> Tensor:
    """(B, h, w, 3) uint8 → (B, 3, h, w) float32 in [0, 1] on the device, channels-last in memory."""
    return to_float(torch.from_numpy(images).permute(0, 3, 1, 2).to(device))


def postprocess_detections(
    found: DetectorOutput, letterbox: Letterbox, classes: ClassTable, score_threshold: float
) -> Detections:
    """What a detector found in a letterbox, in pixels of the image, without what scores below the threshold or lies in
    the padding."""
    there = found[found.scores >= score_threshold].to_original(letterbox).cpu()
    return Detections(there.boxes.numpy(), there.scores.numpy(), there.labels.numpy(), classes, there.masks)


def postprocess_logits(
    logits: Tensor, letterbox: Letterbox, classes: ClassTable, probabilities: bool = False
) -> SegmentationMap:
    """(C, h, w) float32 logits of a letterbox → the class of every pixel of the image, with probabilities if wanted."""
    labels = label_map(logits, letterbox).cpu().numpy()
    class_probs = logits_at_original_size(logits, letterbox).softmax(dim=0).cpu().numpy() if probabilities else None
    return SegmentationMap(labels, classes, class_probs)


class Predictor(ObjectPredictor):
    """Finds objects in images as they come: ``Detections`` in pixels of the original image, best first.

    An image gets exactly the detections that evaluation computed for it (the same letterbox, the same float32), less
    those that score below ``score_threshold``.

    Args:
        model: the network; it stays as it is, a fused copy of it predicts (``detseg.models.acceleration``).
        classes: names of its labels.
        input_hw: height and width of the network input, pixels.
        device: where to compute.
        score_threshold: detections below it are left out; 0 keeps all that evaluation counts.
        compile: have the networks in the model compiled by torch.compile when they are first called, which takes
            seconds to minutes; results then differ from evaluation's by rounding.  On a CPU it needs a C++ compiler.
        value_range: how images of more than 8 bits are read, as ``data.value_range`` was in the training; it may be
            changed later.

    Raises:
        ConfigError: ``score_threshold`` is not in [0, 1].
    """

    def __init__(
        self,
        model: nn.Module,
        classes: ClassTable,
        input_hw: tuple[int, int],
        device: torch.device | str = "cpu",
        score_threshold: float = SCORE_THRESHOLD,
        *,
        compile: bool = False,
        value_range: ValueRange = None,
    ) -> None:
        super().__init__(classes, input_hw, value_range, type(model).__name__, str(device), score_threshold)
        self.device = torch.device(device)
        self.model: Any = _prepared(model, self.device, compile)

    @property
    def input_step(self) -> int | None:
        """The coarsest stride of all detectors, as ``data.image_size`` has it."""
        return 32

    @torch.no_grad()
    def _predict(self, images: list[UInt8Array]) -> list[Detections]:
        stacked, letterboxes = preprocess(images, self.input_hw)
        inputs = as_input(stacked, self.device)
        if isinstance(self.model, YoloDetector):
            # The same, without the thousand candidates below the threshold, which would take longer than all the rest.
            outputs = self.model.predict(inputs, self.score_threshold)
        else:
            outputs = self.model.predict(inputs)
        return [
            postprocess_detections(found, letterbox, self.classes, self.score_threshold)
            for found, letterbox in zip(outputs, letterboxes, strict=True)
        ]


class SegmentationPredictor(MapPredictor):
    """Labels the pixels of images as they come: a ``SegmentationMap`` in the size of the original image.

    An image gets exactly the labels that evaluation computed for it: the same letterbox to ``input_hw``, the same
    float32.  The arguments are those of ``Predictor``, without a threshold.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: ClassTable,
        input_hw: tuple[int, int],
        device: torch.device | str = "cpu",
        *,
        compile: bool = False,
        value_range: ValueRange = None,
    ) -> None:
        super().__init__(classes, input_hw, value_range, type(model).__name__, str(device))
        self.device = torch.device(device)
        self.model: Any = _prepared(model, self.device, compile)

    @property
    def stride(self) -> int:
        """That of the model."""
        return int(self.model.stride)

    def logits(self, images: UInt8Array) -> Float32Array:
        """(B, h, w, 3) uint8 → (B, C, h, w) float32, on the CPU. DetsegError: some are NaN or infinite."""
        return self._logits(images).cpu().numpy()

    @torch.no_grad()
    def _logits(self, images: UInt8Array) -> Tensor:
        logits: Tensor = self.model.predict(as_input(images, self.device))
        if logits.numel():
            check_finite(*torch.stack(torch.aminmax(logits)).tolist())
        return logits

    @property
    def input_step(self) -> int | None:
        """That of the model."""
        return self.stride

    def _whole(self, images: list[UInt8Array], probabilities: bool) -> list[SegmentationMap]:
        inputs, letterboxes = preprocess(images, self.input_hw)
        return [
            postprocess_logits(logits, letterbox, self.classes, probabilities)
            for logits, letterbox in zip(self._logits(inputs), letterboxes, strict=True)
        ]


def _prepared(model: nn.Module, device: torch.device, compile: bool) -> nn.Module:
    fused = fuse(model, device)
    if compile:
        compile_networks(fused)
    return fused
