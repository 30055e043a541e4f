"""From settings to two-stage detectors: Faster R-CNN and Mask R-CNN, our own or with a published architecture."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from detseg.config.schema.rcnn import BoxLossConfig, FasterRcnnConfig, MaskHeadConfig, MaskRcnnConfig
from detseg.errors import ConfigError
from detseg.factory.backbones import Backbone, build_backbone, build_neck
from detseg.factory.torchvision_weights import coco_outputs, find_published, load_published
from detseg.models.backbones.torchvision import PublishedFPN, PublishedMobileNetV3Large, PublishedResNet50
from detseg.models.layers import Normalize
from detseg.models.necks import FPN, PAN
from detseg.models.rcnn.detector import RCNNDetector
from detseg.models.rcnn.losses import BoxLoss
from detseg.models.rcnn.proposals import ProposalNetwork
from detseg.models.rcnn.regions import RegionHeads
from detseg.structures import ClassTable

_MOBILENETS = ("mobilenet_v3_large_fpn", "mobilenet_v3_large_320_fpn")
_MOBILENET_SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
_ANCHOR_STRIDES = 8
"""Side of an anchor over the stride of its level: 32 pixels at stride 4, 512 at stride 64 (Lin et al. 2017)."""

PublishedBackbone = PublishedResNet50 | PublishedMobileNetV3Large
AnyNeck = FPN | PAN | PublishedFPN


@dataclass(frozen=True)
class ProposalValues:
    """The settings of the first stage that may be null, with the values that null stands for.

    Attributes:
        anchor_sizes: for each level, finest first, the pooled one last, the sides of its anchors in input pixels.
        aspect_ratios: heights over widths.
        convolutions: of the head.
        candidates: anchors of each level that are looked at in prediction.
        proposals: that remain of an image, in prediction.
        score_threshold: of proposals.
    """

    anchor_sizes: tuple[tuple[float, ...], ...]
    aspect_ratios: tuple[float, ...]
    convolutions: int
    candidates: int
    proposals: int
    score_threshold: float


def build_rcnn(
    config: FasterRcnnConfig | MaskRcnnConfig,
    classes: ClassTable,
    load_pretrained: bool,
) -> RCNNDetector:
    """The two-stage detector that ``config`` describes, with weights at their start.

    Args:
        config: the ``model`` section; what a published variant decides of it is not looked at.
        classes: of the data; published heads are kept where they are COCO's.
        load_pretrained: fetch published weights where the settings ask for them; off where a checkpoint follows anyway.

    Raises:
        ConfigError: no such backbone or variant, or a setting that does not apply to it or does not fit another one.
        DetsegError: published weights could not be loaded.
    """
    published: Any = None if config.variant == "custom" else find_published(config)
    if published is None and config.weights is not None:
        raise ConfigError(
            "model.weights: coco belongs to the published variants, a custom one has none; set model.variant, or "
            "model.weights=null"
        )
    backbone, neck = _custom_maps(config, load_pretrained) if published is None else _published_maps(config)
    outputs = coco_outputs(published, classes) if config.weights is not None else None
    num_outputs = len(classes) + 1 if outputs is None else len(published.meta["categories"])
    model = RCNNDetector(
        backbone,
        neck,
        _proposal_network(config, neck),
        _region_heads(config, neck, num_outputs),
        Normalize(backbone.mean, backbone.std),
        outputs,
    )
    if config.weights is not None and load_pretrained:
        load_published(model, published, keep_heads=outputs is not None)
    return model


def resolve_proposals(config: FasterRcnnConfig | MaskRcnnConfig, strides: tuple[int, ...]) -> ProposalValues:
    """What the settings of the first stage come to where they are null.

    Args:
        config: the ``model`` section.
        strides: of the feature maps, without the level pooled from the last one.

    Raises:
        ConfigError: anchor sizes for another number of levels, or none for one of them; or no aspect ratios.
    """
    given, variant = config.rpn, config.variant
    most = 150 if variant == "mobilenet_v3_large_320_fpn" else 1000
    levels = (*strides, 2 * strides[-1])
    sizes = given.anchor_sizes
    if sizes is None and variant in _MOBILENETS:
        sizes = (_MOBILENET_SIZES,) * len(levels)
    elif sizes is None:
        sizes = tuple((float(_ANCHOR_STRIDES * stride),) for stride in levels)
    if len(sizes) != len(levels) or not all(sizes):
        raise ConfigError(
            f"model.rpn.anchor_sizes: expected one or more sizes for each of {len(levels)} levels, of strides "
            f"{list(levels)} (the last one is pooled for the proposals), got {[list(level) for level in sizes]}"
        )
    if len({len(level) for level in sizes}) > 1:
        raise ConfigError(
            f"model.rpn.anchor_sizes: one head looks at all levels, so that each needs as many sizes, got "
            f"{[list(level) for level in sizes]}"
        )
    if given.aspect_ratios == ():
        raise ConfigError("model.rpn.aspect_ratios: expected one or more, got none; null stands for 0.5, 1 and 2")
    return ProposalValues(
        anchor_sizes=sizes,
        aspect_ratios=given.aspect_ratios or (0.5, 1.0, 2.0),
        convolutions=given.convolutions or (2 if variant == "resnet50_fpn_v2" else 1),
        candidates=given.pre_nms_top_n or most,
        proposals=given.post_nms_top_n or most,
        score_threshold=(0.05 if variant in _MOBILENETS else 0.0)
        if given.score_threshold is None
        else given.score_threshold,
    )


def _custom_maps(config: FasterRcnnConfig | MaskRcnnConfig, load_pretrained: bool) -> tuple[Backbone, FPN | PAN]:
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


def _published_maps(config: FasterRcnnConfig | MaskRcnnConfig) -> tuple[PublishedBackbone, PublishedFPN]:
    """As torchvision makes them: normalisation with fixed statistics where weights come with it, but for v2."""
    is_v2 = config.variant == "resnet50_fpn_v2"
    frozen_norm = config.weights is not None and not is_v2
    backbone: PublishedBackbone
    if config.variant in _MOBILENETS:
        backbone = PublishedMobileNetV3Large(frozen_norm)
    else:  # the weights of the first version were trained with a normalisation that added nothing to variances
        backbone = PublishedResNet50(frozen_norm, norm_eps=0.0 if frozen_norm else 1e-5)
    return backbone, PublishedFPN(backbone.channels, backbone.strides, norm=is_v2)


def _proposal_network(config: FasterRcnnConfig | MaskRcnnConfig, neck: AnyNeck) -> ProposalNetwork:
    given, values = config.rpn, resolve_proposals(config, neck.strides)
    return ProposalNetwork(
        neck.channels[0],
        values.anchor_sizes,
        values.aspect_ratios,
        convolutions=values.convolutions,
        positive_iou=given.positive_iou,
        negative_iou=given.negative_iou,
        samples=given.batch_size_per_image,
        positive_share=given.positive_fraction,
        nms_iou=given.nms_iou,
        candidates=(given.pre_nms_top_n_train, values.candidates),
        proposals=(given.post_nms_top_n_train, values.proposals),
        score_threshold=values.score_threshold,
        box_loss=_box_loss(given.box_loss),
    )


def _region_heads(config: FasterRcnnConfig | MaskRcnnConfig, neck: AnyNeck, num_outputs: int) -> RegionHeads:
    given, channels, side = config.roi_heads, neck.channels[0], config.roi_heads.pool_size
    box_head: nn.Module
    if config.variant == "resnet50_fpn_v2":
        box_head = FastRCNNConvFCHead((channels, side, side), [256] * 4, [given.hidden], norm_layer=nn.BatchNorm2d)
    else:
        box_head = TwoMLPHead(channels * side**2, given.hidden)
    mask_pool: nn.Module | None = None
    mask_head: nn.Module | None = None
    mask_predictor: nn.Module | None = None
    mask = config.mask if isinstance(config, MaskRcnnConfig) else MaskHeadConfig()
    if isinstance(config, MaskRcnnConfig):
        mask_pool = _pool(neck, mask.pool_size, given.sampling_ratio)
        mask_head = MaskRCNNHeads(channels, (mask.channels,) * mask.convolutions, 1)
        mask_predictor = MaskRCNNPredictor(mask.channels if mask.convolutions else channels, mask.channels, num_outputs)
    return RegionHeads(
        _pool(neck, side, given.sampling_ratio),
        box_head,
        FastRCNNPredictor(given.hidden, num_outputs),
        positive_iou=given.positive_iou,
        samples=given.batch_size_per_image,
        positive_share=given.positive_fraction,
        box_loss=_box_loss(given.box_loss),
        score_threshold=config.score_threshold,
        nms_iou=config.nms_iou,
        max_detections=config.max_detections,
        mask_pool=mask_pool,
        mask_head=mask_head,
        mask_predictor=mask_predictor,
        mask_weight=mask.weight,
        mask_threshold=mask.threshold,
        published_masks=config.variant != "custom",
    )


def _pool(neck: AnyNeck, side: int, sampling_ratio: int) -> MultiScaleRoIAlign:
    return MultiScaleRoIAlign([str(i) for i in range(len(neck.strides))], side, sampling_ratio)


def _box_loss(config: BoxLossConfig) -> BoxLoss:
    return BoxLoss(config.name, config.beta, config.weight)
