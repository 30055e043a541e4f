"""What tells the generations of YOLO apart: how raw maps become losses and boxes.

Letters: B images, A priors (places times boxes a place, over all strides), P chosen ones, C classes, K outputs a cell.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from detseg.models.interface import LossTerms
from detseg.structures import BoxTargets


class Candidates(NamedTuple):
    """Box and class scores of every prior (B, A), or of P chosen ones, before NMS.

    Attributes:
        boxes: (B, A, 4) or (P, 4) float32 xyxy in input pixels, not clipped.
        scores: (B, A, C) or (P, C) float32 in [0, 1].
    """

    boxes: Tensor
    scores: Tensor


class Chosen(NamedTuple):
    """Some priors of a batch.

    Attributes:
        image: (P,) int64 which image.
        prior: (P,) int64 which of its priors.
    """

    image: Tensor
    prior: Tensor


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

    def best_scores(self, maps: list[Tensor]) -> Tensor:
        """(B, K, H / s, W / s) float32 raw maps → (B, A) the best class score of each prior, up to a few units in the
        last place: what tells which priors are worth decoding."""
        ...

    def decode(self, maps: list[Tensor], chosen: Chosen | None = None) -> Candidates:
        """(B, K, H / s, W / s) float32 raw maps → candidates of the whole batch, or of the chosen priors alone."""
        ...
