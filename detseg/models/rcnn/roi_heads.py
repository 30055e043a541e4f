"""The second stage: class, box and mask of each proposal (Girshick 2015; He et al. 2017, section 3).

Letters: B images, R regions of the whole batch, O outputs of the class layer, the first of which is background,
C labels, N objects or detections of one image, P positives, H and W pixels, M cells along a side of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import clip_boxes_to_image, remove_small_boxes, roi_align

from detseg.models.interface import LossTerms
from detseg.models.rcnn.regions import BoxCoder, BoxLoss, RegionAssigner, RegionSampler, zero_loss
from detseg.ops.nms import classwise_nms
from detseg.ops.processes import shared_normaliser
from detseg.structures import BoxTargets, DetectorOutput, RoiMasks

_SMALLEST_SIDE = 1e-2
"""Shorter detections are dropped, pixels: what lies outside of the image has no side left after clipping."""

_PIXELS_AT_ONCE = 1 << 24  # pixels of masks that are floats at one time: 64 MB, however many objects an image has


class TwoLayerHead(nn.Module):
    """Two fully connected layers with ReLU, and dropout after each, as in the VGG-16 that they come from (Simonyan,
    Zisserman 2015; Girshick 2015); its weights have the names of torchvision's.

    Args:
        in_channels: numbers of a region's features.
        hidden: width of both layers.
        dropout: fraction of the outputs of each that is dropped in training.
    """

    def __init__(self, in_channels: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc6 = nn.Linear(in_channels, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.relu, self.dropout = nn.ReLU(), dropout

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, h, w) features → (R, hidden)."""
        x = x.flatten(start_dim=1)
        for layer in (self.fc6, self.fc7):
            x = self.relu(layer(x))
            if self.dropout:  # else no random number is drawn
                x = F.dropout(x, self.dropout, self.training)
        return x


