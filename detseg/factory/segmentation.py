"""From settings to segmenters: FCN and U-Net."""

from __future__ import annotations

from torch import nn

from detseg.config.schema.model import FcnConfig, SegmentationLossConfig, UNetConfig
from detseg.errors import ConfigError
from detseg.factory.backbones import Backbone, build_backbone, build_neck
from detseg.models.layers import Normalize
from detseg.models.segmentation import AuxiliaryHead, FCNHead, SegmentationLoss, SemanticSegmenter, UNetDecoder

_FCN_STRIDES = (8, 16, 32)

_Parts = tuple[Backbone, nn.Module | None, nn.Module, nn.Module | None]  # backbone, neck, head, auxiliary head


def build_segmenter(
    config: FcnConfig | UNetConfig, num_classes: int, load_pretrained: bool = True
) -> SemanticSegmenter:
    """The segmenter that ``config`` describes; arguments and errors as of ``build_model``, a background is a class."""
    if config.binary and num_classes != 2:
        raise ConfigError(f"model.binary: needs exactly 2 classes, the data has {num_classes}; set it to false")
    criterion = build_criterion(config.loss, num_classes)
    num_outputs = 1 if config.binary else num_classes
    match config:
        case FcnConfig():
            parts = _fcn(config, num_outputs, load_pretrained)
        case UNetConfig():
            parts = _unet(config, num_outputs, load_pretrained)
    backbone, neck, head, auxiliary = parts
    normalize = Normalize(backbone.mean, backbone.std)
    return SemanticSegmenter(
        backbone, neck, head, normalize, criterion, num_classes, auxiliary, config.auxiliary_weight
    )


def _fcn(config: FcnConfig, num_outputs: int, load_pretrained: bool) -> _Parts:
    finest = min(config.stride, 16) if config.auxiliary_weight else config.stride
    strides = tuple(stride for stride in _FCN_STRIDES if stride >= finest)
    backbone = build_backbone(config.backbone, strides, load_pretrained)
    neck = None if config.neck is None else build_neck(config.neck, config.backbone, backbone.channels, strides)
    channels = backbone.channels if neck is None else neck.channels
    options = config.stride, config.upsampling, config.head_channels, config.dropout
    head = FCNHead(channels, strides, num_outputs, *options)
    auxiliary = AuxiliaryHead(channels[-2], strides[-2], num_outputs, position=-2) if config.auxiliary_weight else None
    return backbone, neck, head, auxiliary


def _unet(config: UNetConfig, num_outputs: int, load_pretrained: bool) -> _Parts:
    if config.strides and min(config.strides) < config.output_stride:
        raise ConfigError(
            f"model.strides: {list(config.strides)} has maps finer than model.output_stride {config.output_stride}, "
            "which nothing would use; leave them out"
        )
    backbone = build_backbone(config.backbone, config.strides, load_pretrained)
    try:
        head = UNetDecoder(
            backbone.channels,
            backbone.strides,
            num_outputs,
            config.decoder_channels,
            config.output_stride,
            config.upsampling,
            config.dropout,
        )
    except ValueError as error:
        hint = "set model.strides, model.output_stride or model.decoder_channels, or take another backbone"
        raise ConfigError(f"model: the decoder's {error}; {hint}") from error
    auxiliary = None
    if config.auxiliary_weight:
        auxiliary = AuxiliaryHead(backbone.channels[-1], backbone.strides[-1], num_outputs, position=-1)
    return backbone, None, head, auxiliary


def build_criterion(config: SegmentationLossConfig, num_classes: int) -> SegmentationLoss:
    """The loss that ``config`` describes. ConfigError: numbers that do not fit the classes, or a setting whose terms
    are off."""
    weights, cross_entropy, focal = config.class_weights, config.cross_entropy, config.focal
    dice, tversky, excluded = config.dice, config.tversky, config.excluded_classes
    if weights == "median_frequency":
        raise ConfigError("model.loss.class_weights: not computed yet; give numbers, or train from a settings file")
    if weights is not None and not (cross_entropy.weight or focal.weight):
        raise ConfigError("model.loss.class_weights: belong to cross_entropy and focal, both are off; leave it out")
    if excluded and not (dice.weight or tversky.weight):
        raise ConfigError("model.loss.excluded_classes: belongs to dice and tversky, both are off; leave it out")
    of_pixels = cross_entropy.weight, cross_entropy.label_smoothing, focal.weight, focal.gamma
    of_overlap = dice.weight, tversky.weight, tversky.alpha, tversky.beta
    try:
        return SegmentationLoss(num_classes, *of_pixels, *of_overlap, weights, excluded)
    except ValueError as error:
        raise ConfigError(f"model.loss: {error}") from error
