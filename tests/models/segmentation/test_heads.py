"""The decoder of U-Net, and the head of FCN: what they compute, their channels, and the strides that they need."""

from __future__ import annotations

from typing import Any, Literal, cast

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from detseg.models.segmentation.heads import BilinearConvTranspose, DecoderLevel, FCNHead, UNetDecoder


def features(channels: tuple[int, ...], strides: tuple[int, ...], hw: tuple[int, int] = (64, 96)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, c, hw[0] // s, hw[1] // s, generator=generator) for c, s in zip(channels, strides, strict=True)
    ]


def out_channels(decoder: UNetDecoder) -> tuple[int, ...]:
    return tuple(cast(nn.ConvTranspose2d, cast(DecoderLevel, level).up).out_channels for level in decoder.levels)


@pytest.mark.parametrize("upsampling", ["transposed", "resize"])
@pytest.mark.parametrize(
    ("strides", "output_stride"),
    [((1, 2, 4), 1), ((1, 2, 4), 2), ((4, 8, 16, 32), 1), ((2, 4, 8, 16, 32), 4), ((8,), 2), ((16, 32), 4)],
)
def test_output_has_its_stride(
    strides: tuple[int, ...], output_stride: int, upsampling: Literal["transposed", "resize"]
) -> None:
    channels = tuple(8 * (i + 1) for i in range(len(strides)))
    decoder = UNetDecoder(channels, strides, 3, output_stride=output_stride, upsampling=upsampling)
    assert decoder.stride == output_stride
    assert decoder(features(channels, strides)).shape == (2, 3, 64 // output_stride, 96 // output_stride)


@pytest.mark.parametrize(
    ("channels", "strides", "output_stride", "expected"),
    [
        ((64, 128, 256, 512, 1024), (1, 2, 4, 8, 16), 1, (64, 128, 256, 512)),  # figure 1 of the paper
        ((64, 64, 128, 256, 512), (2, 4, 8, 16, 32), 1, (32, 64, 64, 128, 256)),  # resnet18
        ((96, 192, 384, 768), (4, 8, 16, 32), 1, (24, 48, 96, 192, 384)),
        ((96, 192, 384, 768), (4, 8, 16, 32), 4, (96, 192, 384)),
        ((64, 128), (16, 32), 1, (16, 16, 16, 32, 64)),  # 4, 8 and then 16 would be the finest
    ],
)
def test_default_channels_by_hand(
    channels: tuple[int, ...], strides: tuple[int, ...], output_stride: int, expected: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        decoder = UNetDecoder(channels, strides, 3, output_stride=output_stride)
    assert out_channels(decoder) == expected


def test_the_papers_decoder() -> None:
    """Section 2: 23 convolutional layers, 10 of them in the encoder; the decoder has 4 + 8 and the last."""
    with torch.device("meta"):
        decoder = UNetDecoder((64, 128, 256, 512, 1024), (1, 2, 4, 8, 16), 2)
    ups = [m for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    convolutions = [m for m in decoder.modules() if isinstance(m, nn.Conv2d)]
    assert [(up.in_channels, up.out_channels, up.kernel_size) for up in reversed(ups)] == [
        (1024, 512, (2, 2)),
        (512, 256, (2, 2)),
        (256, 128, (2, 2)),
        (128, 64, (2, 2)),
    ]
    assert [(m.in_channels, m.out_channels) for m in convolutions[:2]] == [(128, 64), (64, 64)]
    assert len(ups) + len(convolutions) == 13


def test_given_channels_are_those_of_the_levels_finest_first() -> None:
    decoder = UNetDecoder((8, 16), (4, 8), 3, channels=(5, 6, 7))
    assert out_channels(decoder) == (5, 6, 7)
    assert decoder.score.in_channels == 5


@pytest.mark.parametrize("position", [0, 1, 2])
def test_every_map_is_seen(position: int) -> None:
    decoder = UNetDecoder((8, 16, 32), (2, 4, 8), 3).eval()
    maps = features((8, 16, 32), (2, 4, 8))
    before = decoder(maps)
    maps[position] = -maps[position]
    assert not torch.allclose(before, decoder(maps))


def test_unet_does_not_use_maps_finer_than_the_output() -> None:
    decoder = UNetDecoder((8, 16, 32), (2, 4, 8), 3, output_stride=4).eval()
    maps = features((8, 16, 32), (2, 4, 8))
    assert torch.equal(decoder(maps), decoder([torch.zeros_like(maps[0]), *maps[1:]]))


def test_up_convolution_keeps_the_scale() -> None:
    """Each of its outputs sums as many products as it has input channels: unit variance in, unit variance out."""
    torch.manual_seed(0)
    level = DecoderLevel(256, 0, 64, "transposed")
    assert level.up(torch.randn(2, 256, 16, 16)).std().item() == pytest.approx(1, abs=0.05)


def test_resized_maps_are_not_shifted() -> None:
    """Cells lie at their centres: of a ramp i the outputs lie at (j + 0.5) / 2 - 0.5, flat beyond the last centres."""
    up = cast(nn.Sequential, DecoderLevel(1, 0, 1, "resize").up)[0]
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    line = torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    torch.testing.assert_close(up(ramp), line.expand(1, 1, 8, 8))
    torch.testing.assert_close(up(ramp.mT), line[:, None].expand(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("strides", "channels", "output_stride", "message"),
    [
        ((4, 16), None, 1, r"each twice the one before, got \[4, 16\]"),
        ((6, 12), None, 1, r"powers of 2, each twice"),
        ((2, 4), None, 4, r"output_stride: expected less than the coarsest of \[2, 4\], got 4"),
        ((2, 4), (8,), 1, r"channels: expected 2, for the strides \[1, 2\], got \[8\]"),
    ],
)
def test_unet_refuses(
    strides: tuple[int, ...], channels: tuple[int, ...] | None, output_stride: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        UNetDecoder((8, 16), strides, 3, channels, output_stride)


CHANNELS, STRIDES = (8, 16, 32), (8, 16, 32)


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
    maps = features(CHANNELS, STRIDES, (160, 192))
    out, expected = head(maps), other(maps)
    assert out.shape == expected.shape == (2, 4, 160 // stride, 192 // stride)
    border = 32 // stride  # one cell of the coarsest map
    inner = (..., slice(border, -border), slice(border, -border))
    torch.testing.assert_close(out[inner], expected[inner])


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
def test_scores_of_finer_maps_are_added(upsampling: Literal["transposed", "bilinear"]) -> None:
    head = FCNHead(CHANNELS, STRIDES, 4, 8, upsampling).eval()
    maps = features(CHANNELS, STRIDES)
    before = head(maps)
    finest = cast(nn.Conv2d, head.skip_scores[0])
    nn.init.normal_(finest.weight)
    torch.testing.assert_close(head(maps), before + F.conv2d(maps[0], finest.weight), rtol=1e-4, atol=1e-5)


def test_maps_finer_than_its_stride_are_not_used() -> None:
    head = FCNHead(CHANNELS, STRIDES, 4, 16).eval()
    maps = features(CHANNELS, STRIDES)
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
