"""From settings to two-stage detectors: Faster R-CNN and Mask R-CNN, our own or of torchvision's architecture."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from detseg.config.schema.model import BoxLossConfig, MaskRcnnConfig, TwoStageConfig
from detseg.errors import ConfigError
from detseg.factory.backbones import Backbone, build_backbone, build_neck
from detseg.factory.class_weights import class_weights
from detseg.factory.torchvision_weights import coco_outputs, find_weights, load_torchvision_weights
from detseg.models.backbones.torchvision import TorchvisionFPN, TorchvisionMobileNetV3Large, TorchvisionResNet50
from detseg.models.layers import Normalize
from detseg.models.necks import FPN, PAN
from detseg.models.rcnn.detector import RCNNDetector
from detseg.models.rcnn.regions import BoxLoss
from detseg.models.rcnn.roi_heads import RoIHeads, TwoLayerHead
from detseg.models.rcnn.rpn import RegionProposalNetwork
from detseg.structures import ClassTable

_MOBILENETS = ("mobilenet_v3_large_fpn", "mobilenet_v3_large_320_fpn")
_MOBILENET_SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
_ANCHOR_STRIDES = 8
"""Side of an anchor over the stride of its level: 32 pixels at stride 4, 512 at stride 64 (Lin et al. 2017)."""

AnyNeck = FPN | PAN | TorchvisionFPN


def build_rcnn(config: TwoStageConfig, classes: ClassTable, load_pretrained: bool) -> RCNNDetector:
    """The two-stage detector that ``config`` describes; arguments and errors as of ``build_model``.

    What a published variant decides is not read from the settings.  Published heads are kept for COCO's classes.
    """
    weights: Any = None if config.variant == "custom" else find_weights(config)
    if weights is None and config.weights == "coco":
        raise ConfigError(
            "model.weights: coco belongs to the published variants, a custom one has none; set model.variant, or "
            "model.weights=null"
        )
    backbone: Any
    neck: AnyNeck
    backbone, neck = _custom_maps(config, load_pretrained) if weights is None else _torchvision_maps(config)
    outputs = coco_outputs(weights, classes) if config.weights == "coco" else None
    num_outputs = len(classes) + 1 if outputs is None else len(weights.meta["categories"])
    output_weights = class_weights(config, len(classes))
    if output_weights is not None:
        labels = list(range(1, num_outputs)) if outputs is None else list(outputs)
        output_weights = torch.ones(num_outputs).index_copy(0, torch.tensor(labels), output_weights)
    model = RCNNDetector(
        backbone,
        neck,
        _rpn(config, neck),
        _roi_heads(config, neck, num_outputs, output_weights),
        Normalize(backbone.mean, backbone.std),
        outputs,
    )
    if config.weights == "coco" and load_pretrained:
        load_torchvision_weights(model, weights, keep_heads=outputs is not None)
    return model


def _custom_maps(config: TwoStageConfig, load_pretrained: bool) -> tuple[Backbone, FPN | PAN]:
    strides = config.strides
    if not strides or any(2 * fine != coarse for fine, coarse in pairwise(strides)):
        raise ConfigError(
            f"model.strides: expected each to be twice the one before, since each proposal is looked up on the level "
            f"of its size, got {list(strides)}"
        )
    backbone = build_backbone(config.backbone, strides, load_pretrained)
    neck = build_neck(config.neck, config.backbone, backbone.channels, strides)
    if len(set(neck.channels)) > 1:
        raise ConfigError(
            f"model.neck: one head looks at all levels, so that they need equal channels, but this {config.neck.name} "
            f"has {list(neck.channels)}; set model.neck.name=fpn"
        )
    return backbone, neck


def _torchvision_maps(
    config: TwoStageConfig,
) -> tuple[TorchvisionResNet50 | TorchvisionMobileNetV3Large, TorchvisionFPN]:
    """As torchvision makes them: normalisation with fixed statistics where weights come with it, but for v2."""
    is_v2 = config.variant == "resnet50_fpn_v2"
    freeze_bn = config.weights is not None and not is_v2
    backbone: TorchvisionResNet50 | TorchvisionMobileNetV3Large
    if config.variant in _MOBILENETS:
        backbone = TorchvisionMobileNetV3Large(freeze_bn)
    else:  # the weights of the first version were trained with an epsilon of 0
        backbone = TorchvisionResNet50(freeze_bn, norm_eps=0.0 if freeze_bn else 1e-5)
    return backbone, TorchvisionFPN(backbone.channels, backbone.strides, norm=is_v2)


def _rpn(config: TwoStageConfig, neck: AnyNeck) -> RegionProposalNetwork:
    """The first stage; settings that are null are those of the paper or of the variant."""
    given, variant = config.rpn, config.variant
    levels = (*neck.strides, 2 * neck.strides[-1])
    if given.anchor_sizes is not None:
        sizes = given.anchor_sizes
    elif variant in _MOBILENETS:
        sizes = (_MOBILENET_SIZES,) * len(levels)
    else:
        sizes = tuple((float(_ANCHOR_STRIDES * stride),) for stride in levels)
    if len(sizes) != len(levels):
        raise ConfigError(
            f"model.rpn.anchor_sizes: expected one or more sizes for each of {len(levels)} levels, of strides "
            f"{list(levels)} (the last one is pooled for the proposals), got {[list(level) for level in sizes]}"
        )
    top_n = 150 if variant == "mobilenet_v3_large_320_fpn" else 1000
    score_threshold = 0.05 if variant in _MOBILENETS else 0.0
    try:
        return RegionProposalNetwork(
            neck.channels[0],
            sizes,
            (0.5, 1.0, 2.0) if given.aspect_ratios is None else given.aspect_ratios,
            convolutions=given.convolutions or (2 if variant == "resnet50_fpn_v2" else 1),
            positive_iou=given.positive_iou,
            negative_iou=given.negative_iou,
            batch_size_per_image=given.batch_size_per_image,
            positive_fraction=given.positive_fraction,
            nms_iou=given.nms_iou,
            pre_nms_top_n=(given.pre_nms_top_n_train, given.pre_nms_top_n or top_n),
            post_nms_top_n=(given.post_nms_top_n_train, given.post_nms_top_n or top_n),
            score_threshold=score_threshold if given.score_threshold is None else given.score_threshold,
            box_loss=_box_loss(given.box_loss),
        )
    except ValueError as error:
        raise ConfigError(f"model.rpn.{error}") from error


def _roi_heads(config: TwoStageConfig, neck: AnyNeck, num_outputs: int, output_weights: Tensor | None) -> RoIHeads:
    given, channels, side = config.roi_heads, neck.channels[0], config.roi_heads.pool_size
    box_head: Any
    if config.variant == "resnet50_fpn_v2":
        box_head = FastRCNNConvFCHead((channels, side, side), [256] * 4, [given.hidden], norm_layer=nn.BatchNorm2d)
        if given.dropout:
            box_head.append(nn.Dropout(given.dropout))  # it ends in its one fully connected layer
    else:
        box_head = TwoLayerHead(channels * side**2, given.hidden, given.dropout)
    masks: dict[str, Any] = {}
    if isinstance(config, MaskRcnnConfig):
        mask = config.mask
        width = mask.channels if mask.convolutions else channels
        masks = {
            "mask_pool": _pool(neck, mask.pool_size, given.sampling_ratio),
            "mask_head": MaskRCNNHeads(channels, (mask.channels,) * mask.convolutions, 1),
            "mask_predictor": MaskRCNNPredictor(width, mask.channels, num_outputs),
            "mask_weight": mask.weight,
            "mask_threshold": mask.threshold,
        }
    return RoIHeads(
        _pool(neck, side, given.sampling_ratio),
        box_head,
        FastRCNNPredictor(given.hidden, num_outputs),
        positive_iou=given.positive_iou,
        batch_size_per_image=given.batch_size_per_image,
        positive_fraction=given.positive_fraction,
        box_loss=_box_loss(given.box_loss),
        class_weights=output_weights,
        score_threshold=config.score_threshold,
        nms_iou=config.nms_iou,
        max_detections=config.max_detections,
        torchvision_masks=config.variant != "custom",
        **masks,
    )


def _pool(neck: AnyNeck, side: int, sampling_ratio: int) -> MultiScaleRoIAlign:
    return MultiScaleRoIAlign([str(i) for i in range(len(neck.strides))], side, sampling_ratio)


def _box_loss(config: BoxLossConfig) -> BoxLoss:
    return BoxLoss(config.name, config.beta, config.weight)
