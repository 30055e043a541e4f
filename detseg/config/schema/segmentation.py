"""Settings of the models of semantic segmentation: FCN and U-Net."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from detseg.config.schema.model import BackboneConfig, NeckConfig
from detseg.config.schema.section import Channels, NonNegativeFloat, NonNegativeInt, PositiveInt, Probability, Section


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

    binary: bool = False
    """One logit instead of two; needs exactly two classes, of which the second is the foreground."""
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
