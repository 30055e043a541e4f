"""The anchor scheme of YOLOv2 and YOLOv3: boxes are refined from anchors, each with an objectness and its own classes.

Redmon, Farhadi, "YOLO9000: Better, Faster, Stronger", 2017, section 2; "YOLOv3: An Incremental Improvement", 2018,
section 2.  Letters: B images, L levels, K anchors a level, A priors (level by level, row by row, the anchors of a cell
side by side), C classes, N counted objects of the batch, P positives.

Where this differs from the papers:
- The boxes are learned by complete IoU (Zheng et al. 2020) of the decoded box instead of squared errors of
  tx, ty, tw, th: it is what AP measures, and weighs small and large objects alike.
- The target of objectness is the current IoU, as in YOLO9000; YOLOv3 has 1.  So well placed boxes rank first.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert

from detseg.errors import DataError
from detseg.models.interface import LossTerms
from detseg.models.yolo.scheme import (
    Assignment,
    Candidates,
    PriorIndex,
    batch_objects,
    cell_points,
    centre_cells,
    gather_outputs,
    is_first,
)
from detseg.ops.boxes import box_area, matched_ciou, matched_iou, pairwise_iou
from detseg.ops.processes import shared_normaliser
from detseg.structures import BoxTargets, FloatArray, IntArray

_INITIAL_OBJECTNESS = 0.01
"""Objectness of an untrained network: nearly all priors are empty, and at 0.5 their loss would drown the rest
(Lin et al. 2017, "Focal Loss", section 3.3)."""

_MAX_LOG_SCALE = 6.0
"""tw and th are clamped to ± this, so a box is at most 400 times its anchor: the exponential of a wild output would
overflow to infinity and turn the losses into NaN."""

_PAIRS_AT_ONCE = 2**20
"""Pairs of a prior and an object that are compared together, so that an image of 2000 objects needs no more memory
than one of 20."""

_NUM_STARTS = 5  # k-means ends in the nearest local optimum; of several starts the best one counts

_MIN_GAIN = 1e-4
"""k-means stops when a step adds less to the mean IoU: no detector feels it, and large sets would take minutes."""


class AnchorAssigner:
    """Gives each counted object the anchor, over all levels, of best shape IoU (both centred on one point).

    The prior is that anchor in the cell that holds the object's centre on the anchor's level (YOLOv3, section 2.1).
    When several objects claim one prior, the one of best shape IoU has it (of equals the first in the targets), and the
    others take their next best anchor that is free or whose holder fits it less well, who then moves on in turn.  Only
    an object that finds every anchor of its cells taken stays without one.

    A prior without an object is ignored when the box that it predicts now (YOLOv3; not the anchor's own box) overlaps
    an object by more than ``ignore_iou``: by IoU for a counted object, by the fraction of the predicted box that lies
    inside for an ignored one, which may be a region of many objects (COCO scores crowds in the same way).

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
    ) -> Assignment:
        """Assign the objects of B targets in input pixels.

        Args:
            targets: of B images.
            anchors: (L, K, 2) float32 widths and heights in input pixels.
            grids_hw: rows and columns of cells of each level.
            predicted: (B, A, 4) float32 xyxy in input pixels, the boxes that the network predicts now.
        """
        every = batch_objects(targets)
        objects = every[~every.ignore]
        priors = self._priors_at_centres(objects.boxes, anchors.shape[1], grids_hw)  # (N, L * K)
        quality = shape_iou(objects.boxes[:, 2:] - objects.boxes[:, :2], anchors.flatten(0, 1))
        anchor = match_anchors(objects.image[:, None] * predicted.shape[1] + priors, quality)
        kept = (anchor >= 0).nonzero()[:, 0]
        image, prior = objects.image[kept], priors[kept, anchor[kept]]
        ignored = torch.stack(
            [self._overlapping(target, boxes) for target, boxes in zip(targets, predicted, strict=True)]
        )
        ignored[image, prior] = False
        return Assignment(
            image=image,
            prior=prior,
            boxes=objects.boxes[kept],
            labels=objects.labels[kept],
            objects=torch.nonzero(~every.ignore).flatten()[kept],
            ignored=ignored,
            num_unassigned=len(anchor) - len(kept),
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
        size = max(_PAIRS_AT_ONCE // len(predicted), 1)
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
        loses = asking[~is_first(priors[asking, anchor[asking]])]
        if len(loses) == 0:
            return anchor.masked_fill(fit < 0, -1)
        refused[loses, anchor[loses]] = True


class AnchorScheme(nn.Module):
    """Losses and decoding of YOLOv2 and YOLOv3.

    A raw map holds K times (tx, ty, tw, th, objectness), then K times C classes.  The anchors are a buffer, so that
    they travel in the state dict.

    Args:
        num_classes: C.
        strides: L strides in input pixels, finest first.
        anchors: L lists of K (width, height) in input pixels.
        ignore_iou: a prior whose predicted box overlaps an object by more than this, and that is not responsible, is
            not a negative.
        box_weight, objectness_weight, class_weight: weights of the three losses.
        class_weights: (C,) float32, how often the ``class`` loss of a positive counts by the class of its object; None:
            once.
    """

    anchors: Tensor
    class_weights: Tensor | None

    def __init__(
        self,
        num_classes: int,
        strides: tuple[int, ...],
        anchors: Sequence[Sequence[tuple[float, float]]],
        ignore_iou: float = 0.5,
        box_weight: float = 5.0,
        objectness_weight: float = 1.0,
        class_weight: float = 1.0,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32))  # (L, K, 2)
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.strides = tuple(strides)
        self.num_classes = num_classes
        self.anchors_per_level = self.anchors.shape[1]
        self.box_outputs = 5 * self.anchors_per_level
        self.class_outputs = num_classes * self.anchors_per_level
        self.box_weight = box_weight
        self.objectness_weight = objectness_weight
        self.class_weight = class_weight
        self.assigner = AnchorAssigner(self.strides, ignore_iou)

    def initial_bias(self, stride: int) -> Tensor:
        """(5 K + K C,) biases: boxes start as the anchors, with little objectness, and classes at 1 / (C + 1)."""
        box = torch.zeros(self.anchors_per_level, 5)
        box[:, 4] = math.log(_INITIAL_OBJECTNESS / (1 - _INITIAL_OBJECTNESS))
        return torch.cat([box.flatten(), torch.full((self.class_outputs,), -math.log(self.num_classes))])

    def losses(self, maps: list[Tensor], targets: list[BoxTargets]) -> LossTerms:
        """Box, objectness and class loss, each summed over the batch and divided by the number of positives.

        Where there are fewer positives than images, by the number of images, so that a batch of empty images does not
        take a huge step.

        Args:
            maps: L raw maps, (B, 5 K + K C, H / s, W / s) float32.
            targets: B targets in input pixels.

        Returns:
            ``box`` (1 - complete IoU) and ``class`` (binary cross-entropy summed over C, multi-label as in YOLOv3) of
            the positives, ``objectness`` (binary cross-entropy) of all priors that are not ignored; all weighted.
        """
        outputs, logits = self._flatten(maps)
        boxes = self._boxes(outputs, maps)
        found = self.assigner(targets, self.anchors, [(m.shape[2], m.shape[3]) for m in maps], boxes.detach())
        if found.num_unassigned:
            # The text is constant, so that Python shows it once.
            warnings.warn(
                "more objects have their centre in one place than there are anchors; those that fit no free anchor are"
                " not learned; more anchors a level or a finer stride learns them",
                stacklevel=2,
            )
        positive = boxes[found.image, found.prior]  # (P, 4)
        objectness = torch.zeros_like(outputs[..., 4])
        objectness[found.image, found.prior] = matched_iou(positive.detach(), found.boxes)
        object_loss = F.binary_cross_entropy_with_logits(outputs[..., 4], objectness, reduction="none")
        one_hot = F.one_hot(found.labels, self.num_classes).to(logits.dtype)
        weights = None if self.class_weights is None else self.class_weights[found.labels, None]  # (P, 1)
        of_positives = logits[found.image, found.prior]  # (P, C)
        class_loss = F.binary_cross_entropy_with_logits(of_positives, one_hot, weights, reduction="sum")
        positives = shared_normaliser(len(found.labels), self.training, logits)
        normaliser = torch.maximum(positives, shared_normaliser(len(targets), self.training, logits))
        return {
            "box": self.box_weight * (1 - matched_ciou(positive, found.boxes)).sum() / normaliser,
            "objectness": self.objectness_weight * (object_loss * ~found.ignored).sum() / normaliser,
            "class": self.class_weight * class_loss / normaliser,
        }

    def best_scores(self, maps: list[Tensor]) -> Tensor:
        """L raw maps, (B, 5 K + K C, H / s, W / s) float32 → (B, A) the best class score of each prior."""
        objectness, best = [], []
        for raw in maps:
            classes = torch.split(raw[:, self.box_outputs :], self.num_classes, dim=1)
            by_anchor = torch.stack([logits.amax(dim=1) for logits in classes], dim=-1)  # (B, H, W, K)
            best.append(by_anchor.flatten(1))
            objectness.append(raw[:, 4 : self.box_outputs : 5].permute(0, 2, 3, 1).flatten(1))
        return torch.cat(objectness, dim=1).sigmoid() * torch.cat(best, dim=1).sigmoid()

    def decode(self, maps: list[Tensor], index: PriorIndex | None = None) -> Candidates:
        """L raw maps, (B, 5 K + K C, H / s, W / s) float32 → B times A candidates, or P; scores are objectness ×
        class."""
        if index is None:
            outputs, logits = self._flatten(maps)
            boxes = self._boxes(outputs, maps)
        else:
            anchor = index.prior % self.anchors_per_level
            row = torch.arange(len(anchor), device=anchor.device)
            by_anchor = self._by_anchor(gather_outputs(maps, index.image, index.prior // self.anchors_per_level))
            outputs, logits = (numbers[row, anchor] for numbers in by_anchor)
            boxes = self._boxes(outputs, maps, index.prior)
        return Candidates(boxes, outputs[..., 4:].sigmoid() * logits.sigmoid())

    def _flatten(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """L raw maps → (B, A, 5) tx, ty, tw, th, objectness and (B, A, C) classes, all logits."""
        levels = [self._by_anchor(raw.permute(0, 2, 3, 1)) for raw in maps]
        outputs, logits = (torch.cat([x.flatten(1, 3) for x in part], dim=1) for part in zip(*levels, strict=True))
        return outputs, logits

    def _by_anchor(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(..., 5 K + K C) outputs of cells → (..., K, 5) and (..., K, C)."""
        shape = (*rows.shape[:-1], self.anchors_per_level)
        boxes, classes = rows[..., : self.box_outputs], rows[..., self.box_outputs :]
        return boxes.reshape(*shape, 5), classes.reshape(*shape, self.num_classes)

    def _boxes(self, outputs: Tensor, maps: list[Tensor], prior: Tensor | None = None) -> Tensor:
        """(B, A, 5) outputs → (B, A, 4) xyxy in input pixels (YOLOv3, section 2.1); or (P, 5) of P priors."""
        points = cell_points(maps, self.strides)
        levels = zip(self.anchors, maps, strict=True)
        sizes = torch.cat([anchors.repeat(raw.shape[-2] * raw.shape[-1], 1) for anchors, raw in levels])
        prior = torch.arange(sizes.shape[0], device=outputs.device) if prior is None else prior
        cell = prior // self.anchors_per_level
        stride = points.strides[cell, None]
        corner = points.centres[cell] / stride - 0.5  # in cells
        centre = (outputs[..., :2].sigmoid() + corner) * stride
        sides = sizes[prior] * outputs[..., 2:4].clamp(-_MAX_LOG_SCALE, _MAX_LOG_SCALE).exp()
        boxes: Tensor = box_convert(torch.cat([centre, sides], dim=-1), "cxcywh", "xyxy")
        return boxes


def fit_anchors(sizes: FloatArray, num_anchors: int, seed: int) -> FloatArray:
    """The anchors that overlap the boxes of a data set best, by k-means with the distance 1 - IoU.

    Redmon, Farhadi 2017, section 2 ("Dimension Clusters"); seeds after Arthur, Vassilvitskii, "k-means++", 2007.  A
    cluster's anchor is the median of its widths and of its heights, not their mean: 1 - IoU is at most
    |log w - log w'| + |log h - log h'|, which the median minimises, while the mean is drawn to large boxes.

    Args:
        sizes: (N, 2) float64 positive widths and heights of boxes in input pixels.
        num_anchors: K, at least 1.
        seed: the same seed and sizes give the same anchors.

    Returns:
        (K, 2) float64 widths and heights in input pixels, by growing area.

    Raises:
        DataError: the boxes have fewer different sizes than K.
    """
    num_distinct = len(np.unique(sizes, axis=0))
    if num_distinct < num_anchors:
        raise DataError(
            f"cannot fit {num_anchors} anchors: the {len(sizes)} training boxes have {num_distinct} different sizes;"
            " ask for fewer anchors a level (model.head.anchors_per_level), list model.head.anchors, or add boxes"
        )
    rng = np.random.default_rng(seed)
    best = max(
        (_run_k_means(sizes, _seed_anchors(sizes, num_anchors, rng)) for _ in range(_NUM_STARTS)),
        key=lambda anchors: mean_best_iou(sizes, anchors),
    )
    return best[np.argsort(best.prod(axis=1), kind="stable")]


def mean_best_iou(sizes: FloatArray, anchors: FloatArray) -> float:
    """Mean over (N, 2) sizes of the IoU with the best of (K, 2) anchors, in [0, 1]; what YOLO9000's table 1 reports."""
    return float(_sizes_iou(sizes, anchors).max(axis=1).mean())


def refine_anchors(sizes: FloatArray, iou: FloatArray) -> FloatArray:
    """One step of k-means on (N, 2) sizes with (N, K) IoU: each of K anchors becomes the median of the boxes nearest to
    it; one that no box is nearest to becomes the worst covered box instead (several: the next worst ones)."""
    nearest: IntArray = iou.argmax(axis=1)
    clusters = [sizes[nearest == k] for k in range(iou.shape[1])]
    refined = np.array([np.median(cluster, axis=0) if len(cluster) else (0, 0) for cluster in clusters])
    empty = [k for k, cluster in enumerate(clusters) if len(cluster) == 0]
    if empty:
        worst, first = np.unique(sizes[np.argsort(iou.max(axis=1), kind="stable")], axis=0, return_index=True)
        refined[empty] = worst[np.argsort(first)][: len(empty)]
    return refined


def _run_k_means(sizes: FloatArray, anchors: FloatArray) -> FloatArray:
    """Refine until the mean IoU hardly grows; the median of a cluster need not be its optimum, so it may fall."""
    iou = _sizes_iou(sizes, anchors)
    while True:
        refined = refine_anchors(sizes, iou)
        refined_iou = _sizes_iou(sizes, refined)
        if refined_iou.max(axis=1).mean() < iou.max(axis=1).mean() + _MIN_GAIN:
            return anchors
        anchors, iou = refined, refined_iou


def _seed_anchors(sizes: FloatArray, num_anchors: int, rng: np.random.Generator) -> FloatArray:
    """Boxes drawn one after the other with a probability that grows with the squared distance to those drawn."""
    chosen = [int(rng.integers(len(sizes)))]
    distance = 1 - _sizes_iou(sizes, sizes[chosen])[:, 0]
    while len(chosen) < num_anchors:
        weight = distance**2
        chosen.append(int(rng.choice(len(sizes), p=weight / weight.sum())))
        distance = np.minimum(distance, 1 - _sizes_iou(sizes, sizes[chosen[-1:]])[:, 0])
    return sizes[chosen]


def _sizes_iou(sizes: FloatArray, anchors: FloatArray) -> FloatArray:
    """(N, 2) and (K, 2) → (N, K)."""
    width = np.minimum(sizes[:, None, 0], anchors[None, :, 0])
    intersection: FloatArray = width * np.minimum(sizes[:, None, 1], anchors[None, :, 1])
    union: FloatArray = sizes.prod(axis=1)[:, None] + anchors.prod(axis=1)[None] - intersection
    return np.divide(intersection, union)
