"""What tells the generations of YOLO apart: how raw maps become losses and boxes.

Letters: B images, A priors (places times boxes a place, over all strides), C classes, K outputs a cell.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from detseg.models.interface import LossTerms
from detseg.structures import BoxTargets


class Candidates(NamedTuple):
    """Every prior's box and class scores, before NMS.

    Attributes:
        boxes: (B, A, 4) float32 xyxy in input pixels, not clipped.
        scores: (B, A, C) float32 in [0, 1].
    """

    boxes: Tensor
    scores: Tensor


class Scheme(Protocol):
    """Priors, assignment, losses and decoding of one generation; an ``nn.Module`` without trained weights.

    Attributes:
        strides: input pixels per cell of each raw map.
        box_outputs: channels of a raw map that speak of boxes; they come first.
        class_outputs: channels that speak of classes; they follow.
    """

    strides: tuple[int, ...]
    box_outputs: int
    class_outputs: int

    def initial_bias(self, stride: int) -> Tensor:
        """(box_outputs + class_outputs,) biases of the last layer at the start of training."""
        ...

    def losses(self, maps: list[Tensor], targets: list[BoxTargets]) -> LossTerms:
        """(B, K, H / s, W / s) raw maps, one a stride, and B targets in input pixels → weighted scalar terms."""
        ...

    def decode(self, maps: list[Tensor]) -> Candidates:
        """(B, K, H / s, W / s) raw maps → candidates of the whole batch."""
        ...
