"""The one-stage detector: backbone, neck and head give raw maps, a scheme gives them meaning.

Read it as: priors → assign → losses (``Scheme.losses``), and decode (``Scheme.decode``) → NMS (``best_detections``).

Letters: B images, K = box_outputs + class_outputs of a cell, A priors, P of them that are decoded, C classes.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from detseg.models.interface import LossTerms
from detseg.models.layers import ConvNormAct, Normalize, drop_channels
from detseg.models.yolo.scheme import PriorIndex, Scheme
from detseg.ops.nms import classwise_nms
from detseg.structures import BoxTargets, DetectorOutput

_PRIORS_PER_DETECTION = 4
"""Priors that are decoded first, at most, for each of ``max_detections``: some overlap, so it takes a few."""

_MORE = 8  # how many times as many are decoded for images where these do not give enough detections

_ROUNDING, _TINIEST = 1e-6, 1e-30
"""A prior's best score and the score of its best class are computed apart, and differ by less than this fraction, or by
less than the second number, where scores are too small for a fraction of them to be a number."""


class YoloDetector(nn.Module):
    """A detector of the YOLO line (the ``Detector`` contract).

    Args:
        backbone: images to feature maps.
        neck: feature maps to feature maps.
        head: feature maps to raw maps.
        scheme: meaning of the raw maps; an ``nn.Module`` as well.
        normalize: how the backbone wants images in [0, 1] normalised.
        score_threshold: candidates with a lower score are dropped.
        nms_iou: overlap above which the worse of two detections of a class is dropped.
        max_detections: most detections of an image.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        scheme: Scheme,
        normalize: Normalize,
        score_threshold: float = 0.001,
        nms_iou: float = 0.65,
        max_detections: int = 300,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.scheme = scheme
        self.score_threshold = score_threshold
        self.nms_iou = nms_iou
        self.max_detections = max_detections

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float in [0, 1] → (B, K, H / s, W / s) raw maps, one a stride."""
        return cast(list[Tensor], self.head(self.features(images)))

    def features(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float in [0, 1] → the maps of the neck, finest first, which the head sees."""
        return cast(list[Tensor], self.neck(self.backbone(self.normalize(images))))

    def losses(self, images: Tensor, targets: list[BoxTargets]) -> LossTerms:
        """Weighted loss terms of a batch, computed in float32 whatever the precision of the network."""
        return self._losses(self(images), targets)

    @torch.no_grad()
    def predict(self, images: Tensor, score_threshold: float = 0.0) -> list[DetectorOutput]:
        """The detections of each of B images, best first, in pixels of ``images``; those below ``score_threshold`` are
        left out, as are those below the model's own."""
        # Whether a candidate is kept depends on better ones alone, so this equals leaving them out afterwards.
        return self._detections(self(images), images, max(score_threshold, self.score_threshold))

    @torch.no_grad()
    def losses_and_predictions(
        self, images: Tensor, targets: list[BoxTargets]
    ) -> tuple[LossTerms, list[DetectorOutput]]:
        """Both from one forward pass."""
        maps = self(images)
        return self._losses(maps, targets), self._detections(maps, images, self.score_threshold)

    def _losses(self, maps: list[Tensor], targets: list[BoxTargets]) -> LossTerms:
        with torch.autocast(maps[0].device.type, enabled=False):
            return self.scheme.losses([raw.float() for raw in maps], targets)

    def _detections(self, maps: list[Tensor], images: Tensor, score_threshold: float) -> list[DetectorOutput]:
        hw = (images.shape[-2], images.shape[-1])
        maps = [raw.float() for raw in maps]
        with torch.autocast(maps[0].device.type, enabled=False):
            return best_detections(self.scheme, maps, hw, score_threshold, self.nms_iou, self.max_detections)


