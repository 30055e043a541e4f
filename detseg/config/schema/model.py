"""Settings of the models: YOLO, Faster R-CNN and Mask R-CNN (as in their papers), FCN and U-Net."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from detseg.config.schema.section import (
    Channels,
    Count,
    Factor,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Section,
)

Dropout = Annotated[float, Field(ge=0, lt=1)]
ClassWeights = Literal["inverse_sqrt_frequency"] | tuple[NonNegativeFloat, ...] | None
Freeze = Literal["none", "stem", "backbone"] | Annotated[int, Field(ge=1, le=5)] | Annotated[float, Field(gt=0, lt=1)]


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
    weights: Path | None = None
    """A local file of weights to begin with: timm's or torchvision's, whole classifiers too, or a checkpoint of a
    training; all of the backbone must be in it. Nothing is downloaded. null: `pretrained` decides."""
    freeze: Freeze = "none"
    """The part that is not trained: its weights and batch-norm statistics stay as they are. A whole number: that many
    stages, counted from the image; stage n ends at the feature map of stride 2^n, so that `stem` is 1. A fraction: that
    part of the layers, counted from the image, at least one and never all."""
    freeze_bn: bool = False
    """All its batch normalisation keeps statistics, scale and shift: for pretrained weights and small batches."""
    unfreeze_epoch: PositiveInt | None = None
    """Train the frozen part from this epoch on (the first is 1, which would freeze nothing); null: never."""
    unfreeze_every: PositiveInt | None = None
    """Unfreeze gradually: the last frozen stage at `unfreeze_epoch`, and one more each time so many epochs have passed;
    null: all at once."""


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
    dropout: Dropout = 0.0
    """Fraction of the channels before the last convolution that is dropped in training (Tompson et al. 2015)."""
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
    dropout: Dropout = 0.0
    """Fraction of the channels before the last convolution that is dropped in training (Tompson et al. 2015)."""
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
    dropout: Dropout = 0.0
    """Fraction of the channels before the last convolution that is dropped in training (Tompson et al. 2015)."""
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
    weights: Path | None = None
    """A checkpoint of detseg's, `.ckpt` or `.safetensors`, to begin with: also of other classes (those of the same name
    are taken over), another neck or input size. Every tensor is taken, or named with the reason. null: random."""
    backbone: BackboneConfig = BackboneConfig()
    neck: NeckConfig = NeckConfig()
    head: HeadConfig = TaskAlignedHeadConfig()
    class_weights: ClassWeights = None
    """Weight of the objects of each class in the classification loss, in label order; `inverse_sqrt_frequency`: in
    inverse proportion to the square root of their number in the training set, written into the run's config; null: all
    1."""
    score_threshold: Probability = 0.001
    """Detections below this score are dropped before NMS; low, because AP counts the tail of the ranking."""
    nms_iou: Probability = 0.65
    """IoU of NMS: of two detections of one class that overlap by more, the one with the lower score is dropped."""
    max_detections: Count = 300
    """Most detections of an image, the best ones, that are kept after NMS."""


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
    dropout: Dropout = 0.0
    """Fraction of the outputs of each of these layers that is dropped in training (Girshick 2015: 0.5, as VGG has)."""
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
    weights: Literal["coco"] | Path | None = None
    """A checkpoint of detseg's to begin with, as for yolo. `coco`: the published weights of the variant, trained on
    COCO, downloaded on first use; the layers with a row for each class only where the data has exactly the 80 classes
    of COCO by name, else these are random. null: random."""
    backbone: BackboneConfig = BackboneConfig(name="resnet50")
    neck: NeckConfig = NeckConfig(name="fpn")
    strides: tuple[PositiveInt, ...] = (4, 8, 16, 32)
    """Strides of the feature maps, each twice the one before; the RPN has one more map, pooled from the last."""
    rpn: RpnConfig = RpnConfig()
    roi_heads: RoiHeadsConfig = RoiHeadsConfig()
    class_weights: ClassWeights = None
    """Weight of the objects of each class in the classification loss of the second stage, as for yolo; the background
    has 1."""
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


class CrossEntropyConfig(Section):
    """Cross-entropy over the pixels that count."""

    weight: NonNegativeFloat = 1.0
    """Its weight in the sum; 0: off."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the target that is spread over all classes (Szegedy et al. 2016)."""


class LossTermSection(Section):
    """Settings of the terms that are off by default."""

    weight: NonNegativeFloat = 0.0
    """Its weight in the sum; 0: off."""


class FocalConfig(LossTermSection):
    """Focal loss (Lin et al. 2017): cross-entropy with less weight on easy pixels."""

    gamma: NonNegativeFloat = 2.0
    """Exponent of (1 - probability of the right class); 0: cross-entropy."""


