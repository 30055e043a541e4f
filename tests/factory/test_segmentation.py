"""From settings to segmenters: what each setting reaches, and what is refused instead of ignored."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import nn

from detseg.config.schema.model import FcnConfig, SegmentationLossConfig, UNetConfig
from detseg.errors import ConfigError
from detseg.factory.segmentation import build_criterion, build_segmenter
from detseg.models.backbones.unet import UNetEncoder
from detseg.models.segmentation import AuxiliaryHead, BilinearConvTranspose, FCNHead, UNetDecoder

CSP = {"name": "csp_nano", "width": 0.125}
PAPER = {"name": "unet", "width": 0.125}


def fcn(**settings: Any) -> FcnConfig:
    return FcnConfig.model_validate({"name": "fcn", "backbone": CSP} | settings)


def unet(**settings: Any) -> UNetConfig:
    return UNetConfig.model_validate({"name": "unet", "backbone": PAPER} | settings)


@pytest.mark.parametrize(("stride", "strides"), [(8, (8, 16, 32)), (16, (16, 32)), (32, (32,))])
def test_fcn(stride: Literal[8, 16, 32], strides: tuple[int, ...]) -> None:
    neck = {"name": "fpn", "channels": 24}
    model: Any = build_segmenter(fcn(stride=stride, neck=neck, upsampling="bilinear"), 5)
    assert isinstance(model.head, FCNHead)
    assert model.backbone.strides == strides
    assert (model.head.stride, model.stride, model.num_classes) == (stride, 32, 5)
    assert (model.head.score.in_channels, model.head.score.out_channels) == (6, 5)  # a quarter of the neck's
    assert {type(module) for module in model.head.upsamplings} <= {nn.Upsample}
    assert model.auxiliary is None
    model = build_segmenter(fcn(stride=stride, head_channels=40, auxiliary_weight=0.4), 5)
    assert model.head.score.in_channels == 40
    assert {type(module) for module in model.head.upsamplings} <= {BilinearConvTranspose}
    assert (model.auxiliary.stride, model.auxiliary_weight) == (16, 0.4)  # on the second-coarsest map


@pytest.mark.parametrize(
    ("backbone", "strides"),
    [
        (PAPER, (1, 2, 4, 8, 16)),
        ({**PAPER, "levels": 3}, (1, 2, 4)),
        (CSP, (2, 4, 8, 16, 32)),
        ({"name": "convnext_atto"}, (4, 8, 16, 32)),
    ],
)
def test_unet_takes_all_strides_that_the_backbone_has(backbone: dict[str, Any], strides: tuple[int, ...]) -> None:
    model: Any = build_segmenter(unet(backbone=backbone, auxiliary_weight=0.3), 5)
    assert model.backbone.strides == strides
    assert model.stride == strides[-1]
    assert (model.auxiliary.stride, model.auxiliary_weight) == (strides[-1], 0.3)


def test_default_backbone_of_unet_is_that_of_the_paper() -> None:
    with torch.device("meta"):
        model = build_segmenter(UNetConfig(name="unet"), 2)
    assert isinstance(model.backbone, UNetEncoder)
    assert model.backbone.channels == (64, 128, 256, 512, 1024)


@pytest.mark.parametrize("upsampling", ["transposed", "resize"])
def test_settings_reach_the_decoder(upsampling: str) -> None:
    config = unet(strides=(2, 4, 8), output_stride=2, decoder_channels=(10, 12), upsampling=upsampling)
    head = build_segmenter(config, 5).head
    assert isinstance(head, UNetDecoder)
    assert head.stride == 2
    assert (head.score.in_channels, head.score.out_channels) == (10, 5)
    has_transposed = any(isinstance(module, nn.ConvTranspose2d) for module in head.modules())
    assert has_transposed == (upsampling == "transposed")


def test_binary_models_have_one_output() -> None:
    config = unet(binary=True, auxiliary_weight=0.1)
    model = build_segmenter(config, 2)
    assert isinstance(model.head, UNetDecoder)
    assert isinstance(model.auxiliary, AuxiliaryHead)
    assert model.head.score.out_channels == model.auxiliary.score.out_channels == 1
    assert model.predict(torch.rand(1, 3, 32, 32)).shape == (1, 2, 32, 32)


def test_loss_settings_arrive() -> None:
    config = {
        "cross_entropy": {"weight": 1.5, "label_smoothing": 0.1},
        "focal": {"weight": 2.5, "gamma": 3.0},
        "dice": {"weight": 3.5},
        "tversky": {"weight": 4.5, "alpha": 0.2, "beta": 0.6},
        "class_weights": (1, 2, 3),
        "excluded_classes": (0,),
    }
    criterion = build_segmenter(unet(loss=config), 3).criterion
    assert (criterion.cross_entropy, criterion.label_smoothing) == (1.5, 0.1)
    assert (criterion.focal, criterion.gamma, criterion.dice) == (2.5, 3.0, 3.5)
    assert (criterion.tversky, criterion.alpha, criterion.beta) == (4.5, 0.2, 0.6)
    assert criterion.table[:4].tolist() == [1, 2, 3, 0]
    assert criterion.averaged.tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (fcn(binary=True), r"model\.binary: needs exactly 2 classes, the data has 3"),
        (unet(binary=True), r"model\.binary: needs exactly 2 classes, the data has 3"),
        (unet(strides=()), r"model\.backbone: .*, got \[\]"),
        (unet(strides=(2, 8)), r"model: the decoder's strides: .* each twice the one before, got \[2, 8\]"),
        (unet(strides=(1,)), r"model: the decoder's output_stride: .*coarsest of \[1\], got 1; set model\.strides"),
        (unet(strides=(1, 2, 4), output_stride=2), r"model\.strides: \[1, 2, 4\] has maps finer .*output_stride 2"),
        (unet(backbone=CSP, strides=(1, 2, 4)), r"strides \[2, 4, 8, 16, 32\], got \[1, 2, 4\]"),
        (unet(backbone={"name": "convnext_atto"}, strides=(2, 4)), r"\[4, 8, 16, 32\], not \[2, 4\]"),
        (unet(strides=(1, 2), backbone={"name": "unet", "levels": 3}), r"model\.backbone: .* levels 3"),
        (fcn(backbone={"name": "unet", "levels": 5}), r"strides \[1, 2, 4, 8, 16\], got \[8, 16, 32\]"),
        (unet(decoder_channels=(8, 8, 8)), r"the decoder's channels: expected 4, .*\[8, 8, 8\]; .*model\.decoder_ch"),
    ],
)
def test_what_does_not_apply_is_refused(config: FcnConfig | UNetConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_segmenter(config, 3)
    assert str(caught.value).startswith("model")
    assert "\n" not in str(caught.value)


OFF = {"weight": 0}
ON = {"weight": 1}


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"class_weights": "median_frequency"}, r"class_weights: not computed yet"),
        ({"class_weights": (1, 2)}, r"class_weights: expected 3.*got \[1.0, 2.0\]"),
        ({"class_weights": (0, 0, 0)}, r"class_weights: expected 3, not all 0"),
        ({"cross_entropy": OFF, "dice": ON, "class_weights": (1, 1, 1)}, r"class_weights: belong to cross_entropy and"),
        ({"excluded_classes": (0,)}, r"excluded_classes: belongs to dice and tversky"),
        ({"dice": ON, "excluded_classes": (3,)}, r"excluded_.* 0 to 2, got \[3\]"),
        ({"dice": ON, "excluded_classes": (0, 1, 2)}, r"excluded_classes: expected"),
        ({"cross_entropy": OFF}, r"weights of cross_entropy.* are all 0"),
        ({"tversky": {"weight": 1, "alpha": 0, "beta": 0}}, r"alpha and beta are both 0"),
    ],
)
def test_losses_that_do_not_fit_are_refused(loss: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.loss.*{message}"):
        build_criterion(SegmentationLossConfig.model_validate(loss), 3)
