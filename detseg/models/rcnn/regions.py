"""Regions (anchors or proposals) and objects, for both stages: who is positive for which object, which regions the
losses are computed on, and the loss of their boxes.

Sources: Girshick et al. 2014 ("R-CNN", appendix C: boxes as differences), Girshick 2015 ("Fast R-CNN", sec. 2.3, and
eq. 3: smooth L1), Ren et al. 2015 (sec. 3.1.2 and 3.1.3), Rezatofighi et al. 2019 (GIoU), Zheng et al. 2020 (CIoU).

Letters: R regions of one image, N objects of it, of which T count and I are to be ignored, S samples, P positives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detseg.ops.boxes import box_area, matched_ciou, matched_giou, pairwise_iou
from detseg.structures import BoxTargets

_IGNORED_FRACTION = 0.5  # a region is no negative if more than this fraction of its area lies in an ignored object

_MAX_LOG_GROWTH = math.log(1000 / 16)
"""Sides grow by no more than this logarithm: exp stays finite (a 16 pixel anchor reaches 1000 pixels)."""


@dataclass(frozen=True, eq=False)
class RegionAssignment:
    """The assignment of one image."""

    objects: Tensor  # (R,) int64, position of the region's object among the image's targets; -1 unless positive
    negative: Tensor  # (R,) bool; a region that is neither positive nor negative counts in no loss

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
        allow_low_quality_matches: the regions that overlap an object most are positive too, however little that is.
    """

    positive_iou: float
    negative_iou: float
    allow_low_quality_matches: bool

    @torch.no_grad()
    def assign(self, regions: Tensor, target: BoxTargets) -> RegionAssignment:
        """Match (R, 4) float32 xyxy regions with the objects of their image.

        Objects to be ignored have no positives, and regions that lie in them by more than half of their own area are no
        negatives.
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
        drawn = [
            positions[torch.randperm(len(positions), device=positions.device, generator=generator)[:num]]
            for positions, num in ((positive, num_positives), (negative, num_negatives))
        ]
        return torch.cat(drawn).sort().values


@dataclass(frozen=True)
class BoxCoder:
    """Boxes to differences and back: the centre moves in units of the reference's sides, the sides change by their
    logarithm.

    Args:
        center_scale, side_scale: multiply the differences of the centres and those of the sides.
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
