"""Settings of Faster R-CNN (Ren et al. 2015, Lin et al. 2017) and Mask R-CNN (He et al. 2017), as in the papers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from detseg.config.schema.model import BackboneConfig, NeckConfig
from detseg.config.schema.section import (
    Channels,
    Count,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Probability,
    Section,
)

Variant = Literal["custom", "resnet50_fpn", "resnet50_fpn_v2", "mobilenet_v3_large_fpn", "mobilenet_v3_large_320_fpn"]


class BoxLossConfig(Section):
    """The loss of the boxes of one stage."""

    name: Literal["smooth_l1", "giou", "ciou"] = "smooth_l1"
    """`smooth_l1` of the encoded differences (Girshick 2015, eq. 3); `giou` (Rezatofighi et al. 2019) or `ciou` (Zheng
    et al. 2020) of the boxes themselves."""
    beta: PositiveFloat = 1 / 9
    """Where smooth L1 turns from square to straight; 1/9 is the sigma of 3 that Ren et al. used. For smooth_l1 only."""
    weight: NonNegativeFloat = 1.0
    """Weight of the loss."""


class RpnConfig(Section):
    """The first stage: the region proposal network (Ren et al. 2015, section 3)."""

    anchor_sizes: tuple[tuple[PositiveFloat, ...], ...] | None = None
    """Sides of the square anchors of each level in pixels of the network input, a list for each level, finest first,
    the pooled one last; null: one a level, 8 times its stride: 32 to 512 for strides 4 to 64, as in Lin et al. 2017
    (both mobilenet variants: all five at every level)."""
    aspect_ratios: tuple[PositiveFloat, ...] | None = None
    """Heights over widths of the anchors; null: 0.5, 1 and 2."""
    convolutions: Annotated[int, Field(ge=1, le=32)] | None = None
    """3×3 convolutions of its head; null: 1, as in the paper (resnet50_fpn_v2: 2)."""
    positive_iou: Probability = 0.7
    """An anchor that overlaps an object by at least this is positive; so is the best one of each object."""
    negative_iou: Probability = 0.3
    """An anchor that overlaps every object by less than this is negative."""
    batch_size_per_image: Count = 256
    """Anchors of an image in the losses, drawn at random."""
    positive_fraction: Probability = 0.5
    """Largest fraction of them that is positive."""
    nms_iou: Probability = 0.7
    """IoU of NMS: of two proposals of a level that overlap by more, the one with the lower score is dropped."""
    pre_nms_top_n_train: Count = 2000
    """Best anchors of each level that go into NMS, in training (Lin et al. 2017)."""
    pre_nms_top_n: Count | None = None
    """Best anchors of each level that go into NMS, in prediction; null: 1000 (mobilenet_v3_large_320_fpn: 150)."""
    post_nms_top_n_train: Count = 2000
    """Proposals of an image that are kept after NMS, in training."""
    post_nms_top_n: Count | None = None
    """Proposals of an image that are kept after NMS, in prediction; null: 1000 (mobilenet_v3_large_320_fpn: 150)."""
    score_threshold: Probability | None = None
    """Proposals with a lower score are dropped; null: 0 (both mobilenet variants: 0.05)."""
    box_loss: BoxLossConfig = BoxLossConfig()


class RoiHeadsConfig(Section):
    """The second stage: class and box of each proposal (Girshick 2015, "Fast R-CNN"; Lin et al. 2017, section 4.2)."""

    pool_size: Annotated[int, Field(ge=1, le=64)] = 7
    """Cells along a side of the features of a proposal (RoIAlign, He et al. 2017)."""
    sampling_ratio: Annotated[int, Field(ge=1, le=16)] = 2
    """Samples along a side of each cell."""
    hidden: Channels = 1024
    """Width of its two fully connected layers."""
    positive_iou: Probability = 0.5
    """A proposal that overlaps an object by at least this is positive, else negative."""
    batch_size_per_image: Count = 512
    """Proposals of an image in the losses, drawn at random."""
    positive_fraction: Probability = 0.25
    """Largest fraction of them that is positive."""
    box_loss: BoxLossConfig = BoxLossConfig()


class MaskHeadConfig(Section):
    """The mask of each proposal (He et al. 2017, figure 4, right)."""

    pool_size: Annotated[int, Field(ge=1, le=64)] = 14
    """Cells along a side of the features of a proposal; the mask has twice as many."""
    convolutions: Annotated[int, Field(ge=0, le=32)] = 4
    """3×3 convolutions."""
    channels: Channels = 256
    """Channels of each of them and of the transposed one."""
    weight: NonNegativeFloat = 1.0
    """Weight of the mask loss."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Probability from which a pixel belongs to the object."""


class RcnnConfig(Section):
    """Settings of both two-stage detectors."""

    variant: Variant = "custom"
    """`custom`: backbone, neck and heads are as set here. The others are networks with published weights; what they
    decide (backbone, neck, anchors, widths of the heads) cannot be set beside them."""
    weights: Literal["coco"] | None = None
    """`coco`: the published weights of the variant, trained on COCO, downloaded on first use; the layers with a row for
    each class only where the data has exactly COCO's 80 classes by name, else these are random. null: random."""
    backbone: BackboneConfig = BackboneConfig(name="resnet50")
    neck: NeckConfig = NeckConfig(name="fpn")
    strides: tuple[PositiveInt, ...] = (4, 8, 16, 32)
    """Strides of the feature maps, each twice the one before; the RPN has one more map, pooled from the last."""
    rpn: RpnConfig = RpnConfig()
    roi_heads: RoiHeadsConfig = RoiHeadsConfig()
    score_threshold: Probability = 0.05
    """Detections below this score are dropped before NMS."""
    nms_iou: Probability = 0.5
    """IoU of NMS: of two detections of one class that overlap by more, the one with the lower score is dropped."""
    max_detections: Count = 100
    """Most detections of an image, the best ones, kept after NMS; raise it with `evaluation.max_detections`."""


class FasterRcnnConfig(RcnnConfig):
    """A two-stage detector of boxes (Ren et al. 2015) on a feature pyramid."""

    name: Literal["faster_rcnn"]


class MaskRcnnConfig(RcnnConfig):
    """A two-stage detector of boxes and masks (He et al. 2017); its data has a mask for each object."""

    name: Literal["mask_rcnn"]
    mask: MaskHeadConfig = MaskHeadConfig()
