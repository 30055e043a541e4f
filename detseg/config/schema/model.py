"""Settings of the models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from detseg.config.schema.section import (
    Channels,
    Count,
    Factor,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Probability,
    Section,
)


class BackboneConfig(Section):
    """The network that turns an image into feature maps."""

    name: str = "csp_nano"
    """`csp_nano`, `csp_small`, `csp_medium`, `csp_large`, `unet` (the encoder of the U-Net paper), or the name
    of any timm model that gives features. By default a unet has `unet`, a two-stage detector `resnet50`."""
    depth: Factor | None = None
    """Depth multiplier of a csp backbone; null: that of its name. An error for others."""
    width: Factor | None = None
    """Width multiplier of a csp backbone, null: that of its name; or of `unet`, null: 1, the paper's 64 channels.
    An error for timm models."""
    levels: Annotated[int, Field(ge=2, le=6)] | None = None
    """Levels of `unet`, each half the size and twice the channels of the one before; null: as many as the coarsest
    stride needs, the paper's 5 in a U-Net. An error for others."""
    pretrained: bool = False
    """Load the published weights of a timm model (downloads on first use). An error for ours: none are published."""
    freeze: Literal["none", "stem", "backbone"] | Annotated[int, Field(ge=1, le=5)] = "none"
    """The part that is not trained: its weights and batch-norm statistics stay as they are. A number: that many stages,
    counted from the image; stage n ends at the feature map of stride 2^n, so that `stem` is 1."""
    freeze_bn: bool = False
    """All its batch normalisation keeps statistics, scale and shift: for pretrained weights and small batches."""
    unfreeze_epoch: PositiveInt | None = None
    """Train the frozen part from this epoch on (the first is 1, which would freeze nothing); null: never."""


class NeckConfig(Section):
    """The network that mixes feature maps of different strides."""

    name: Literal["pan", "fpn"] = "pan"
    """`fpn`: top-down (Lin et al. 2017); `pan`: top-down, then bottom-up (Liu et al. 2018). An fcn has a neck only
    where one is set, a unet has none."""
    channels: Channels | None = None
    """Channels of every fpn level, or of the finest pan level (which then doubles); null: follow the backbone."""
    depth: Factor | None = None
    """Depth multiplier of the pan's CSP layers; null: that of the backbone, or 0.33 for timm models."""


class TaskAlignedHeadConfig(Section):
    """Anchor-free head: task-aligned assignment (TOOD), CIoU and distribution focal loss."""

    name: Literal["task_aligned"] = "task_aligned"
    coupled: bool = False
    """One branch for boxes and classes (as in the early versions) instead of two."""
    strides: tuple[PositiveInt, ...] = (8, 16, 32)
    """The strides of the feature maps that predict."""
    reg_max: Annotated[int, Field(ge=2, le=256)] = 16
    """Bins of the distribution of each side's distance (Li et al. 2020), each one stride wide."""
    topk: Count = 13
    """Most positive priors of an object (TOOD's m)."""
    alpha: NonNegativeFloat = 1.0
    """Exponent of the class score in the alignment metric."""
    beta: NonNegativeFloat = 6.0
    """Exponent of the IoU in the alignment metric."""
    box_weight: NonNegativeFloat = 10.0
    """Weight of the CIoU loss. This and the next two: PP-YOLOE's 2.5, 1 and 0.5 (Xu et al. 2022), with
    boxes weighed four times as much against classes, which measured better on BCCD (docs/benchmarks.md)."""
    class_weight: NonNegativeFloat = 1.0
    """Weight of the classification loss."""
    dfl_weight: NonNegativeFloat = 2.0
    """Weight of the distribution focal loss."""


class AnchorHeadConfig(Section):
    """Anchor head of YOLOv2 and YOLOv3: the anchor of best IoU is responsible."""

    name: Literal["anchor"]
    coupled: bool = True
    """One branch for boxes, objectness and classes, as in the papers."""
    strides: tuple[PositiveInt, ...] = (8, 16, 32)
    """The strides of the feature maps that predict."""
    anchors: tuple[tuple[PositiveFloat, PositiveFloat], ...] | None = None
    """Widths and heights in input pixels, distributed over the strides by size; null: k-means on the training set."""
    anchors_per_level: Annotated[int, Field(ge=1, le=100)] = 3
    """Anchors of each stride; `anchors`, where given, must be that many for each stride."""
    ignore_iou: Probability = 0.5
    """A prior whose IoU with an object is above this, and which is not responsible for it, is not a negative."""
    box_weight: NonNegativeFloat = 5.0
    """Weight of the box loss."""
    objectness_weight: NonNegativeFloat = 1.0
    """Weight of the objectness loss."""
    class_weight: NonNegativeFloat = 1.0
    """Weight of the classification loss."""


class GridHeadConfig(Section):
    """Grid head of YOLOv1: the cell that holds an object's centre is responsible."""

    name: Literal["grid"]
    coupled: bool = True
    """One branch for boxes, confidence and classes, as in the paper."""
    stride: PositiveInt = 32
    """The stride of the grid: cells are this many input pixels wide (the paper: 64 at 448 pixels)."""
    boxes_per_cell: Annotated[int, Field(ge=1, le=100)] = 2
    """B of the paper."""
    coordinate_weight: NonNegativeFloat = 5.0
    """Lambda_coord of the paper."""
    no_object_weight: NonNegativeFloat = 0.5
    """Lambda_noobj of the paper."""


HeadConfig = Annotated[TaskAlignedHeadConfig | AnchorHeadConfig | GridHeadConfig, Field(discriminator="name")]


class YoloConfig(Section):
    """A one-stage detector: backbone, neck, head."""

    name: Literal["yolo"] = "yolo"
    backbone: BackboneConfig = BackboneConfig()
    neck: NeckConfig = NeckConfig()
    head: HeadConfig = TaskAlignedHeadConfig()
    score_threshold: Probability = 0.001
    """Detections below this score are dropped before NMS; low, because AP counts the tail of the ranking."""
    nms_iou: Probability = 0.65
    """IoU of NMS: of two detections of one class that overlap by more, the one with the lower score is dropped."""
    max_detections: Count = 300
    """Most detections of an image, the best ones, that are kept after NMS."""


class CustomModelConfig(Section):
    """A PyTorch module of your own, which `detseg.train` is given in Python."""

    name: Literal["custom"]
    task: Literal["detection", "instance", "semantic"] = "detection"
    """What it finds: boxes, boxes with masks, or the class of every pixel."""
