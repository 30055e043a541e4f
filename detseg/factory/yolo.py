"""From settings to YOLO detectors: an explicit match that one can click through."""

from __future__ import annotations

from torch import Tensor

from detseg.config.schema.model import AnchorHeadConfig, GridHeadConfig, HeadConfig, TaskAlignedHeadConfig, YoloConfig
from detseg.errors import ConfigError
from detseg.factory.backbones import build_backbone, build_neck
from detseg.factory.class_weights import class_weights
from detseg.models.layers import Normalize
from detseg.models.yolo.anchor import AnchorScheme
from detseg.models.yolo.detector import CoupledHead, DecoupledHead, YoloDetector
from detseg.models.yolo.grid import GridScheme
from detseg.models.yolo.scheme import Scheme
from detseg.models.yolo.task_aligned import TaskAlignedAssigner, TaskAlignedScheme


def build_detector(config: YoloConfig, num_classes: int, load_pretrained: bool = True) -> YoloDetector:
    """The detector that ``config`` describes; arguments and errors as of ``build_model``."""
    strides = head_strides(config.head)
    backbone = build_backbone(config.backbone, strides, load_pretrained)
    neck = build_neck(config.neck, config.backbone, backbone.channels, strides)
    scheme = build_scheme(config.head, num_classes, class_weights(config, num_classes))
    head_class = CoupledHead if config.head.coupled else DecoupledHead
    head = head_class(neck.channels, scheme, max(64, neck.channels[0]), config.head.dropout)
    return YoloDetector(
        backbone,
        neck,
        head,
        scheme,
        Normalize(backbone.mean, backbone.std),
        config.score_threshold,
        config.nms_iou,
        config.max_detections,
    )


def head_strides(config: HeadConfig) -> tuple[int, ...]:
    """The strides that a head predicts on, finest first. ConfigError: none, or one twice."""
    if isinstance(config, GridHeadConfig):
        return (config.stride,)
    if not config.strides or len(set(config.strides)) != len(config.strides):
        raise ConfigError(f"model.head.strides: expected one or more different strides, got {list(config.strides)}")
    return tuple(sorted(config.strides))


def build_scheme(config: HeadConfig, num_classes: int, weights: Tensor | None = None) -> Scheme:
    """Priors, assignment, losses and decoding of a head; ``weights``: (C,) of the objects of each class.

    Raises:
        ConfigError: an anchor head without anchors, which the kind of task fits to the data before a model is built; or
            their number is no multiple of that of the strides, or not what ``anchors_per_level`` makes.
    """
    match config:
        case TaskAlignedHeadConfig():
            return TaskAlignedScheme(
                num_classes,
                head_strides(config),
                TaskAlignedAssigner(config.topk, config.alpha, config.beta),
                config.reg_max,
                config.box_weight,
                config.class_weight,
                config.dfl_weight,
                weights,
            )
        case AnchorHeadConfig():
            return AnchorScheme(
                num_classes,
                head_strides(config),
                _anchors_by_level(config),
                config.ignore_iou,
                config.box_weight,
                config.objectness_weight,
                config.class_weight,
                weights,
            )
        case GridHeadConfig():
            return GridScheme(
                num_classes,
                config.stride,
                config.boxes_per_cell,
                config.coordinate_weight,
                config.no_object_weight,
                weights,
            )


def _anchors_by_level(config: AnchorHeadConfig) -> list[list[tuple[float, float]]]:
    """The anchors of each stride, the smallest on the finest."""
    if config.anchors is None:
        raise ConfigError("model.head.anchors: not given; set them, or train from a settings file, which fits them")
    num, strides = len(config.anchors), head_strides(config)
    if not num or num % len(strides):
        raise ConfigError(f"model.head.anchors: {num} anchors cannot be distributed evenly over {len(strides)} strides")
    per_level = num // len(strides)
    if per_level != config.anchors_per_level:
        raise ConfigError(
            f"model.head.anchors: {num} anchors on {len(strides)} strides are {per_level} for each, but "
            f"model.head.anchors_per_level is {config.anchors_per_level}; set it to {per_level}, or give "
            f"{config.anchors_per_level * len(strides)} anchors"
        )
    ranked = sorted(config.anchors, key=lambda size: size[0] * size[1])
    return [ranked[i : i + per_level] for i in range(0, num, per_level)]
