"""Heat maps: which places of a feature map speak for a detection, for its mask, or for a class of a semantic map.

HiResCAM (Draelos, Carin 2020, section 3): gradient times activation at each place, summed over the channels, without
what is negative.  Grad-CAM (Selvaraju et al. 2017, section 3) averages the gradient over the map first, and so shows
all that looks like the object, wherever it lies.  Where a head sees several maps, what they add is summed.

What is explained is the log-odds of a score, which is the logit itself where a sigmoid follows; of a mask or a class
the sum over its cells or pixels (Vinogradova et al. 2020, "Seg-Grad-CAM").

Letters: A priors, R regions, O outputs, C classes, M cells along a side of a mask, H and W pixels of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import clip_boxes_to_image

from detseg.models.rcnn.detector import RCNNDetector
from detseg.models.yolo.detector import YoloDetector
from detseg.ops.letterbox import Letterbox
from detseg.ops.tensors import logits_at_original_size
from detseg.predict.interface import preprocess
from detseg.predict.predictor import Predictor, SegmentationPredictor, as_input, postprocess_detections
from detseg.predict.results import Detections
from detseg.structures import BoolArray, DetectorOutput, UInt8Array

Method = Literal["hires_cam", "grad_cam"]

_MIN_ODDS = 1e-7
"""Scores nearer to 0 or 1 have no log-odds in float32; the heat map of such a detection is empty."""

_TINY = 1e-30


@dataclass(frozen=True, eq=False)
class HeatMap:
    """The evidence for one output of a network, in an image."""

    # (H, W) float32 in [0, 1], the most is 1; all 0 where no place speaks for the output, or it has no gradient.
    heat: npt.NDArray[np.float32]
    strides: tuple[int, ...]  # of the feature maps that the output was computed from

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not self.heat.any()

    def fraction_inside(self, region: BoolArray) -> float:
        """The fraction of the heat in a region, (H, W) bool: the energy-based pointing game (Wang et al. 2020,
        "Score-CAM", section 4.3); NaN for an empty heat map."""
        return float("nan") if self.is_empty else float(self.heat[region].sum() / self.heat.sum())


@dataclass(frozen=True, eq=False)
class ObjectHeat:
    """What speaks for one detection."""

    found: Detections  # of length 1, in pixels of the image
    score: HeatMap  # for the score of its class
    mask: HeatMap | None  # for the cells of its mask; None from a detector of boxes


def detection_heat_maps(
    predictor: Predictor, image: UInt8Array, most: int | None = None, method: Method = "hires_cam"
) -> list[ObjectHeat]:
    """The heat maps of the detections of an image, on the map of the neck that each was read from.

    For YOLO that is the map of the prior that became the detection; for Faster and Mask R-CNN the map that the
    proposal, and for the mask the box, was pooled from.

    Args:
        predictor: of one of detseg's detectors.
        image: (H, W, 3) uint8 RGB.
        most: only so many, of the best; None: all.
        method: see above.

    Returns:
        As many and in the order of ``predictor(image)``.
    """
    model: Any = predictor.model
    inputs, letterbox = _input_of(predictor, image)
    found = model.predict(inputs)[0]
    found = found[found.scores >= predictor.score_threshold]
    shown = [postprocess_detections(found[i : i + 1], letterbox, predictor.classes, 0) for i in range(len(found))]
    positions = [i for i, own in enumerate(shown) if len(own)][:most]  # none of those in the padding
    found = found[torch.tensor(positions, dtype=torch.int64, device=found.scores.device)]
    if not positions:
        return []
    features = _leaves(model.features(inputs))
    how = (features, strides_of(model), letterbox, method)
    targets = (_yolo_targets if isinstance(model, YoloDetector) else _rcnn_targets)(model, inputs, features, found)
    scores = [_heat_map(target, *how) for target in targets]
    masks: list[HeatMap | None] = [None] * len(found)
    if found.grids is not None:
        masks = [_heat_map(target, *how) for target in _mask_targets(model, inputs, features, found)]
    return [ObjectHeat(shown[i], score, mask) for i, score, mask in zip(positions, scores, masks, strict=True)]


def class_heat_maps(
    predictor: SegmentationPredictor,
    image: UInt8Array,
    labels: Sequence[int] | None = None,
    method: Method = "hires_cam",
) -> dict[int, HeatMap]:
    """The heat map of each class that the predicted map of an image has, on all maps that the head sees.

    Args:
        predictor: of one of detseg's segmenters.
        image: (H, W, 3) uint8 RGB.
        labels: only these, where they occur; None: all.
        method: see above.

    Returns:
        Label → what speaks for the class on the pixels that have it.
    """
    model: Any = predictor.model
    inputs, letterbox = _input_of(predictor, image)
    features = _leaves(model.features(inputs))
    how = (features, strides_of(model), letterbox, method)
    logits = model.logits(model.head, features, inputs)[0][:, *letterbox.inside]  # (C, h, w)
    predicted = logits.argmax(dim=0)
    occurring = [label for label in predicted.unique().tolist() if labels is None or label in labels]
    return {label: _heat_map(_log_odds(logits, label)[predicted == label].sum(), *how) for label in occurring}


def contributions(feature: Tensor, gradient: Tensor, method: Method = "hires_cam") -> Tensor:
    """What each place of a (1, K, h, w) feature map adds to a scalar that has this gradient by it, to first order: (h,
    w) float, below 0 where it speaks against it."""
    if method == "grad_cam":
        gradient = gradient.mean(dim=(2, 3), keepdim=True)
    return (gradient * feature.detach()).sum(dim=1)[0]


def strides_of(model: Any) -> tuple[int, ...]:
    """The strides of ``model.features``, finest first."""
    strides: tuple[int, ...] = (model.backbone if model.neck is None else model.neck).strides
    return strides


def _heat_map(
    target: Tensor, features: list[Tensor], strides: tuple[int, ...], letterbox: Letterbox, method: Method
) -> HeatMap:
    """Of the scalar ``target``; what a cell adds is spread over its pixels, and the maps are added."""
    gradients = torch.autograd.grad(target, features, retain_graph=True, allow_unused=True, materialize_grads=True)
    height, width = letterbox.input_hw
    total = features[0].new_zeros(1, height, width)
    for feature, gradient, stride in zip(features, gradients, strides, strict=True):
        cells = contributions(feature, gradient, method)[None, None] / stride**2
        pixels = F.interpolate(cells, scale_factor=stride, mode="bilinear", align_corners=False)
        total += pixels[0, :, :height, :width]
    heat = logits_at_original_size(total.relu(), letterbox)[0]
    used = [stride for stride, gradient in zip(strides, gradients, strict=True) if gradient.any()]
    return HeatMap((heat / heat.max().clamp(min=_TINY)).cpu().numpy(), tuple(used))


def _input_of(predictor: Predictor | SegmentationPredictor, image: UInt8Array) -> tuple[Tensor, Letterbox]:
    inputs, (letterbox,) = preprocess([image], predictor.input_hw)
    return as_input(inputs, predictor.device), letterbox


def _leaves(features: list[Tensor]) -> list[Tensor]:
    """The same maps as the start of a graph: nothing before them is computed backwards."""
    return [feature.detach().requires_grad_() for feature in features]


def _yolo_targets(model: YoloDetector, inputs: Tensor, features: list[Tensor], found: DetectorOutput) -> list[Tensor]:
    """The log-odds of the scores of detections, from the priors that they came from."""
    candidates = model.scheme.decode(model.head(features))
    boxes, scores = clip_boxes_to_image(candidates.boxes[0], inputs.shape[-2:]), candidates.scores[0]  # (A, 4), (A, C)
    return [
        torch.logit(scores[_nearest(boxes, scores[:, label], box, score), label], eps=_MIN_ODDS)
        for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True)
    ]


def _rcnn_targets(model: RCNNDetector, inputs: Tensor, features: list[Tensor], found: DetectorOutput) -> list[Tensor]:
    """The same, from the proposals that they came from."""
    hw, heads, outputs = (inputs.shape[-2], inputs.shape[-1]), model.roi_heads, _outputs(model, found).tolist()
    with torch.no_grad():
        (proposals,) = model.rpn.propose(model.rpn.read(model(inputs), hw), hw, training=False)
        logits, deltas = heads.classify(features, [proposals], hw)  # (R, O), (R, O, 4)
        boxes = clip_boxes_to_image(heads.coder.decode(deltas, proposals[:, None]), hw)
        scores = logits.softmax(dim=1)
        rows = [
            _nearest(boxes[:, output], scores[:, output], box, score)
            for box, score, output in zip(found.boxes, found.scores, outputs, strict=True)
        ]
    logits, _ = heads.classify(features, [proposals[rows]], hw)  # again, of a few, with a graph
    return [_log_odds(own, output) for own, output in zip(logits, outputs, strict=True)]


def _mask_targets(model: RCNNDetector, inputs: Tensor, features: list[Tensor], found: DetectorOutput) -> list[Tensor]:
    """The sums of the logits of the cells that belong to the masks of detections."""
    hw = (inputs.shape[-2], inputs.shape[-1])
    logits = model.roi_heads.mask_logits(features, [found.boxes], hw, _outputs(model, found))  # (N, M, M)
    return [own[own.sigmoid() >= model.roi_heads.mask_threshold].sum() for own in logits]


def _outputs(model: RCNNDetector, found: DetectorOutput) -> Tensor:
    return found.labels + 1 if model.output_of_label is None else model.output_of_label[found.labels]


def _nearest(boxes: Tensor, scores: Tensor, box: Tensor, score: Tensor) -> int:
    """Which of (R, 4) boxes with (R,) scores a detection is, up to rounding."""
    return int(((boxes - box).abs().amax(dim=1) + (scores - score).abs()).argmin())


def _log_odds(logits: Tensor, label: int) -> Tensor:
    """(C, ...) logits of a softmax → (...) log-odds of one class, whose logit alone may be a constant (of two classes)
    or say little (the softmax sees differences)."""
    return logits[label] - torch.cat([logits[:label], logits[label + 1 :]]).logsumexp(dim=0)
