"""Which anchor of which cell answers for which object in YOLOv2 and YOLOv3.

Redmon, Farhadi, "YOLO9000", 2017, section 2, and "YOLOv3", 2018, section 2.1: each object has one prior, the anchor
whose shape overlaps it best, in the cell of its centre; other priors that overlap an object well are left alone.

Letters: B images, L levels, K anchors a level, A priors (cells times anchors, over all levels; level by level, row by
row, the anchors of a cell side by side), N counted objects of the batch, P positives.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detseg.models.yolo.objects import centre_cells, first_claims, gather_objects
from detseg.ops.boxes import box_area, pairwise_iou
from detseg.structures import BoxTargets

PAIRS_AT_ONCE = 2**20
"""So many pairs of a prior and an object are looked at together, so that an image of 2000 objects needs no more memory
than one of 20."""


@dataclass(frozen=True)
class AnchorAssignment:
    """The positives of a batch and the priors that are left alone.

    Attributes:
        image: (P,) int64, position of the image in the batch.
        prior: (P,) int64, index into the A priors; no (image, prior) occurs twice.
        boxes: (P, 4) float32 xyxy in input pixels, the objects to learn.
        labels: (P,) int64.
        left_alone: (B, A) bool, priors that are neither positive nor negative.
        num_displaced: counted objects without a prior, since every anchor in the cells of their centre is taken.
    """

    image: Tensor
    prior: Tensor
    boxes: Tensor
    labels: Tensor
    left_alone: Tensor
    num_displaced: int


class AnchorAssigner:
    """Gives each counted object the anchor, over all levels, of best shape IoU (both centred on one point).

    The prior is that anchor in the cell that holds the object's centre on the anchor's level.  When several objects
    claim one prior, the one of best shape IoU has it (of equals the first in the targets), and the others take their
    next best anchor that is free or whose holder fits it less well, who then moves on in turn.  Only an object that
    finds every anchor of its cells taken stays without one; ``num_displaced`` counts those.

    A prior without an object is left alone when the box that it predicts now (YOLOv3; not the anchor's own box)
    overlaps an object by more than ``ignore_iou``: by IoU for a counted object, by the share of the predicted box that
    lies inside for an ignored one, which may be a region of many objects (COCO scores crowds in the same way).

    Args:
        strides: L strides in input pixels.
        ignore_iou: see above, in [0, 1].
    """

    def __init__(self, strides: tuple[int, ...], ignore_iou: float) -> None:
        self.strides = strides
        self.ignore_iou = ignore_iou

    @torch.no_grad()
    def __call__(
        self, targets: list[BoxTargets], anchors: Tensor, grids_hw: list[tuple[int, int]], predicted: Tensor
    ) -> AnchorAssignment:
        """Assign the objects of a batch.

        Args:
            targets: B targets in input pixels.
            anchors: (L, K, 2) float32 widths and heights in input pixels.
            grids_hw: rows and columns of cells of each level.
            predicted: (B, A, 4) float32 xyxy in input pixels, the boxes that the network predicts now.
        """
        objects = gather_objects(targets, ignored=False)
        priors = self._priors_at_centres(objects.boxes, anchors.shape[1], grids_hw)  # (N, L * K)
        quality = shape_iou(objects.boxes[:, 2:] - objects.boxes[:, :2], anchors.flatten(0, 1))
        anchor = match_anchors(objects.image[:, None] * predicted.shape[1] + priors, quality)
        kept = (anchor >= 0).nonzero()[:, 0]
        image, prior = objects.image[kept], priors[kept, anchor[kept]]
        left_alone = torch.stack(
            [self._overlapping(target, boxes) for target, boxes in zip(targets, predicted, strict=True)]
        )
        left_alone[image, prior] = False
        return AnchorAssignment(
            image=image,
            prior=prior,
            boxes=objects.boxes[kept],
            labels=objects.labels[kept],
            left_alone=left_alone,
            num_displaced=len(anchor) - len(kept),
        )

    def _priors_at_centres(self, boxes: Tensor, num_anchors: int, grids_hw: list[tuple[int, int]]) -> Tensor:
        """(N, 4) boxes → (N, L * K) int64, the prior of each anchor in the cell of the box's centre."""
        per_level, offset = [], 0
        for stride, (rows, columns) in zip(self.strides, grids_hw, strict=True):
            first = offset + centre_cells(boxes, stride, (rows, columns)) * num_anchors
            per_level.append(first[:, None] + torch.arange(num_anchors, device=boxes.device))
            offset += rows * columns * num_anchors
        return torch.cat(per_level, dim=1)

    def _overlapping(self, target: BoxTargets, predicted: Tensor) -> Tensor:
        """(A, 4) predicted boxes of one image → (A,) bool, true where one overlaps an object."""
        area = box_area(predicted)[:, None]
        found = torch.zeros(len(predicted), dtype=torch.bool, device=predicted.device)
        size = max(PAIRS_AT_ONCE // len(predicted), 1)
        for boxes, ignore in zip(torch.split(target.boxes, size), torch.split(target.ignore, size), strict=True):
            iou = pairwise_iou(predicted, boxes)
            intersection = iou / (1 + iou) * (area + box_area(boxes))
            overlap = torch.where(ignore, intersection / area.clamp(min=torch.finfo(area.dtype).tiny), iou)
            found |= (overlap > self.ignore_iou).any(dim=1)
        return found


def shape_iou(sizes1: Tensor, sizes2: Tensor) -> Tensor:
    """(N, 2) and (M, 2) widths and heights → (N, M) IoU of boxes of these sizes that share their centre."""
    return pairwise_iou(torch.cat([-sizes1 / 2, sizes1 / 2], dim=1), torch.cat([-sizes2 / 2, sizes2 / 2], dim=1))


def match_anchors(priors: Tensor, quality: Tensor) -> Tensor:
    """Give every object the best anchor that no better fitting object claims (Gale, Shapley 1962).

    Args:
        priors: (N, M) int64, the prior that each anchor would be for each object; equal numbers are one prior.
        quality: (N, M) float in [0, 1], how well the anchors fit the objects.

    Returns:
        (N,) int64, the anchor of each object, -1 where all are taken.
    """
    refused = torch.zeros_like(quality, dtype=torch.bool)
    row = torch.arange(len(quality), device=quality.device)
    while True:  # each round but the last refuses at least one pair for good
        fit, anchor = quality.masked_fill(refused, -1).max(dim=1)  # of equals the first anchor
        asking = row[fit >= 0]
        asking = asking[torch.argsort(fit[asking], descending=True, stable=True)]
        loses = asking[~first_claims(priors[asking, anchor[asking]])]
        if len(loses) == 0:
            return anchor.masked_fill(fit < 0, -1)
        refused[loses, anchor[loses]] = True
