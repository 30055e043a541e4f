"""Boxes as differences from anchors or proposals (Girshick et al. 2014, "R-CNN", appendix C, eqs. 6-9).

The centre moves in units of the reference's sides, the sides change by their logarithm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_LARGEST_GROWTH = math.log(1000 / 16)
"""Sides grow by no more than this logarithm: exp stays finite (a 16 pixel anchor reaches 1000 pixels)."""


@dataclass(frozen=True)
class BoxCoder:
    """Boxes to differences and back.

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
        growth = (deltas[..., 2:] / self.side_scale).clamp(max=_LARGEST_GROWTH)
        center = deltas[..., :2] / self.center_scale * sides + center
        half = 0.5 * (torch.exp(growth) * sides)
        return torch.cat([center - half, center + half], dim=-1)


def _center_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sides, sides