class DecoupledHead(nn.Module):
    """A branch for boxes and a branch for classes at every stride (Ge et al. 2021, "YOLOX", section 2.1).

    Args:
        channels: channels of the feature maps, finest first.
        scheme: what the outputs mean, and how they start.
        hidden: channels inside both branches; at least the finest map's.
        dropout: fraction of them that is dropped in training before the last convolution.
    """

    def __init__(self, channels: tuple[int, ...], scheme: Scheme, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.box_branches = nn.ModuleList(_branch(num, hidden, scheme.box_outputs, dropout) for num in channels)
        self.class_branches = nn.ModuleList(_branch(num, hidden, scheme.class_outputs, dropout) for num in channels)
        for stride, boxes, classes in zip(scheme.strides, self.box_branches, self.class_branches, strict=True):
            bias = scheme.initial_bias(stride)
            _set_bias(boxes, bias[: scheme.box_outputs])
            _set_bias(classes, bias[scheme.box_outputs :])

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Feature maps → (B, K, H / s, W / s) raw maps, one a stride."""
        return [
            torch.cat([boxes(x), classes(x)], dim=1)
            for x, boxes, classes in zip(features, self.box_branches, self.class_branches, strict=True)
        ]


class CoupledHead(nn.Module):
    """One branch for everything at every stride, as in YOLOv1 to v3 (Redmon, Farhadi 2018, section 2.3)."""

    def __init__(self, channels: tuple[int, ...], scheme: Scheme, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        outputs = scheme.box_outputs + scheme.class_outputs
        self.branches = nn.ModuleList(_branch(num, hidden, outputs, dropout) for num in channels)
        for stride, branch in zip(scheme.strides, self.branches, strict=True):
            _set_bias(branch, scheme.initial_bias(stride))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Feature maps → (B, K, H / s, W / s) raw maps, one a stride."""
        return [branch(x) for x, branch in zip(features, self.branches, strict=True)]


def _branch(in_channels: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    blocks = ConvNormAct(in_channels, hidden), ConvNormAct(hidden, hidden)
    drop_channels(blocks[-1], dropout)
    return nn.Sequential(*blocks, nn.Conv2d(hidden, outputs, kernel_size=1))


def _set_bias(branch: nn.Module, bias: Tensor) -> None:
    last = cast(nn.Conv2d, cast(nn.Sequential, branch)[-1])
    assert last.bias is not None
    with torch.no_grad():
        last.bias.copy_(bias)


@torch.no_grad()
def best_detections(
    scheme: Scheme,
    maps: list[Tensor],
    hw: tuple[int, int],
    score_threshold: float,
    nms_iou: float,
    max_detections: int,
    num_priors: int | None = None,
) -> list[DetectorOutput]:
    """The detections of each of B images, best first; one prior may give detections of several classes.

    Only what can become a detection is decoded.  A prior whose best class score is below the threshold has no
    candidate.  And where nearly all have one, only the best are decoded: whether a candidate is kept depends on better
    ones alone, so that enough kept ones of the upper part of the ranking are the answer.  Both are exact.

    Args:
        scheme: what the maps mean.
        maps: (B, K, H / s, W / s) float32 raw maps, one a stride.
        hw: height and width of the images, pixels; boxes are clipped to them.
        score_threshold, nms_iou, max_detections: see ``YoloDetector``.
        num_priors: how many of an image are decoded at most, if they give enough; None: by ``max_detections``.
    """
    num_priors = num_priors or _PRIORS_PER_DETECTION * max_detections
    best = scheme.best_scores(maps).nan_to_num(nan=1.0)  # NaN may hide a score, so such a prior is decoded
    floor: float | Tensor = score_threshold
    index = _at_least(floor, best)
    if len(index.prior) > num_priors and int(torch.bincount(index.image).max()) > num_priors:
        floor = best.kthvalue(best.shape[1] - num_priors + 1, dim=1, keepdim=True).values
        floor = floor.clamp(min=score_threshold)  # (B, 1)
        index = _at_least(floor, best)
    decoded = scheme.decode(maps, index)
    boxes, scores = clip_boxes_to_image(decoded.boxes, hw), decoded.scores  # (P, 4), (P, C)
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1, keepdim=True)
    high = scores >= (floor[index.image] if isinstance(floor, Tensor) else floor)
    row, labels = torch.nonzero(high & has_area, as_tuple=True)  # image after image
    boxes, scores = boxes[row], scores[row, labels]
    sizes = torch.bincount(index.image[row], minlength=len(best)).tolist()
    found = []
    for own, score, label in zip(*(torch.split(column, sizes) for column in (boxes, scores, labels)), strict=True):
        keep = classwise_nms(own, score, label, nms_iou, max_detections)
        found.append(DetectorOutput(own[keep], score[keep], label[keep]))
    if isinstance(floor, Tensor):
        raised = (floor > floor.new_tensor(score_threshold)).tolist()
        short = [i for i, (above,) in enumerate(raised) if above and len(found[i]) < max_detections]
        if short:
            limits = score_threshold, nms_iou, max_detections
            again = best_detections(scheme, [raw[short] for raw in maps], hw, *limits, _MORE * num_priors)
            for i, detections in zip(short, again, strict=True):
                found[i] = detections
    return found


def _at_least(floor: float | Tensor, best: Tensor) -> PriorIndex:
    """The priors that may have a score of at least ``floor``, a number or (B, 1), by their (B, A) best scores."""
    return PriorIndex(*torch.nonzero(best >= floor * (1 - _ROUNDING) - _TINIEST, as_tuple=True))