class DiceConfig(LossTermSection):
    """One minus the Dice overlap of each class (Milletari et al. 2016), over the whole batch."""


class TverskyConfig(LossTermSection):
    """Dice with false positives and false negatives weighted separately (Salehi et al. 2017)."""

    alpha: Probability = 0.3
    """Weight of false positives; 0.5 with `beta` 0.5 is Dice."""
    beta: Probability = 0.7
    """Weight of false negatives."""


class SegmentationLossConfig(Section):
    """The loss is the weighted sum of these terms; pixels to ignore are ignored by all."""

    cross_entropy: CrossEntropyConfig = CrossEntropyConfig()
    focal: FocalConfig = FocalConfig()
    dice: DiceConfig = DiceConfig()
    tversky: TverskyConfig = TverskyConfig()
    class_weights: Literal["median_frequency"] | tuple[NonNegativeFloat, ...] | None = None
    """Weight of each class in cross-entropy and focal loss, in label order; `median_frequency`: from the pixels of the
    training set (Eigen, Fergus 2015), written into the run's config; null: all 1."""
    excluded_classes: tuple[NonNegativeInt, ...] = ()
    """Labels that the means of Dice and Tversky over the classes exclude, such as [0] for a background."""


class SegmenterSection(Section):
    """Settings of both models."""

    weights: Path | None = None
    """A checkpoint to begin with, as of `yolo`; null: random."""
    binary: bool = False
    """One logit instead of two; needs exactly two classes, of which the second is the foreground."""
    dropout: Dropout = 0.0
    """Fraction of the channels before the last convolution of the head or decoder that is dropped in training (Long et
    al. 2015: 0.5)."""
    loss: SegmentationLossConfig = SegmentationLossConfig()


class FcnConfig(SegmenterSection):
    """Fully convolutional network (Long, Shelhamer, Darrell 2015) on any backbone."""

    name: Literal["fcn"]
    backbone: BackboneConfig = BackboneConfig()
    neck: NeckConfig | None = None
    """A neck between backbone and head; null: none, as in the paper."""
    stride: Literal[8, 16, 32] = 8
    """FCN-32s, 16s or 8s: the finest map that scores are computed on."""
    upsampling: Literal["transposed", "bilinear"] = "transposed"
    """`transposed`: convolutions that begin as bilinear interpolation and learn, as in the paper; `bilinear`: fixed."""
    head_channels: Channels | None = None
    """Channels of the two convolutions before the scores of the coarsest map; null: a quarter of the map's."""
    auxiliary_weight: NonNegativeFloat = 0.0
    """Weight of the loss of a second head on the second-coarsest map, used in training only (Zhao et al. 2017: 0.4);
    0: none."""


class UNetConfig(SegmenterSection):
    """U-Net (Ronneberger, Fischer, Brox 2015): its own encoder, or any backbone in its place."""

    name: Literal["unet"]
    backbone: BackboneConfig = BackboneConfig(name="unet")
    strides: tuple[PositiveInt, ...] | None = None
    """Strides of the encoder's maps, each twice the one before; null: all that the backbone has, 32 the coarsest."""
    decoder_channels: tuple[Channels, ...] | None = None
    """Channels of the decoder's levels, finest first, from `output_stride` to the second-coarsest map; null: those of
    the encoder's maps, halved for each level finer than they are, at least 16."""
    output_stride: Literal[1, 2, 4] = 1
    """Stride of the decoder's last level; the logits of 2 and 4 are interpolated, which is cheaper."""
    upsampling: Literal["transposed", "resize"] = "transposed"
    """`transposed`: 2×2 up-convolutions (the paper); `resize`: bilinear, then a 3×3 convolution (Odena et al. 2016)."""
    auxiliary_weight: NonNegativeFloat = 0.0
    """Weight of the loss of a second head on the encoder's coarsest map, in training only; 0: none."""


class CustomModelConfig(Section):
    """A PyTorch module of your own, which `detseg.train` is given in Python."""

    name: Literal["custom"]
    task: Literal["detection", "instance", "semantic"] = "detection"
    """What it finds: boxes, boxes with masks, or the class of every pixel."""


TwoStageConfig = FasterRcnnConfig | MaskRcnnConfig
DetectorConfig = YoloConfig | TwoStageConfig  # find objects
SegmenterConfig = FcnConfig | UNetConfig  # predict the class of each pixel
ModelConfig = Annotated[DetectorConfig | SegmenterConfig | CustomModelConfig, Field(discriminator="name")]
