"""The backbones beyond their contract: scaling, what is frozen under timm's many names, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from detseg.errors import ConfigError, DetsegError
from detseg.models.backbones.csp import CSP_FAMILY, CSPBackbone, scaled_blocks, scaled_channels
from detseg.models.backbones.timm import TimmBackbone
from detseg.models.backbones.unet import UNetEncoder
from detseg.models.layers import CSPLayer, SpatialPyramidPool
from detseg.training.optim.freezing import freeze_stages


@pytest.mark.parametrize(
    ("base", "width", "channels"), [(64, 0.25, 16), (1024, 0.75, 768), (64, 0.33, 24), (64, 0.1, 8), (128, 1.0, 128)]
)
def test_channels_round_up_to_eights(base: int, width: float, channels: int) -> None:
    assert scaled_channels(base, width) == channels  # 64 · 0.33 = 21.12 becomes 24, 6.4 becomes 8


@pytest.mark.parametrize(("base", "depth", "blocks"), [(3, 0.33, 1), (6, 0.33, 2), (6, 0.67, 4), (3, 0.1, 1)])
def test_blocks_round_and_are_at_least_one(base: int, depth: float, blocks: int) -> None:
    assert scaled_blocks(base, depth) == blocks


def test_family_by_hand() -> None:
    nano = CSPBackbone(*CSP_FAMILY["csp_nano"])
    assert nano.channels == (64, 128, 256)  # a quarter of 256, 512, 1024
    assert [len(layer.blocks) for layer in nano.modules() if isinstance(layer, CSPLayer)] == [1, 2, 2, 1]
    with torch.device("meta"):
        large = CSPBackbone(*CSP_FAMILY["csp_large"])
    assert large.channels == (256, 512, 1024)
    assert [len(layer.blocks) for layer in large.modules() if isinstance(layer, CSPLayer)] == [3, 6, 6, 3]


def test_stages_that_nothing_uses_are_not_built() -> None:
    backbone = CSPBackbone(0.33, 0.25, strides=(8, 16))
    assert len(backbone.stages) == 3
    assert isinstance(list(backbone.stages[-1].children())[-1], SpatialPyramidPool)
    assert sum(isinstance(module, SpatialPyramidPool) for module in backbone.modules()) == 1


@pytest.mark.parametrize(
    ("every", "some"),
    [
        (CSPBackbone(0.33, 0.125, strides=None), CSPBackbone(0.33, 0.125, (32, 4, 16, 8))),
        (UNetEncoder(0.125, 4), UNetEncoder(0.125, 4, strides=(8, 2))),
    ],
)
def test_what_is_returned_is_a_choice_of_the_same_maps(every: Any, some: Any) -> None:
    some.load_state_dict(every.state_dict())  # the same weights by the same names
    images = torch.rand(1, 3, 64, 96)
    maps = dict(zip(every.strides, every.eval()(images), strict=True))
    assert some.strides == tuple(sorted(some.strides))
    assert all(torch.equal(maps[s], x) for s, x in zip(some.strides, some.eval()(images), strict=True))


def frozen_children(module: nn.Module) -> set[str]:
    """The children of a module, and of its ``blocks``, that are frozen whole; one that is half frozen is an error."""
    frozen = set()
    for name, child in module.named_children():
        if name == "blocks":
            frozen |= {f"blocks.{inner}" for inner in frozen_children(child)}
            continue
        states = {parameter.requires_grad for parameter in child.parameters()}
        assert len(states) <= 1, f"{name} is half frozen"
        if states == {False}:
            frozen.add(name)
    return frozen


def test_csp_stages() -> None:
    expected = [set(), {"stem"}, {"stem", "0"}, {"stem", "0", "1"}, {"stem", "0", "1", "2"}]
    for num_stages, names in enumerate(expected):
        backbone = CSPBackbone(0.33, 0.125)
        freeze_stages(backbone, num_stages)
        stem = {"stem"} if not any(p.requires_grad for p in backbone.stem.parameters()) else set()
        assert stem | frozen_children(backbone.stages) == names


RESNET = [{"conv1", "bn1"}, {"layer1"}, {"layer2"}, {"layer3"}, {"layer4"}]
MOBILENET = [{"conv_stem", "bn1"}, {"blocks.0"}, {"blocks.1"}, {"blocks.2", "blocks.3"}, {"blocks.4", "blocks.5"}]
CONVNEXT = [set[str](), {"stem_0", "stem_1", "stages_0"}, {"stages_1"}, {"stages_2"}, {"stages_3"}]


@pytest.mark.parametrize(
    ("name", "stages"), [("resnet18", RESNET), ("mobilenetv3_small_100", MOBILENET), ("convnext_atto", CONVNEXT)]
)
def test_timm_stages_end_at_their_strides(name: str, stages: list[set[str]]) -> None:
    """Stage n is what lies between the maps of stride 2ⁿ⁻¹ and 2ⁿ, however timm names it."""
    backbone = TimmBackbone(name)
    for num_stages in range(1, 6):
        if not stages[num_stages - 1]:
            with pytest.raises(ConfigError, match=r"has \(2, 3, 4, 5\), got 1; or freeze the whole"):
                freeze_stages(backbone, num_stages)
            continue
        freeze_stages(backbone, num_stages)
        assert frozen_children(backbone.body) == set().union(*stages[:num_stages])


def test_layers_behind_the_last_map_are_not_trained() -> None:
    backbone = TimmBackbone("efficientnet_lite0", strides=(8, 16))
    assert frozen_children(backbone.body) == {"blocks.5", "blocks.6"}


@pytest.mark.parametrize(
    ("name", "strides", "message"),
    [
        ("qwertyuiop", (8, 16, 32), r"no model 'qwertyuiop'$"),
        ("resnet18.nonsense", (8, 16, 32), r"'resnet18.nonsense' gives no feature maps \(Invalid pretrained tag"),
        ("resnet18", (), r"has feature maps of strides \[2, 4, 8, 16, 32\], not \[\]"),
        ("resnet18", (8, 8), r"not \[8, 8\]"),
        ("swin_tiny_patch4_window7_224", (8, 16, 32), "does not take images of any size"),
    ],
)
def test_timm_refuses(name: str, strides: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        TimmBackbone(name, strides=strides)
    assert "\n" not in str(caught.value)


def test_weights_that_nobody_published_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm.models, "is_model_pretrained", lambda name: False)
    with pytest.raises(ValueError, match="publishes no weights for 'test_resnet'"):
        TimmBackbone("test_resnet", pretrained=True)


def test_weights_that_cannot_be_fetched_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    create_model = timm.create_model

    def without_network(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            raise OSError("We couldn't connect\nto the hub")
        model: nn.Module = create_model(name, pretrained, **options)
        return model

    monkeypatch.setattr(timm, "create_model", without_network)
    with pytest.raises(
        DetsegError,
        match=r"^model\.backbone\.pretrained: .*'test_resnet' could not be loaded \(.*We couldn't connect to the hub.*"
        r"timm looks for them in .*set model.backbone.pretrained=false$",
    ):
        TimmBackbone("test_resnet", pretrained=True)


def test_the_papers_encoder() -> None:
    """Figure 1: five levels of two 3×3 convolutions, 64 to 1024 channels; max-pooling between them has no weights."""
    with torch.device("meta"):
        encoder = UNetEncoder()
    assert encoder.strides == (1, 2, 4, 8, 16)
    assert encoder.channels == (64, 128, 256, 512, 1024)
    convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in convolutions][:4] == [(3, 64), (64, 64), (64, 128), (128, 128)]
    assert len(convolutions) == 10
    assert {m.kernel_size for m in convolutions} == {(3, 3)}
    assert not any(isinstance(m, nn.SiLU) for m in encoder.modules())


@pytest.mark.parametrize(("num_stages", "levels"), [(0, 0), (1, 2), (2, 3), (3, 4)])
def test_stage_one_is_all_that_the_map_of_stride_two_is_made_of(num_stages: int, levels: int) -> None:
    encoder = UNetEncoder(0.125, 4)
    freeze_stages(encoder, num_stages)
    frozen = [not any(p.requires_grad for p in level.parameters()) for level in encoder.levels]
    trained = [all(p.requires_grad for p in level.parameters()) for level in encoder.levels]
    assert frozen == [i < levels for i in range(4)]
    assert trained == [i >= levels for i in range(4)]