class RoIHeads(nn.Module):
    """Predicts for every proposal what it is, where exactly, and which of its pixels belong to it.

    Args:
        box_pool: maps by name ("0" finest), boxes of each image and sizes of the images to features of the boxes
            (``MultiScaleRoIAlign``).
        box_head: features to vectors.
        box_predictor: vectors to O logits and 4 O differences.
        positive_iou: a proposal that overlaps an object by at least this is positive, else negative.
        batch_size_per_image, positive_fraction: see ``RegionSampler``.
        box_loss: the loss of the boxes.
        class_weights: (O,) float32, how often the ``class`` loss of a region counts by what it is; None: once.
        score_threshold: detections with a lower score are dropped before NMS.
        nms_iou: of two detections of a class that overlap by more than this, the worse one is dropped.
        max_detections: most detections of an image.
        mask_pool: as ``box_pool``, for the masks; None for a detector of boxes, as the other two.
        mask_head: features to features.
        mask_predictor: features to (R, O, M, M) logits.
        mask_weight: weight of the mask loss.
        mask_threshold: probability from which a pixel belongs to the object.
        torchvision_masks: masks are learned and placed as in torchvision's published weights; else exactly.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        box_pool: nn.Module,
        box_head: nn.Module,
        box_predictor: nn.Module,
        *,
        positive_iou: float = 0.5,
        batch_size_per_image: int = 512,
        positive_fraction: float = 0.25,
        box_loss: BoxLoss | None = None,
        class_weights: Tensor | None = None,
        score_threshold: float = 0.05,
        nms_iou: float = 0.5,
        max_detections: int = 100,
        mask_pool: nn.Module | None = None,
        mask_head: nn.Module | None = None,
        mask_predictor: nn.Module | None = None,
        mask_weight: float = 1.0,
        mask_threshold: float = 0.5,
        torchvision_masks: bool = False,
    ) -> None:
        super().__init__()
        self.box_pool = box_pool
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.assigner = RegionAssigner(positive_iou, positive_iou, allow_low_quality_matches=False)
        self.sampler = RegionSampler(batch_size_per_image, positive_fraction)
        self.coder = BoxCoder(center_scale=10.0, side_scale=5.0)
        self.box_loss = box_loss or BoxLoss()
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.score_threshold = score_threshold
        self.nms_iou = nms_iou
        self.max_detections = max_detections
        self.mask_pool = mask_pool
        self.mask_head = mask_head
        self.mask_predictor = mask_predictor
        self.mask_weight = mask_weight
        self.mask_threshold = mask_threshold
        self.torchvision_masks = torchvision_masks

    @property
    def has_masks(self) -> bool:
        """Whether it finds masks."""
        return self.mask_predictor is not None

    def losses(
        self, features: list[Tensor], proposals: list[Tensor], hw: tuple[int, int], targets: list[BoxTargets]
    ) -> LossTerms:
        """``class``, ``box`` and, where there are masks, ``mask``.

        Args:
            features, proposals, hw: as of ``detect``.
            targets: B targets whose labels are outputs of the class layer, 1 being the first that is not background.
        """
        samples = [self._sample(boxes, target) for boxes, target in zip(proposals, targets, strict=True)]
        regions = torch.cat([boxes for boxes, _ in samples])
        positive = torch.cat([objects for _, objects in samples]) >= 0
        # Of the positives alone, from here: the boxes of each image and their objects, (P,) and (P, 4).
        positives = [(boxes[objects >= 0], objects[objects >= 0]) for boxes, objects in samples]
        outputs = torch.cat([target.labels[own] for (_, own), target in zip(positives, targets, strict=True)])
        boxes = torch.cat([target.boxes[own] for (_, own), target in zip(positives, targets, strict=True)])
        # Every process must call it, also without regions.
        normaliser = shared_normaliser(len(regions), self.training, regions)
        if not len(regions):
            nothing = zero_loss(self.box_head, self.box_predictor, like=features[0])
            terms = {"class": nothing, "box": nothing}
        else:
            logits, deltas = self.classify(features, [own for own, _ in samples], hw)
            classes = torch.zeros(len(regions), dtype=torch.int64, device=regions.device)
            classes[positive] = outputs
            terms = {
                "class": F.cross_entropy(logits, classes, self.class_weights, reduction="sum") / normaliser,
                "box": self.box_loss(deltas[positive, outputs], regions[positive], boxes, self.coder, normaliser),
            }
        if self.has_masks:
            terms["mask"] = self.mask_weight * self._mask_loss(features, positives, targets, hw, outputs)
        return terms

    @torch.no_grad()
    def detect(
        self, features: list[Tensor], proposals: list[Tensor], hw: tuple[int, int], outputs: Tensor | None
    ) -> list[DetectorOutput]:
        """The detections of each image, best first.

        Args:
            features: maps of the batch, finest first.
            proposals: (K, 4) float32 xyxy of each image.
            hw: height and width of the images, pixels.
            outputs: (C,) int64, the output of the class layer of each label; None: all but the first.
        """
        scores, deltas = self.score_labels(features, proposals, hw, outputs)
        found = [self._suppress(*image, hw) for image in zip(proposals, scores, deltas, strict=True)]
        return self._with_masks(features, found, hw, outputs) if self.has_masks else found

    @torch.no_grad()
    def score_labels(
        self, features: list[Tensor], proposals: list[Tensor], hw: tuple[int, int], outputs: Tensor | None
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """What the detections are chosen from, before thresholds and NMS: of each image (K, C) float32 scores in [0, 1]
        and (K, C, 4) differences of the boxes from the proposals, both for each label; arguments as of ``detect``."""
        logits, deltas = self.classify(features, proposals, hw)
        of_labels = slice(1, None) if outputs is None else outputs
        sizes = [len(boxes) for boxes in proposals]
        return torch.split(logits.softmax(dim=1)[:, of_labels], sizes), torch.split(deltas[:, of_labels], sizes)

    def _sample(self, proposals: Tensor, target: BoxTargets) -> tuple[Tensor, Tensor]:
        """(S, 4) proposals for the losses, and (S,) the position of each one's object in the target; -1: background."""
        # The objects themselves are proposals as well: early in training there are few good ones.
        boxes = torch.cat([proposals, target.boxes[~target.ignore]])
        assignment = self.assigner.assign(boxes, target)
        # Other draws than those of the first stage.
        chosen = self.sampler(assignment, None if target.draw_seed is None else target.draw_seed + 1)
        return boxes[chosen], assignment.objects[chosen]

    def classify(self, features: list[Tensor], boxes: list[Tensor], hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Feature maps and boxes of each image → (R, O) float32 logits and (R, O, 4) float32 differences."""
        pooled = self.box_pool(_by_name(features), boxes, [hw] * len(boxes))
        logits, deltas = self.box_predictor(self.box_head(pooled))
        return logits.float(), deltas.float().unflatten(1, (-1, 4))

    def _suppress(self, proposals: Tensor, scores: Tensor, deltas: Tensor, hw: tuple[int, int]) -> DetectorOutput:
        """The detections of one image; a proposal may become one of several classes."""
        region, label = torch.nonzero(scores >= self.score_threshold, as_tuple=True)
        boxes = clip_boxes_to_image(self.coder.decode(deltas[region, label], proposals[region]), hw)
        keep = remove_small_boxes(boxes, _SMALLEST_SIDE)
        boxes, label, score = boxes[keep], label[keep], scores[region[keep], label[keep]]
        best = classwise_nms(boxes, score, label, self.nms_iou)[: self.max_detections]
        return DetectorOutput(boxes[best], score[best], label[best])

    def mask_logits(self, features: list[Tensor], boxes: list[Tensor], hw: tuple[int, int], outputs: Tensor) -> Tensor:
        """Boxes of each image and the output of each → (R, M, M) float32."""
        pool, head, predictor = cast(tuple[nn.Module, ...], (self.mask_pool, self.mask_head, self.mask_predictor))
        logits = predictor(head(pool(_by_name(features), boxes, [hw] * len(boxes))))
        return cast(Tensor, logits[torch.arange(len(outputs), device=outputs.device), outputs].float())

    def _mask_loss(
        self,
        features: list[Tensor],
        positives: list[tuple[Tensor, Tensor]],
        targets: list[BoxTargets],
        hw: tuple[int, int],
        outputs: Tensor,
    ) -> Tensor:
        """The mean cross-entropy of the masks of the positives, whose outputs are given."""
        normaliser = shared_normaliser(len(outputs), self.training, outputs)
        if not len(outputs):
            heads = cast(tuple[nn.Module, ...], (self.mask_head, self.mask_predictor))
            return zero_loss(*heads, like=features[0])
        logits = self.mask_logits(features, [boxes for boxes, _ in positives], hw, outputs)
        expected = [
            mask_targets(target.masks, objects, boxes, logits.shape[-1], not self.torchvision_masks)
            for (boxes, objects), target in zip(positives, targets, strict=True)
            if target.masks is not None
        ]
        return F.binary_cross_entropy_with_logits(logits, torch.cat(expected)) * (len(outputs) / normaliser)

    def _with_masks(
        self, features: list[Tensor], found: list[DetectorOutput], hw: tuple[int, int], outputs: Tensor | None
    ) -> list[DetectorOutput]:
        labels = torch.cat([detections.labels for detections in found])
        boxes = [detections.boxes for detections in found]
        of_labels = labels + 1 if outputs is None else outputs[labels]
        grids = self.mask_logits(features, boxes, hw, of_labels).sigmoid()
        regions = [torchvision_mask_regions(own, grids.shape[-1]) if self.torchvision_masks else own for own in boxes]
        return [
            DetectorOutput(image.boxes, image.scores, image.labels, grids=RoiMasks(own, region, self.mask_threshold))
            for image, own, region in zip(found, torch.split(grids, [len(own) for own in boxes]), regions, strict=True)
        ]


def _by_name(features: list[Tensor]) -> dict[str, Tensor]:
    return {str(i): feature for i, feature in enumerate(features)}


def mask_targets(masks: Tensor, objects: Tensor, regions: Tensor, cells: int, aligned: bool) -> Tensor:
    """The fraction of each cell of a grid over a region that its object fills (He et al. 2017, section 3.1).

    Args:
        masks: (N, H, W) bool.
        objects: (P,) int64, the mask of each region.
        regions: (P, 4) float32 xyxy.
        cells: M.
        aligned: whether a pixel's value is at its centre, or at its upper left corner, half a pixel off, as in
            torchvision's published weights.

    Returns:
        (P, M, M) float32 in [0, 1].
    """
    targets = regions.new_zeros(len(regions), cells, cells)
    used, position = torch.unique(objects, return_inverse=True)
    step = max(_PIXELS_AT_ONCE // max(masks[0].numel() if len(masks) else 1, 1), 1)
    for start in range(0, len(used), step):
        members = torch.nonzero((position >= start) & (position < start + step)).flatten()
        dense = masks[used[start : start + step], None].to(regions.dtype)
        rois = torch.cat([(position[members, None] - start).to(regions.dtype), regions[members]], dim=1)
        targets[members] = roi_align(dense, rois, (cells, cells), aligned=aligned)[:, 0]
    return targets


def torchvision_mask_regions(boxes: Tensor, cells: int) -> Tensor:
    """The regions over which torchvision spreads the grids of its published weights.

    It pads a grid by a cell of zeros, widens the box as much, truncates that to whole pixels, and counts the last pixel
    in.  A grid without the padding covers the inner part of this.

    Args:
        boxes: (N, 4) float32 xyxy.
        cells: M.

    Returns:
        (N, 4) float32 xyxy.
    """
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * ((cells + 2) / cells)
    center = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    low = (center - half).to(torch.int64)
    high = (center + half).to(torch.int64) + 1
    cell = (high - low) / (cells + 2)
    return torch.cat([low + cell, high - cell], dim=1)
