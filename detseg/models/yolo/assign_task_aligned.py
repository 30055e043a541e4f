"""Task-aligned assignment (Feng et al. 2021, "TOOD", section 3.2): which priors are positive for which object.

A prior's alignment with an object is t = s^α · u^β, with s its score for the object's class and u the IoU of its box
with the object.  The m best aligned priors inside an object are its positives.

Letters: A priors, T objects of one image, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detseg.models.yolo.priors import Points
from detseg.ops.boxes import pairwise_iou
from detseg.structures import BoxTargets


@dataclass(frozen=True)
class TaskAlignedAssignment:
    """The assignment of one image.

    Attributes:
        target_index: (A,) int64 position of the prior's object among the image's counted targets; -1: negative.
        alignment: (A,) float32 in [0, 1], the class target t̂ of a positive: t scaled so that an object's best prior
            gets the object's best IoU (the paper's normalised t); 0 for negatives.
        ignored: (A,) bool, negatives inside an ignore region, which are no negatives after all.
    """

    target_index: Tensor
    alignment: Tensor
    ignored: Tensor


class TaskAlignedAssigner:
    """Assigns the priors of one image at a time, so that memory grows with its own objects, not with the fullest image.

    Args:
        top_candidates: m of the paper, most positives an object.
        alpha: exponent of the class score.
        beta: exponent of the IoU.
    """

    def __init__(self, top_candidates: int = 13, alpha: float = 1.0, beta: float = 6.0) -> None:
        self.top_candidates = top_candidates
        self.alpha = alpha
        self.beta = beta

    @torch.no_grad()
    def assign(self, scores: Tensor, boxes: Tensor, points: Points, target: BoxTargets) -> TaskAlignedAssignment:
        """Match the predictions of one image with its objects.

        A prior lies inside an object when its point does; an object narrower than the finest cell counts as one such
        cell wide, so that some point lies in it.  A prior wanted by several objects goes to the one it overlaps most.

        Args:
            scores: (A, C) float32 class probabilities.
            boxes: (A, 4) float32 xyxy predicted boxes in input pixels.
            points: the A priors.
            target: the image's objects in input pixels.
        """
        ignored = _inside(points.centres, target.boxes[target.ignore]).any(dim=0)
        counted = target.counted
        num_priors = len(scores)
        if not len(counted):
            nothing = torch.full((num_priors,), -1, device=scores.device)
            return TaskAlignedAssignment(nothing, torch.zeros(num_priors, device=scores.device), ignored)

        finest_cell = float(points.strides[0])
        inside = _inside(points.centres, _at_least_wide(counted.boxes, finest_cell))  # (T, A)
        iou = pairwise_iou(counted.boxes, boxes)  # (T, A)
        alignment = scores[:, counted.labels].T ** self.alpha * iou**self.beta  # (T, A)
        ranked = torch.where(inside, alignment, -1.0)
        best = ranked.topk(min(self.top_candidates, num_priors), dim=1)
        candidate = torch.zeros_like(inside).scatter_(1, best.indices, best.values >= 0)

        overlap = torch.where(candidate, iou, -1.0)
        best_iou, target_index = overlap.max(dim=0)  # (A,)
        positive = best_iou >= 0
        mine = torch.arange(len(counted), device=scores.device)[:, None] == target_index  # (T, A)
        candidate &= mine

        alignment = alignment * candidate
        top_alignment = alignment.amax(dim=1, keepdim=True)
        top_iou = (iou * candidate).amax(dim=1, keepdim=True)
        smallest = torch.finfo(alignment.dtype).tiny  # the alignment of an IoU of 0.001 is about 1e-18
        normalised = alignment / top_alignment.clamp(min=smallest) * top_iou  # (T, A)
        return TaskAlignedAssignment(
            torch.where(positive, target_index, -1), normalised.amax(dim=0).clamp(max=1.0), ignored & ~positive
        )


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    """(A, 2) points and (T, 4) boxes → (T, A) bool."""
    x, y = points.unbind(dim=1)
    x1, y1, x2, y2 = boxes[:, :, None].unbind(dim=1)
    return (x > x1) & (x < x2) & (y > y1) & (y < y2)


def _at_least_wide(boxes: Tensor, width: float) -> Tensor:
    """Boxes grown about their centres until both sides exceed ``width``, so that a grid point lies inside."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = ((boxes[:, 2:] - boxes[:, :2]) / 2).clamp(min=width / 2 * 1.001)
    return torch.cat([centre - half, centre + half], dim=1)
