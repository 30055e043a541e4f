"""Boxes as differences from anchors or proposals, and the loss of boxes, for both stages.

Sources: Girshick et al. 2014 ("R-CNN", appendix C, eqs. 6-9: the differences), Girshick 2015 ("Fast R-CNN", eq. 3:
smooth L1), Rezatofighi et al. 2019 (GIoU), Zheng et al. 2020 (CIoU).

Letters: N boxes, P positives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detseg.ops.boxes import matched_ciou, matched_giou

_MAX_LOG_GROWTH = math.log(1000 / 16)
"""Sides grow by no more than this logarithm: exp stays finite (a 16 pixel anchor reaches 1000 pixels)."""


@dataclass(frozen=True)
class BoxCoder:
    """Boxes to differences and back: the centre moves in units of the reference's sides, the sides change by their
    logarithm.

    Args:
        center_scale: multiplies the differences of the centres.
        side_scale: multiplies those of the sides.
    """

    center_scale: float = 1.0
    side_scale: float = 1.0

    def encode(self, boxes: Tensor, references: Tensor) -> Tensor:
        """(N, 4) xyxy and the (N, 4) boxes that they are seen from → (N, 4) differences: x, y, width, height."""
        center, sides = _center_and_sides(boxes)
        from_center, from_sides = _center_and_sides(references)
        shift = self.center_scale * (center - from_center) / from_sides
        growth = self.side_scale * torch.log(sides / from_sides)
        return torch.cat([shift, growth], dim=-1)

    def decode(self, deltas: Tensor, references: Tensor) -> Tensor:
        """(..., 4) differences and the (..., 4) xyxy boxes that they start from → (..., 4) xyxy."""
        center, sides = _center_and_sides(references)
        growth = (deltas[..., 2:] / self.side_scale).clamp(max=_MAX_LOG_GROWTH)
        center = deltas[..., :2] / self.center_scale * sides + center
        half = 0.5 * (torch.exp(growth) * sides)
        return torch.cat([center - half, center + half], dim=-1)


def _center_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sides, sides


@dataclass(frozen=True)
class BoxLoss:
    """How far predicted boxes are from their objects.

    Args:
        name: ``smooth_l1`` of the encoded differences, ``giou`` or ``ciou`` of the boxes themselves.
        beta: where smooth L1 turns from square to straight; 1/9 is the sigma of 3 of Ren et al. 2015.
        weight: multiplies the loss.
    """

    name: Literal["smooth_l1", "giou", "ciou"] = "smooth_l1"
    beta: float = 1 / 9
    weight: float = 1.0

    def __call__(
        self, deltas: Tensor, references: Tensor, boxes: Tensor, coder: BoxCoder, normaliser: Tensor
    ) -> Tensor:
        """The weighted loss of the positives, over the number of samples, negatives included, so that every sample
        weighs the same however few of them are positive (torchvision's normalisation).

        Args:
            deltas: (P, 4) float32 differences that the network predicts.
            references: (P, 4) float32 xyxy, the anchors or proposals that they start from.
            boxes: (P, 4) float32 xyxy, the objects.
            coder: what the differences mean.
            normaliser: number of samples, positives and negatives, at least 1 (``shared_normaliser``).

        Returns:
            a scalar; 0 without positives.
        """
        if self.name == "smooth_l1":
            target = coder.encode(boxes, references)
            loss = F.smooth_l1_loss(deltas, target, beta=self.beta, reduction="sum")
        else:
            overlap = matched_giou if self.name == "giou" else matched_ciou
            loss = (1 - overlap(coder.decode(deltas, references), boxes)).sum()
        return self.weight * loss / normaliser


def zero_loss(*modules: nn.Module, like: Tensor) -> Tensor:
    """A scalar 0 that gives every parameter of some modules a gradient of 0.

    For modules that get no inputs from a batch: distributed training waits for all gradients, and batch normalisation
    must not see an empty batch.
    """
    zero = like.sum() * 0
    for module in modules:
        for parameter in module.parameters():
            zero = zero + parameter.sum() * 0
    return zero
