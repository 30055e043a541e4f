"""From settings to modules: explicit matches that one can click through."""

from __future__ import annotations

from detseg.factory.backbones import build_backbone, build_neck
from detseg.factory.models import Model, build_model, load_model
from detseg.factory.rcnn import build_rcnn
from detseg.factory.segmentation import build_criterion, build_segmenter
from detseg.factory.yolo import build_anchor_scheme, build_detector, build_scheme, head_strides

__all__ = [
    "Model",
    "build_anchor_scheme",
    "build_backbone",
    "build_criterion",
    "build_detector",
    "build_model",
    "build_neck",
    "build_rcnn",
    "build_scheme",
    "build_segmenter",
    "head_strides",
    "load_model",
]
