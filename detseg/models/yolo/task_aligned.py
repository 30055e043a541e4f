"""The anchor-free scheme: points, task-aligned assignment, CIoU and distribution focal loss.

Sources: Feng et al. 2021 (TOOD; assignment and IoU-weighted classes), Zheng et al. 2020 (CIoU), Li et al. 2020
("Generalized Focal Loss"; the distribution of a side's distance, section 3.3).

Letters: B images, A points of an image, C classes, R bins of a distance, N objects of the whole batch, J objects of a
chunk, M = min(topk, A) candidates of an object, P = N M pairs of an object and a candidate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detseg.models.interface import LossTerms
from detseg.models.yolo.scheme import (
    BatchObjects,
    Candidates,
    Points,
    PriorIndex,
    batch_objects,
    cell_points,
    flatten_maps,
    gather_outputs,
)
from detseg.ops.boxes import EPSILON, box_area, matched_ciou
from detseg.ops.processes import shared_normaliser
from detseg.structures import BoxTargets

_AREA_OF_AN_OBJECT = 200.0**2
"""Square pixels of image to one object: COCO's 860 000 objects in 118 000 images of about 640 × 480 pixels."""

PAIRS_AT_ONCE = 2**18
"""Pairs of an object and a point that are compared together: 1 MB of float32, which stays in a processor's cache, and
an image of 2000 objects needs no more memory than one of 100."""

_GPU_PAIRS_AT_ONCE = 2**22  # on a GPU, where each chunk is a launch of its own and memory is faster than that


@dataclass(frozen=True, eq=False)
class TaskAlignedAssignment:
    """The assignment of a batch. All shapes follow from those of the input, so that no GPU is waited for."""

    prior: Tensor  # (N, M) int64, the candidates of each object
    positive: Tensor  # (N, M) bool, those that it has in the end; no point of an image is the positive of two objects
    # (N, M) float32 in [0, 1], the class target t̂ of a positive: t scaled so that an object's best point gets the
    # object's best IoU (the paper's normalised t); 0 where not positive.
    weight: Tensor
    ignored: Tensor  # (B, A) bool, points inside an ignore region that are not positive


