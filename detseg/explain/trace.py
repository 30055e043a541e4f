"""What a detector computes for an image on the way to its detections: priors, proposals, and all boxes before NMS.

The steps are those that prediction and training take (`YoloDetector`, `RCNNDetector`), so that numbers agree.

Letters: N objects of an image, K decoded boxes of it, C classes, A priors or anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from detseg.errors import ConfigError
from detseg.models.rcnn.detector import RCNNDetector
from detseg.models.rcnn.rpn import AnchorOutputs, RegionProposalNetwork
from detseg.models.yolo.anchor import AnchorScheme, shape_iou
from detseg.models.yolo.detector import YoloDetector
from detseg.models.yolo.grid import GridScheme
from detseg.models.yolo.scheme import Candidates, batch_objects, cell_points, flatten_maps
from detseg.models.yolo.task_aligned import TaskAlignedScheme, candidate_points
from detseg.ops.boxes import pairwise_iou
from detseg.structures import BoxTargets


@dataclass(frozen=True)
class Limits:
    """What a detector drops; see `YoloDetector`."""

    score_threshold: float
    nms_iou: float
    max_detections: int


@dataclass(frozen=True, eq=False)
class ObjectPriors:
    """What the objects of an image could be learned by, were it an image of the training."""

    what: str  # which priors could match an object, in words that follow their number
    possible: Tensor  # (N,) int64, their number
    assigned: Tensor  # (N,) int64, priors that training would assign to the object
    anchor_iou: Tensor | None = None  # (N,) float32, of the anchor that fits the object best; None without anchors

    def of(self, objects: slice) -> ObjectPriors:
        """Those of some objects."""
        anchor_iou = None if self.anchor_iou is None else self.anchor_iou[objects]
        return ObjectPriors(self.what, self.possible[objects], self.assigned[objects], anchor_iou)


@dataclass(frozen=True, eq=False)
class FirstStage:
    """The first stage of a two-stage detector, for one image; boxes in input pixels."""

    rpn: RegionProposalNetwork
    boxes: Tensor  # (A, 4) float32 xyxy, decoded from every anchor
    scores: Tensor  # (A,) float32 in [0, 1]
    level_sizes: list[int]  # anchors of each level; they sum to A
    proposals: Tensor  # (P, 4) float32 xyxy, those that the second stage sees


@dataclass(frozen=True, eq=False)
class Trace:
    """The way to the detections of one image, on the CPU."""

    boxes: Tensor  # (K, C, 4) float32 xyxy in input pixels, or (K, 1, 4) where all classes share a box; clipped to it
    scores: Tensor  # (K, C) float32 in [0, 1]
    limits: Limits
    priors: ObjectPriors
    stride: int  # of the finest map, input pixels
    first_stage: FirstStage | None = None  # None of a one-stage detector


@torch.no_grad()
def traces(model: nn.Module, images: Tensor, targets: Sequence[BoxTargets]) -> list[Trace]:
    """Trace a batch.

    Args:
        model: a ``YoloDetector`` or ``RCNNDetector``.
        images: (B, 3, H, W) float32 in [0, 1].
        targets: the objects of each image in input pixels, which the priors are compared with.

    Raises:
        ConfigError: another model.
    """
    match model:
        case YoloDetector():
            return _traces_of_yolo(model, images, list(targets))
        case RCNNDetector():
            return _traces_of_rcnn(model, images, targets)
    raise ConfigError(f"a {type(model).__name__} is none of our detectors, whose steps are known")


def _traces_of_yolo(model: YoloDetector, images: Tensor, targets: list[BoxTargets]) -> list[Trace]:
    maps = [raw.float() for raw in model(images)]
    found = model.scheme.decode(maps)
    boxes = clip_boxes_to_image(found.boxes, _hw(images)).cpu()
    priors = _scheme_priors(model.scheme, maps, found, targets)
    limits = Limits(model.score_threshold, model.nms_iou, model.max_detections)
    ends = torch.tensor([len(target) for target in targets]).cumsum(0).tolist()
    own = [priors.of(slice(start, end)) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    stride = min(model.scheme.strides)
    return [
        Trace(box[:, None], score, limits, prior, stride)
        for box, score, prior in zip(boxes, found.scores.cpu(), own, strict=True)
    ]


def _scheme_priors(scheme: object, maps: list[Tensor], found: Candidates, targets: list[BoxTargets]) -> ObjectPriors:
    """Of the objects of all images, one after the other."""
    objects = batch_objects(targets)
    num = len(objects.image)
    best: Tensor | None = None
    match scheme:
        case TaskAlignedScheme():
            points = cell_points(maps, scheme.strides)
            logits = flatten_maps(maps)[..., scheme.box_outputs :]
            positive = scheme.assigner(logits, found.boxes, points, objects).positive
            possible = candidate_points(points, objects.boxes).sum(dim=1)
            return ObjectPriors("points of the maps lie inside it", possible.cpu(), positive.sum(dim=1).cpu())
        case AnchorScheme():
            assignment = scheme.assigner(targets, scheme.anchors, [(m.shape[2], m.shape[3]) for m in maps], found.boxes)
            anchors = scheme.anchors.flatten(0, 1)
            best = shape_iou(objects.boxes[:, 2:] - objects.boxes[:, :2], anchors).amax(dim=1).cpu()
            what, each = "anchors are at its centre", len(anchors)
        case GridScheme():
            cells = found.boxes.view(len(targets), *maps[0].shape[2:], scheme.boxes_per_cell, 4)
            assignment = scheme.assigner(targets, cells)
            what, each = "boxes belong to the cell of its centre", scheme.boxes_per_cell
        case _:
            raise ConfigError(f"a {type(scheme).__name__} is none of our schemes, whose assignment is known")
    assigned = torch.bincount(assignment.objects.cpu(), minlength=num)
    return ObjectPriors(what, torch.full((num,), each), assigned, best)


def _traces_of_rcnn(model: RCNNDetector, images: Tensor, targets: Sequence[BoxTargets]) -> list[Trace]:
    hw, heads = _hw(images), model.roi_heads
    features = model.features(images)
    outputs = model.read(features, images)
    proposals = model.rpn.propose(outputs, hw, training=False)
    scores, deltas = heads.score_labels(features, proposals, hw, model.output_of_label)
    anchor_boxes = clip_boxes_to_image(model.rpn.coder.decode(outputs.deltas, outputs.anchors), hw)
    limits = Limits(heads.score_threshold, heads.nms_iou, heads.max_detections)
    stride = images.shape[-1] // features[0].shape[-1]
    found = []
    for i, (own, score, delta, target) in enumerate(zip(proposals, scores, deltas, targets, strict=True)):
        boxes = clip_boxes_to_image(heads.coder.decode(delta, own[:, None]), hw).cpu()
        first_stage = FirstStage(
            model.rpn, anchor_boxes[i].cpu(), outputs.logits[i].sigmoid().cpu(), outputs.level_sizes, own.cpu()
        )
        priors = _anchor_priors(model.rpn, outputs, target)
        found.append(Trace(boxes, score.cpu(), limits, priors, stride, first_stage))
    return found


def _anchor_priors(rpn: RegionProposalNetwork, outputs: AnchorOutputs, target: BoxTargets) -> ObjectPriors:
    iou = pairwise_iou(target.boxes, outputs.anchors).cpu()  # N A
    objects = rpn.assigner.assign(outputs.anchors, target).objects.cpu()
    assigned = torch.bincount(objects[objects >= 0], minlength=len(target))
    what = f"anchors overlap it by {rpn.assigner.positive_iou:g} or more"
    return ObjectPriors(what, (iou >= rpn.assigner.positive_iou).sum(dim=1), assigned, iou.amax(dim=1))


def _hw(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]
