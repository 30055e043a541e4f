"""Which regions (anchors or proposals) are positive for which object, and which of them the losses are computed on.

Sources: Ren et al. 2015, sections 3.1.2 and 3.1.3; Girshick 2015, section 2.3.

Letters: R regions of one image, N objects of it, of which T count and I are to be ignored, S samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detseg.ops.boxes import box_area, pairwise_iou
from detseg.structures import BoxTargets

_IGNORED_FRACTION = 0.5
"""A region is no negative if more than this fraction of its area lies in an ignored object."""


@dataclass(frozen=True, eq=False)
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
        allow_low_quality_matches: the regions that overlap an object more than all others do are positive too, however
            little that is.
    """

    positive_iou: float
    negative_iou: float
    allow_low_quality_matches: bool

    @torch.no_grad()
    def assign(self, regions: Tensor, target: BoxTargets) -> RegionAssignment:
        """Match the regions of one image with its objects.

        Args:
            regions: (R, 4) float32 xyxy.
            target: the image's objects; those to be ignored have no positives, and regions that lie in them by more
                than half of their own area are no negatives.
        """
        counted = torch.nonzero(~target.ignore).flatten()
        objects = torch.full((len(regions),), -1, device=regions.device)
        negative = torch.ones(len(regions), dtype=torch.bool, device=regions.device)
        if len(counted) and len(regions):
            iou = pairwise_iou(target.boxes[counted], regions)  # T R
            overlap, closest = iou.max(dim=0)
            positive = overlap >= self.positive_iou
            if self.allow_low_quality_matches:
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
    return (inside > _IGNORED_FRACTION * box_area(regions)).any(dim=0)


class RegionSampler(nn.Module):
    """Draws a fixed number of regions, positives up to a fraction of them, the rest negatives.

    As dropout, it draws at random in training mode (positives first, then negatives), by the seed of the image; without
    one, from torch's own generator: the draws of torchvision.  In evaluation mode the draws of an image are always the
    same, so that the losses of a validation repeat.

    Args:
        batch_size_per_image: S, fewer where an image has fewer.
        positive_fraction: most positives, as a fraction of S.
    """

    def __init__(self, batch_size_per_image: int, positive_fraction: float) -> None:
        super().__init__()
        self.batch_size_per_image = batch_size_per_image
        self.max_positives = int(batch_size_per_image * positive_fraction)

    def forward(self, assignment: RegionAssignment, seed: int | None = None) -> Tensor:
        """The assignment of R regions and the seed of the draws → (S,) int64 positions, ascending."""
        positive = torch.nonzero(assignment.positive).flatten()
        negative = torch.nonzero(assignment.negative).flatten()
        seed = seed if self.training else 0
        generator = None if seed is None else torch.Generator(positive.device).manual_seed(seed)
        num_positives = min(len(positive), self.max_positives)
        num_negatives = min(len(negative), self.batch_size_per_image - num_positives)
        drawn = [_draw(positive, num_positives, generator), _draw(negative, num_negatives, generator)]
        return torch.cat(drawn).sort().values


def _draw(positions: Tensor, num: int, generator: torch.Generator | None) -> Tensor:
    return positions[torch.randperm(len(positions), device=positions.device, generator=generator)[:num]]