class TaskAlignedAssigner:
    """Task-aligned assignment (Feng et al. 2021, "TOOD", section 3.2): which points are positive for which object.

    A point's alignment with an object is t = s^α · u^β, with s its score for the object's class and u the IoU of its
    box with the object.  The ``topk`` best aligned points inside an object are its candidates; a candidate of several
    objects is the positive of the one that it overlaps most, of equals the first.  An object narrower than the finest
    cell counts as one such cell wide, so that some point lies in it.

    Args:
        topk: m of the paper, most positives of an object.
        alpha: exponent of the class score.
        beta: exponent of the IoU.
    """

    def __init__(self, topk: int = 13, alpha: float = 1.0, beta: float = 6.0) -> None:
        self.topk = topk
        self.alpha = alpha
        self.beta = beta

    @torch.no_grad()
    def __call__(
        self, class_logits: Tensor, boxes: Tensor, points: Points, objects: BatchObjects
    ) -> TaskAlignedAssignment:
        """Match (B, A, C) class logits and (B, A, 4) xyxy predicted boxes at A points with the objects of B images.

        All are float32, and in input pixels.
        """
        num_images, num_priors = boxes.shape[:2]
        sides = boxes.transpose(1, 2).contiguous()  # (B, 4, A): each coordinate side by side, as vector units want it
        ignored = torch.zeros(num_images, num_priors, device=boxes.device)
        size = max((_GPU_PAIRS_AT_ONCE if boxes.is_cuda else PAIRS_AT_ONCE) // num_priors, 1)
        chunks = [
            self._candidates(class_logits, sides, points, objects[start : start + size], ignored)
            for start in range(0, max(len(objects.image), 1), size)
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
        """The candidates of J objects: point, t and IoU, (J, M) each; t is -1 where an object has no candidate.

        Counts the ignored objects that each point of an image lies in, in ``ignored``, (B, A) float32.
        """
        in_region = _inside(points.centres, objects.boxes) & objects.ignore[:, None]
        ignored.index_add_(0, objects.image, in_region.to(ignored.dtype))

        iou = _iou_with_priors(objects, sides)  # (J, A)
        prior = torch.arange(sides.shape[2], device=sides.device)
        score = class_logits[objects.image[:, None], prior, objects.labels[:, None]].sigmoid_()  # (J, A)
        t = score.pow_(self.alpha).mul_(iou**self.beta)
        t = t.where(candidate_points(points, objects.boxes) & ~objects.ignore[:, None], -1.0)
        best = t.topk(min(self.topk, t.shape[1]), dim=1)
        return best.indices, best.values, iou.gather(1, best.indices)


def _iou_with_priors(objects: BatchObjects, sides: Tensor) -> Tensor:
    """(J, A) IoU of objects with the predicted boxes of their own images, of which (B, 4, A) are the coordinates.

    It is ``pairwise_iou``, three times as fast: that has the coordinates of a box side by side.
    """
    left, top, right, bottom = sides[objects.image].unbind(dim=1)  # (J, A) each
    x1, y1, x2, y2 = objects.boxes[:, :, None].unbind(dim=1)  # (J, 1) each
    width = torch.minimum(right, x2).sub_(torch.maximum(left, x1)).clamp_(min=0)
    inter = torch.minimum(bottom, y2).sub_(torch.maximum(top, y1)).clamp_(min=0).mul_(width)
    area = (right - left).clamp_(min=0).mul_((bottom - top).clamp_(min=0))
    union = area.add_(box_area(objects.boxes)[:, None]).sub_(inter)
    return inter.div_(union.clamp_(min=EPSILON))


def _best_claims(place: Tensor, overlap: Tensor, num_places: int) -> Tensor:
    """(N, M) claims of some overlap (below 0: none) to places, which differ within a row → (N, M) bool: of the claims
    to a place the one of most overlap, of equals the one of the first row."""
    num = len(place)
    most = overlap.new_full((num_places,), -1.0).scatter_reduce_(0, place.flatten(), overlap.flatten(), "amax")
    best = (overlap >= 0) & (overlap == most[place])
    row = torch.arange(num, device=place.device)[:, None].expand_as(place)
    claims = row.where(best, num)
    first = place.new_full((num_places,), num).scatter_reduce_(0, place.flatten(), claims.flatten(), "amin")
    return best & (row == first[place])


def candidate_points(points: Points, boxes: Tensor) -> Tensor:
    """(J, 4) xyxy boxes → (J, A) bool, the points inside each, which is at least as wide as the finest cell."""
    return _inside(points.centres, _at_least_wide(boxes, points.strides[0]))


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    """(A, 2) points and (J, 4) boxes → (J, A) bool."""
    x, y = points.unbind(dim=1)
    x1, y1, x2, y2 = boxes[:, :, None].unbind(dim=1)
    return (x > x1) & (x < x2) & (y > y1) & (y < y2)


def _at_least_wide(boxes: Tensor, width: Tensor) -> Tensor:
    """Boxes grown about their centres until both sides exceed the scalar ``width``, so that a point lies inside."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = torch.maximum((boxes[:, 2:] - boxes[:, :2]) / 2, width / 2 * 1.001)
    return torch.cat([centre - half, centre + half], dim=1)


class TaskAlignedScheme(nn.Module):
    """Every cell predicts C class scores and, for each side of a box, a distribution of its distance in cells.

    Args:
        num_classes: C.
        strides: strides of the raw maps.
        assigner: decides which points are positive.
        reg_max: R; the distances 0, 1, ... R - 1 cells.
        box_weight, class_weight, dfl_weight: weights of the three losses.
        class_weights: (C,) float32, how often the ``class`` loss of a positive counts by the class of its object; None:
            once.
    """

    distances: Tensor
    class_weights: Tensor | None

    def __init__(
        self,
        num_classes: int,
        strides: tuple[int, ...],
        assigner: TaskAlignedAssigner,
        reg_max: int = 16,
        box_weight: float = 10.0,
        class_weight: float = 1.0,
        dfl_weight: float = 2.0,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.strides = strides
        self.reg_max = reg_max
        self.box_outputs = 4 * reg_max
        self.class_outputs = num_classes
        self.assigner = assigner
        self.box_weight = box_weight
        self.class_weight = class_weight
        self.dfl_weight = dfl_weight
        self.register_buffer("distances", torch.arange(reg_max, dtype=torch.float32), persistent=False)
        self.register_buffer("class_weights", class_weights, persistent=False)

    def initial_bias(self, stride: int) -> Tensor:
        """Uniform distances; class scores at the fraction of cells that will be positive, so that the many negatives
        do not drown the start (Lin et al. 2017, "Focal Loss", section 3.3, where the fraction is a flat 0.01).

        An object has ``topk`` positives on all strides together, and one of C classes.
        """
        positives = self.assigner.topk / len(self.strides)
        prior = min(positives * stride**2 / _AREA_OF_AN_OBJECT / self.class_outputs, 0.01)
        return torch.cat(
            [torch.zeros(self.box_outputs), torch.full((self.class_outputs,), math.log(prior / (1 - prior)))]
        )

    def losses(self, maps: list[Tensor], targets: list[BoxTargets]) -> LossTerms:
        """(B, 4R + C, H / s, W / s) raw maps and B targets → ``box``, ``class`` and ``dfl``."""
        points = cell_points(maps, self.strides)
        box_logits, class_logits = torch.split(flatten_maps(maps), [self.box_outputs, self.class_outputs], dim=-1)
        class_logits = class_logits.contiguous()  # softplus takes half of the time
        with torch.no_grad():
            predicted = self._decode_boxes(points, box_logits)
        objects = batch_objects(targets)
        found = self.assigner(class_logits, predicted, points, objects)

        # Flat from here, P candidates of all objects; those that are no positives have a weight of 0.  Dropping them
        # would wait for the GPU, and nearly all are positives.
        prior, weight = found.prior.flatten(), found.weight.flatten()
        row = torch.arange(len(prior), device=prior.device) // found.prior.shape[1]
        image, boxes, label = objects.image[row], objects.boxes[row], objects.labels[row]
        normaliser = shared_normaliser(weight.sum(), self.training, weight)

        side_logits = box_logits[image, prior].view(-1, 4, self.reg_max)  # (P, 4, R)
        centres, cells = points.centres[prior], points.strides[prior, None]
        placed = _boxes_from_distances(centres, self._expected(side_logits) * cells)
        box_loss = ((1 - matched_ciou(placed, boxes)) * weight).sum() / normaliser
        side_targets = torch.cat([centres - boxes[:, :2], boxes[:, 2:] - centres], dim=1) / cells
        dfl_loss = (distribution_focal_loss(side_logits, side_targets) * weight).sum() / normaliser

        # Binary cross-entropy is softplus(x) - x · t, and the target t is 0 but for the class of a positive: the sum of
        # the first part over all classes of a prior, less the few second ones, takes half of the time of both in full.
        entropy = F.softplus(class_logits).sum(dim=-1).flatten()  # (B A)
        place = image * class_logits.shape[1] + prior  # (P,)
        wanted = class_logits[image, prior, label] * weight  # (P,)
        entropy = entropy.index_add(0, place, wanted, alpha=-1)
        # Where all classes are learned perfectly, rounding can leave less than 0.
        entropy = entropy.clamp(min=0)
        if self.class_weights is not None:
            more = (self.class_weights[label] - 1) * found.positive.flatten()  # (P,)
            entropy = entropy * torch.ones_like(entropy).index_add(0, place, more)
        class_loss = (entropy * ~found.ignored.flatten()).sum() / normaliser
        return {
            "box": self.box_weight * box_loss,
            "class": self.class_weight * class_loss,
            "dfl": self.dfl_weight * dfl_loss,
        }

    def best_scores(self, maps: list[Tensor]) -> Tensor:
        """(B, 4R + C, H / s, W / s) raw maps → (B, A) the best class score of each point."""
        return torch.cat([raw[:, self.box_outputs :].amax(dim=1).flatten(1) for raw in maps], dim=1).sigmoid()

    def decode(self, maps: list[Tensor], index: PriorIndex | None = None) -> Candidates:
        """(B, 4R + C, H / s, W / s) raw maps → (B, A, 4) boxes and (B, A, C) scores, or (P, 4) and (P, C)."""
        points = cell_points(maps, self.strides)
        if index is None:
            outputs = flatten_maps(maps)
        else:
            points = Points(points.centres[index.prior], points.strides[index.prior])
            outputs = gather_outputs(maps, index.image, index.prior)
        boxes = self._decode_boxes(points, outputs[..., : self.box_outputs])
        return Candidates(boxes, outputs[..., self.box_outputs :].sigmoid())

    def _decode_boxes(self, points: Points, box_logits: Tensor) -> Tensor:
        sides = self._expected(box_logits.reshape(*box_logits.shape[:-1], 4, self.reg_max))  # (..., A, 4) in cells
        return _boxes_from_distances(points.centres, sides * points.strides[:, None])

    def _expected(self, side_logits: Tensor) -> Tensor:
        """(..., R) logits → (...) mean distance in cells."""
        # A matrix of one column: exported, a product with a vector is more than OpenCV's DNN module can read.
        return (side_logits.softmax(dim=-1) @ self.distances[:, None])[..., 0]


def distribution_focal_loss(side_logits: Tensor, distances: Tensor) -> Tensor:
    """Cross-entropy with the two bins around the true distance (Li et al. 2020, eq. 6), mean over the four sides.

    Args:
        side_logits: (P, 4, R) float.
        distances: (P, 4) float, in cells; those beyond the last bin count as just below it.

    Returns:
        (P,) float.
    """
    distances = distances.clamp(0, side_logits.shape[-1] - 1 - 0.01)
    lower = distances.floor()
    upper_fraction = distances - lower
    log_probabilities = side_logits.log_softmax(dim=-1)
    index = lower.long()[..., None]
    at_lower = log_probabilities.gather(2, index)[..., 0]
    at_upper = log_probabilities.gather(2, index + 1)[..., 0]
    return -(at_lower * (1 - upper_fraction) + at_upper * upper_fraction).mean(dim=1)


def _boxes_from_distances(centres: Tensor, distances: Tensor) -> Tensor:
    """(A, 2) points and (..., A, 4) distances to left, top, right, bottom in pixels → (..., A, 4) xyxy."""
    return torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], dim=-1)
