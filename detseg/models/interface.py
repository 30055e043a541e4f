"""The contracts between backbones, necks, detectors, segmenters and the tasks that train them."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from detseg.structures import BoxTargets, DetectorOutput

LossTerms = dict[str, Tensor]  # weighted scalar losses by name; their sum is what is minimised


class FeatureExtractor(Protocol):
    """A backbone, alone or with a neck on top.

    Attributes:
        channels: channels of each feature map, finest map first.
        strides: input pixels per cell of each feature map, finest map first.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __call__(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float → one (B, channels[i], H / strides[i], W / strides[i]) float map per stride."""


class Neck(Protocol):
    """What sits on a backbone's maps and keeps their strides; attributes as of ``FeatureExtractor``."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __call__(self, features: list[Tensor]) -> list[Tensor]:
        """Maps in, maps out; same order and sizes."""


class Detector(Protocol):
    """A model that finds boxes.  Images are (B, 3, H, W) float RGB in [0, 1]; the model normalises them itself.

    No method's return type depends on ``training``; an image without objects is a normal case everywhere.
    """

    def forward(self, images: Tensor) -> list[Tensor]:
        """The raw maps, one per stride: what an export holds."""

    def losses(self, images: Tensor, targets: list[BoxTargets]) -> LossTerms:
        """Weighted loss terms of a batch; B targets in pixels of the images."""

    def predict(self, images: Tensor) -> list[DetectorOutput]:
        """The detections of each image, best first, in pixels of the images."""

    def losses_and_predictions(
        self, images: Tensor, targets: list[BoxTargets]
    ) -> tuple[LossTerms, list[DetectorOutput]]:
        """Both, from one forward pass: what validation needs."""


class SemanticHead(Protocol):
    """What turns feature maps into scores of classes; ``stride``: input pixels per cell of the scores."""

    stride: int

    def __call__(self, features: list[Tensor]) -> Tensor:
        """Maps finest first → (B, K, H / stride, W / stride) raw scores, K outputs a pixel."""


class Segmenter(Protocol):
    """A model that finds the class of every pixel.  Images are (B, 3, H, W) float RGB in [0, 1], of any size; the model
    normalises and pads them itself.

    No method's return type depends on ``training``; a batch in which no pixel counts is a normal case.

    Attributes:
        stride: input pixels per cell of its coarsest map; tiles of large images begin at multiples of it.
    """

    stride: int

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) logits of the C classes in pixels of the images, their softmax being the probabilities: what an
        export holds."""

    def losses(self, images: Tensor, semantic: Tensor) -> LossTerms:
        """Weighted loss terms of a batch; ``semantic`` is (B, H, W) uint8 with ``IGNORE_LABEL`` where none counts."""

    def predict(self, images: Tensor) -> Tensor:
        """``forward`` in float32 and without gradients."""

    def losses_and_predictions(self, images: Tensor, semantic: Tensor) -> tuple[LossTerms, Tensor]:
        """Both, from one forward pass: what validation needs."""
