"""Which anchors or proposals are positive for which object (Ren et al. 2015, section 3.1.2; Girshick 2015, sec. 2.3).

Letters: R regions (anchors or proposals), N objects of one image, of which T count and the others are to be ignored.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detseg.ops.boxes import box_area, pairwise_iou
from detseg.structures import BoxTargets

_IGNORED_SHARE = 0.5
"""A region that lies in an ignored one by more than this share of its own area says nothing about background."""


@dataclass(frozen=True)
class RegionAssignment:
    """The assignment of one image.

    Attributes:
        objects: (R,) int64, position of the region's object among the image's targets; -1 unless positive.
        negative: (R,) bool; a region that is neither positive nor negative counts in no loss.
    """

    objects: Tensor
    negative: Tensor

    @property
    def positive(self) -> Tensor:
        """(R,) bool."""
        return self.objects >= 0


@dataclass(frozen=True)
class RegionAssigner:
    """Assigns the regions of one image.

    Args:
        positive_iou: a region that overlaps an object by at least this is positive, for the one it overlaps most.
        negative_iou: a region that overlaps every object by less than this is negative.
        best_is_positive: the regions that overlap an object more than all others do are positive too, however little
            that is.
    """

    positive_iou: float
    negative_iou: float
    best_is_positive: bool

    @torch.no_grad()
    def assign(self, regions: Tensor, target: BoxTargets) -> RegionAssignment:
        """Match the regions of one image with its objects.

        Regions that lie in an ignored object by more than half of their own area, and are not positive, are not
        negative either.

        Args:
            regions: (R, 4) float32 xyxy.
            target: the image's objects.
        """
        counted = torch.nonzero(~target.ignore).flatten()
        objects = torch.full((len(regions),), -1, device=regions.device)
        negative = torch.ones(len(regions), dtype=torch.bool, device=regions.device)
        if len(counted) and len(regions):
            iou = pairwise_iou(target.boxes[counted], regions)  # T R
            overlap, closest = iou.max(dim=0)
            positive = overlap >= self.positive_iou
            if self.best_is_positive:
                best = iou.amax(dim=1, keepdim=True)
                # An object that no region touches has none: every region would be as good.
                positive |= ((iou == best) & (best > 0)).any(dim=0)
            objects = torch.where(positive, counted[closest], objects)
            negative = (overlap < self.negative_iou) & ~positive
        if len(counted) < len(target):
            negative &= ~_covered(regions, target.boxes[target.ignore])
        return RegionAssignment(objects, negative)


def _covered(regions: Tensor, ignored: Tensor) -> Tensor:
    """(R, 4) and (I, 4) → (R,) bool: whether one of the ignored boxes holds more than half of the region."""
    low = torch.maximum(regions[:, :2], ignored[:, None, :2])
    high = torch.minimum(regions[:, 2:], ignored[:, None, 2:])
    inside = (high - low).clamp(min=0).prod(dim=-1)  # I R
    return (inside > _IGNORED_SHARE * box_area(regions)).any(dim=0)
