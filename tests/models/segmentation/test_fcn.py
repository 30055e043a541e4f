"""The head of FCN: bilinear beginnings, skips that begin silent, and the strides that it needs."""

from __future__ import annotations

from typing import Any, Literal, cast

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from detseg.models.segmentation.fcn import BilinearConvTranspose, FCNHead

CHANNELS, STRIDES = (8, 16, 32), (8, 16, 32)


def features(hw: tuple[int, int] = (64, 96)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, channels, hw[0] // s, hw[1] // s, generator=generator)
        for channels, s in zip(CHANNELS, STRIDES, strict=True)
    ]


def test_fresh_transposed_convolution_is_bilinear_interpolation() -> None:
    x = torch.randn(2, 3, 5, 7)
    ours = BilinearConvTranspose(3)(x)
    theirs = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours[..., 1:-1, 1:-1], theirs[..., 1:-1, 1:-1])


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_fresh_head_is_that_of_interpolation_in_the_interior(stride: int) -> None:
    """Both begin as the coarsest map's scores, interpolated: the skips say nothing yet."""
    head = FCNHead(CHANNELS, STRIDES, 4, stride, "transposed").eval()
    other = FCNHead(CHANNELS, STRIDES, 4, stride, "bilinear").eval()
    other.load_state_dict({n: v for n, v in head.state_dict().items() if not n.startswith("upsamplings")})
    maps = features((160, 192))
    out, expected = head(maps), other(maps)
    assert out.shape == expected.shape == (2, 4, 160 // stride, 192 // stride)
    border = 32 // stride  # one cell of the coarsest map
    inner = (..., slice(border, -border), slice(border, -border))
    torch.testing.assert_close(out[inner], expected[inner])


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
def test_scores_of_finer_maps_are_added(upsampling: Literal["transposed", "bilinear"]) -> None:
    head = FCNHead(CHANNELS, STRIDES, 4, 8, upsampling).eval()
    maps = features()
    before = head(maps)
    finest = cast(nn.Conv2d, head.skip_scores[0])
    nn.init.normal_(finest.weight)
    torch.testing.assert_close(head(maps), before + F.conv2d(maps[0], finest.weight), rtol=1e-4, atol=1e-5)


def test_maps_finer_than_its_stride_are_not_used() -> None:
    head = FCNHead(CHANNELS, STRIDES, 4, 16).eval()
    maps = features()
    assert torch.equal(head(maps), head([torch.zeros_like(maps[0]), *maps[1:]]))
    assert len(head.skip_scores) == 1


@pytest.mark.parametrize(("hidden", "expected"), [(None, 8), (12, 12)])
def test_hidden_channels(hidden: int | None, expected: int) -> None:
    assert FCNHead(CHANNELS, STRIDES, 4, hidden=hidden).score.in_channels == expected


@pytest.mark.parametrize(
    ("strides", "stride"), [((8, 32), 8), ((16, 32), 8), ((8, 16), 32), ((8, 16, 24), 8), ((12, 24), 8)]
)
def test_refuses_strides_that_do_not_double(strides: tuple[int, ...], stride: int) -> None:
    settings: dict[str, Any] = {"num_outputs": 4, "stride": stride}
    with pytest.raises(ValueError, match=f"FCN-{stride}s needs the strides"):
        FCNHead(CHANNELS[: len(strides)], strides, **settings)
