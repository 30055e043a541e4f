"""The encoder of the U-Net paper beyond its contract."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detseg.models.backbones.unet import UNetEncoder


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


def test_width_and_levels() -> None:
    encoder = UNetEncoder(width=0.25, levels=3)
    assert encoder.strides == (1, 2, 4)
    assert encoder.channels == (16, 32, 64)


def test_what_is_returned_is_a_choice_of_the_same_maps() -> None:
    every, some = UNetEncoder(0.125, 4).eval(), UNetEncoder(0.125, 4, strides=(8, 2)).eval()
    some.load_state_dict(every.state_dict())
    images = torch.rand(1, 3, 16, 24)
    maps = every(images)
    assert some.strides == (2, 8)
    assert [torch.equal(x, y) for x, y in zip(some(images), (maps[1], maps[3]), strict=True)] == [True, True]


@pytest.mark.parametrize(("num_stages", "levels"), [(0, 0), (1, 2), (2, 3), (3, 4)])
def test_stage_one_is_all_that_the_map_of_stride_two_is_made_of(num_stages: int, levels: int) -> None:
    encoder = UNetEncoder(0.125, 4)
    encoder.freeze_stages(num_stages)
    frozen = [not any(p.requires_grad for p in level.parameters()) for level in encoder.levels]
    trained = [all(p.requires_grad for p in level.parameters()) for level in encoder.levels]
    assert frozen == [i < levels for i in range(4)]
    assert trained == [i >= levels for i in range(4)]


@pytest.mark.parametrize(
    ("strides", "message"),
    [
        ((), r"4 levels has the strides \[1, 2, 4, 8\], got \[\]"),
        ((8, 16), r"4 levels has the strides \[1, 2, 4, 8\], got \[8, 16\]"),
        ((8, 8), "has the strides"),
        ((2, 4), "down to stride 4 has 3 levels, got levels 4"),
    ],
)
def test_refuses(strides: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNetEncoder(0.125, 4, strides)
