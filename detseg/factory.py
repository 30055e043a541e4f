"""From settings to modules: explicit matches that one can click through."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from torch import nn

from detseg.checkpoint import ModelCheckpoint, read_model_checkpoint
from detseg.config.load import config_from_dict
from detseg.config.model import (
    AnchorHeadConfig,
    BackboneConfig,
    GridHeadConfig,
    HeadConfig,
    NeckConfig,
    TaskAlignedHeadConfig,
    YoloConfig,
)
from detseg.config.schema import ExperimentConfig
from detseg.errors import CheckpointError, ConfigError
from detseg.models.backbones import CSP_FAMILY, CSPBackbone
from detseg.models.blocks import Normalize
from detseg.models.necks import FPN, PAN
from detseg.models.timm_backbone import TimmBackbone
from detseg.models.yolo.anchor import AnchorScheme
from detseg.models.yolo.assign_task_aligned import TaskAlignedAssigner
from detseg.models.yolo.detector import YoloDetector
from detseg.models.yolo.grid import GridScheme
from detseg.models.yolo.head import CoupledHead, DecoupledHead
from detseg.models.yolo.scheme import Scheme
from detseg.models.yolo.task_aligned import TaskAlignedScheme


def build_detector(config: YoloConfig, num_classes: int, load_pretrained: bool = True) -> YoloDetector:
    """The detector that ``config`` describes, with weights at their start.

    Args:
        config: the ``model`` section; anchors, where the head needs them, must be given.
        num_classes: how many classes the data has.
        load_pretrained: fetch a pretrained backbone's weights; off where a checkpoint follows anyway.

    Raises:
        ConfigError: no such backbone, or a field that does not apply to it.
    """
    strides = head_strides(config.head)
    backbone = build_backbone(config.backbone, strides, load_pretrained)
    neck = build_neck(config.neck, config.backbone, backbone.channels, strides)
    scheme = build_scheme(config.head, num_classes)
    head_class = CoupledHead if config.head.coupled else DecoupledHead
    head = head_class(neck.channels, cast(Scheme, scheme), hidden=max(64, neck.channels[0]))
    return YoloDetector(
        backbone,
        neck,
        head,
        cast(Scheme, scheme),
        Normalize(backbone.mean, backbone.std),
        config.score_threshold,
        config.nms_iou,
        config.max_detections,
    )


def head_strides(config: HeadConfig) -> tuple[int, ...]:
    """The strides that a head predicts on, finest first.

    Raises:
        ConfigError: none, or one twice.
    """
    if isinstance(config, GridHeadConfig):
        return (config.stride,)
    if not config.strides or len(set(config.strides)) != len(config.strides):
        raise ConfigError(f"model.head.strides: expected one or more different strides, got {list(config.strides)}")
    return tuple(sorted(config.strides))


def build_backbone(
    config: BackboneConfig, strides: tuple[int, ...], load_pretrained: bool
) -> CSPBackbone | TimmBackbone:
    """The backbone that ``config`` describes, its first stages frozen where asked.

    Raises:
        ConfigError: no such backbone, it lacks a stride, or a setting does not apply to it.
        DetsegError: published weights could not be loaded.
    """
    backbone: CSPBackbone | TimmBackbone
    try:
        if config.name in CSP_FAMILY:
            if config.pretrained:
                raise ConfigError(f"model.backbone.pretrained: no weights are published for {config.name!r}")
            depth, width = CSP_FAMILY[config.name]
            backbone = CSPBackbone(config.depth or depth, config.width or width, strides)
        else:
            if config.depth is not None or config.width is not None:
                raise ConfigError(
                    f"model.backbone: depth and width belong to {', '.join(CSP_FAMILY)}; {config.name!r} has none"
                )
            backbone = TimmBackbone(config.name, config.pretrained and load_pretrained, strides)
        backbone.freeze_stages(config.frozen_stages)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"model.backbone: {error}; ours are {', '.join(CSP_FAMILY)}") from error
    return backbone


def build_neck(
    config: NeckConfig, backbone: BackboneConfig, in_channels: tuple[int, ...], strides: tuple[int, ...]
) -> FPN | PAN:
    """The neck that ``config`` describes, on a backbone with ``in_channels``.

    Raises:
        ConfigError: a setting that does not apply to this neck.
    """
    match config.name:
        case "fpn":
            if config.depth is not None:
                raise ConfigError("model.neck.depth: belongs to pan, an fpn has no CSP layers; leave it out")
            return FPN(in_channels, strides, config.channels or in_channels[0])
        case "pan":
            if len(strides) == 1 and (config.channels is not None or config.depth is not None):
                raise ConfigError(
                    "model.neck: a pan on one stride passes the backbone's map on as it is, so channels and depth do "
                    "not apply; leave them out, or set model.neck.name=fpn"
                )
            family_depth, _ = CSP_FAMILY.get(backbone.name, CSP_FAMILY["csp_nano"])
            first = config.channels
            channels = in_channels if first is None else tuple(first * 2**i for i in range(len(in_channels)))
            return PAN(in_channels, strides, channels, config.depth or backbone.depth or family_depth)


def build_scheme(config: HeadConfig, num_classes: int) -> nn.Module:
    """Priors, assignment, losses and decoding of a head.

    Raises:
        ConfigError: an anchor head without anchors; ``detseg.experiment`` fits them before it builds.
    """
    match config:
        case TaskAlignedHeadConfig():
            return TaskAlignedScheme(
                num_classes,
                tuple(sorted(config.strides)),
                TaskAlignedAssigner(config.top_candidates, config.alpha, config.beta),
                config.bins,
                config.box_weight,
                config.class_weight,
                config.dfl_weight,
            )
        case AnchorHeadConfig():
            if config.anchors is None:
                raise ConfigError("model.head.anchors: not given; set them, or let training fit them to the data")
            return build_anchor_scheme(config, config.anchors, num_classes)
        case GridHeadConfig():
            return GridScheme(
                num_classes,
                config.stride,
                config.boxes_per_cell,
                config.coordinate_weight,
                config.no_object_weight,
            )


def build_anchor_scheme(
    config: AnchorHeadConfig, anchors: tuple[tuple[float, float], ...], num_classes: int
) -> AnchorScheme:
    """The anchor scheme with its anchors shared out over the strides, smallest on the finest.

    Raises:
        ConfigError: their number is no multiple of that of the strides, or not what ``anchors_per_level`` makes.
    """
    strides = head_strides(config)
    if not anchors or len(anchors) % len(strides):
        raise ConfigError(
            f"model.head.anchors: {len(anchors)} anchors cannot be shared out evenly over {len(strides)} strides"
        )
    ranked = sorted(anchors, key=lambda size: size[0] * size[1])
    share = len(ranked) // len(strides)
    if share != config.anchors_per_level:
        raise ConfigError(
            f"model.head.anchors: {len(anchors)} anchors on {len(strides)} strides are {share} for each, but "
            f"model.head.anchors_per_level is {config.anchors_per_level}; set it to {share}, or give "
            f"{config.anchors_per_level * len(strides)} anchors"
        )
    levels = [ranked[i * share : (i + 1) * share] for i in range(len(strides))]
    return AnchorScheme(
        num_classes,
        strides,
        levels,
        config.ignore_iou,
        config.box_weight,
        config.objectness_weight,
        config.class_weight,
    )


def load_detector(path: Path) -> tuple[YoloDetector, ExperimentConfig, ModelCheckpoint]:
    """The trained detector of a checkpoint, in evaluation mode on the CPU, with its settings and what else it holds.

    Raises:
        CheckpointError: missing, damaged, or its weights do not fit its settings.
    """
    checkpoint = read_model_checkpoint(path)
    config = config_from_dict(checkpoint.config, where=str(path))
    model = build_detector(config.model, len(checkpoint.classes), load_pretrained=False)
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        first = str(error).split("\n")[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointError(f"{path}: its weights do not fit its own settings ({first})") from error
    return model.eval(), config, checkpoint
