"""Task-aligned assignment (Feng et al. 2021, "TOOD", section 3.2): which priors are positive for which object.

A prior's alignment with an object is t = s^α · u^β, with s its score for the object's class and u the IoU of its box
with the object.  The m best aligned priors inside an object are its candidates; a candidate of several objects is the
positive of the one that it overlaps most.

Letters: B images, A priors of an image, C classes, N objects of the whole batch, K objects of a chunk, M = min(m, A)
candidates of an object.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from detseg.models.yolo.objects import BatchObjects
from detseg.models.yolo.priors import Points
from detseg.ops.boxes import EPSILON, box_area

PAIRS_AT_ONCE = 2**18
"""So many pairs of an object and a prior are looked at together: 1 MB of float32, which stays in a processor's cache,
and an image of 2000 objects needs no more memory than one of 100."""

GPU_PAIRS_AT_ONCE = 2**22
"""On a GPU, where each chunk is a launch of its own and memory is faster than that."""


class TaskAlignedAssignment(NamedTuple):
    """The assignment of a batch.  All shapes follow from those of the input, so that no GPU is waited for.

    Attributes:
        prior: (N, M) int64, the candidates of each object.
        positive: (N, M) bool, those that it has in the end; no prior of an image is the positive of two objects.
        weight: (N, M) float32 in [0, 1], the class target t̂ of a positive: t scaled so that an object's best prior gets
            the object's best IoU (the paper's normalised t); 0 where not positive.
        ignored: (B, A) bool, negatives inside an ignore region, which are no negatives after all.
    """

    prior: Tensor
    positive: Tensor
    weight: Tensor
    ignored: Tensor


class TaskAlignedAssigner:
    """Assigns the priors of a batch, its objects side by side, so that no image is padded to the fullest one.

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
    def __call__(
        self, class_logits: Tensor, boxes: Tensor, points: Points, objects: BatchObjects
    ) -> TaskAlignedAssignment:
        """Match the predictions of a batch with its objects.

        A prior lies inside an object when its point does; an object narrower than the finest cell counts as one such
        cell wide, so that some point lies in it.  A prior wanted by several objects goes to the one it overlaps most,
        of equals the first.

        Args:
            class_logits: (B, A, C) float32.
            boxes: (B, A, 4) float32 xyxy predicted boxes in input pixels.
            points: the A priors.
            objects: of the B images, in input pixels.
        """
        num_images, num_priors = boxes.shape[:2]
        sides = boxes.transpose(1, 2).contiguous()  # (B, 4, A): each coordinate side by side, as vector units want it
        ignored = torch.zeros(num_images, num_priors, device=boxes.device)
        size = max((GPU_PAIRS_AT_ONCE if boxes.is_cuda else PAIRS_AT_ONCE) // num_priors, 1)
        chunks = [
            self._candidates(class_logits, sides, points, BatchObjects(*rows), ignored)
            for rows in zip(*(torch.split(column, size) for column in objects), strict=True)
        ]
        prior, t, iou = (torch.cat(parts) for parts in zip(*chunks, strict=True))  # (N, M)
        place = objects.image[:, None] * num_priors + prior  # (N, M) in the batch
        positive = _best_claims(place, iou.where(t >= 0, -1.0), ignored.numel())
        taken = torch.zeros_like(ignored).flatten().index_add_(0, place.flatten(), positive.flatten().to(ignored.dtype))
        t, iou = t.where(positive, 0.0), iou.where(positive, 0.0)
        smallest = torch.finfo(t.dtype).tiny  # the t of an IoU of 0.001 is about 1e-18
        best_t, best_iou = t.amax(dim=1, keepdim=True), iou.amax(dim=1, keepdim=True)
        weight = (t / best_t.clamp(min=smallest) * best_iou).clamp(max=1.0)
        return TaskAlignedAssignment(prior, positive, weight, (ignored > 0) & (taken.view_as(ignored) == 0))

    def _candidates(
        self, class_logits: Tensor, sides: Tensor, points: Points, objects: BatchObjects, ignored: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The candidates of K objects: prior, t and IoU, (K, M) each; t is -1 where an object has no candidate.

        Counts the ignored objects that each prior of an image lies in, in ``ignored``, (B, A) float32.
        """
        in_region = _inside(points.centres, objects.boxes) & objects.ignore[:, None]
        ignored.index_add_(0, objects.image, in_region.to(ignored.dtype))

        iou = _iou_with_priors(objects, sides)  # (K, A)
        prior = torch.arange(sides.shape[2], device=sides.device)
        score = class_logits[objects.image[:, None], prior, objects.label[:, None]].sigmoid_()  # (K, A)
        t = score.pow_(self.alpha).mul_(iou**self.beta)
        inside = _inside(points.centres, _at_least_wide(objects.boxes, points.strides[0]))
        t = t.where(inside & ~objects.ignore[:, None], -1.0)
        best = t.topk(min(self.top_candidates, t.shape[1]), dim=1)
        return best.indices, best.values, iou.gather(1, best.indices)


def _iou_with_priors(objects: BatchObjects, sides: Tensor) -> Tensor:
    """(K, A) IoU of objects with the predicted boxes of their own images, of which (B, 4, A) are the coordinates.

    It is ``pairwise_iou``, at a third of its time: that has the coordinates of a box side by side.
    """
    left, top, right, bottom = sides[objects.image].unbind(dim=1)  # (K, A) each
    x1, y1, x2, y2 = objects.boxes[:, :, None].unbind(dim=1)  # (K, 1) each
    width = torch.minimum(right, x2).sub_(torch.maximum(left, x1)).clamp_(min=0)
    inter = torch.minimum(bottom, y2).sub_(torch.maximum(top, y1)).clamp_(min=0).mul_(width)
    area = (right - left).clamp_(min=0).mul_((bottom - top).clamp_(min=0))
    union = area.add_(box_area(objects.boxes)[:, None]).sub_(inter)
    return inter.div_(union.clamp_(min=EPSILON))


def _best_claims(place: Tensor, overlap: Tensor, num_places: int) -> Tensor:
    """Which of several claims to a place is the best one.

    Args:
        place: (N, M) int64 below ``num_places``; in a row each at most once.
        overlap: (N, M) float32 of each claim; below 0: none.
        num_places: B times A.

    Returns:
        (N, M) bool; of the claims to a place the one of most overlap, of equals the one of the first row.
    """
    num = len(place)
    most = overlap.new_full((num_places,), -1.0).scatter_reduce_(0, place.flatten(), overlap.flatten(), "amax")
    best = (overlap >= 0) & (overlap == most[place])
    row = torch.arange(num, device=place.device)[:, None].expand_as(place)
    claims = row.where(best, num)
    first = place.new_full((num_places,), num).scatter_reduce_(0, place.flatten(), claims.flatten(), "amin")
    return best & (row == first[place])


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    """(A, 2) points and (K, 4) boxes → (K, A) bool."""
    x, y = points.unbind(dim=1)
    x1, y1, x2, y2 = boxes[:, :, None].unbind(dim=1)
    return (x > x1) & (x < x2) & (y > y1) & (y < y2)


def _at_least_wide(boxes: Tensor, width: Tensor) -> Tensor:
    """Boxes grown about their centres until both sides exceed the scalar ``width``, so that a point lies inside."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = torch.maximum((boxes[:, 2:] - boxes[:, :2]) / 2, width / 2 * 1.001)
    return torch.cat([centre - half, centre + half], dim=1)
