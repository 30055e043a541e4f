"""The decoder of U-Net (Ronneberger, Fischer, Brox 2015, section 2), on any backbone as encoder.

Other than in the paper the convolutions are padded, so that the output is as large as the input, and batch
normalisation follows each.

Letters: B images, C channels, K outputs a pixel, H and W pixels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from detseg.models.layers import ConvNormAct, DoubleConv

_LEAST_CHANNELS = 16


class UNetDecoder(nn.Module):
    """Levels that double the size, take in the encoder's map of that size, and mix; satisfies ``SemanticHead``.

    Args:
        in_channels: channels of the encoder's maps, finest first; maps finer than ``output_stride`` are not used.
        strides: their strides, each twice the one before.
        num_outputs: K.
        channels: channels of each level, finest first, from ``output_stride`` to the second-coarsest map; None:
            ``default_channels``.
        output_stride: stride of the last level; finer than the encoder's finest map, levels without a skip follow.
        upsampling: ``transposed``: 2×2 up-convolutions, as in the paper; ``resize``: bilinear interpolation, then a 3×3
            convolution (Odena et al. 2016), which leaves no checkerboard.

    Raises:
        ValueError: the strides do not double, end at ``output_stride``, or there are not as many channels as levels.
    """

    def __init__(
        self,
        in_channels: tuple[int, ...],
        strides: tuple[int, ...],
        num_outputs: int,
        channels: tuple[int, ...] | None = None,
        output_stride: int = 1,
        upsampling: Literal["transposed", "resize"] = "transposed",
    ) -> None:
        super().__init__()
        levels = level_strides(strides, output_stride)
        if channels is None:
            channels = default_channels(in_channels, strides, output_stride)
        if len(channels) != len(levels):
            raise ValueError(
                f"a U-Net decoder from stride {strides[-1]} to {output_stride} has {len(levels)} levels, "
                f"got {len(channels)} channels {list(channels)}"
            )
        skips = dict(zip(strides, in_channels, strict=True))
        self.stride = output_stride
        self.skip_positions = [strides.index(stride) if stride in skips else None for stride in levels]
        inputs = (*channels[1:], in_channels[-1])
        self.levels = nn.ModuleList(
            DecoderLevel(before, skips.get(stride, 0), after, upsampling)
            for before, stride, after in zip(inputs, levels, channels, strict=True)
        )
        self.score = nn.Conv2d(channels[0], num_outputs, kernel_size=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps finest first → (B, K, H / output_stride, W / output_stride) scores."""
        x = features[-1]
        for level, position in reversed(list(zip(self.levels, self.skip_positions, strict=True))):
            x = level(x, None if position is None else features[position])
        return cast(Tensor, self.score(x))


class DecoderLevel(nn.Module):
    """Twice the size, the encoder's map beside it, two 3×3 convolutions.

    Args:
        in_channels: channels of the coarser level.
        skip_channels: channels of the encoder's map; 0: there is none.
        out_channels: channels of this level.
        upsampling: as of ``UNetDecoder``.
    """

    def __init__(
        self, in_channels: int, skip_channels: int, out_channels: int, upsampling: Literal["transposed", "resize"]
    ) -> None:
        super().__init__()
        self.up: nn.Module
        if upsampling == "transposed":
            up = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
            # Each output sees one cell of the input: PyTorch's own range is that of a 2×2 window of outputs.
            nn.init.normal_(up.weight, std=in_channels**-0.5)
            self.up = up
        else:
            self.up = nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                ConvNormAct(in_channels, out_channels, activation=nn.ReLU),
            )
        self.mix = DoubleConv(out_channels + skip_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """(B, C_in, H, W) and the encoder's (B, C_skip, 2 H, 2 W) → (B, C_out, 2 H, 2 W)."""
        x = self.up(x)
        return cast(Tensor, self.mix(x if skip is None else torch.cat([skip, x], dim=1)))


def level_strides(strides: tuple[int, ...], output_stride: int) -> list[int]:
    """The strides of a decoder's levels, finest first.

    Raises:
        ValueError: the encoder's strides do not double, or the coarsest is not coarser than ``output_stride``.
    """
    if any(2 * fine != coarse for fine, coarse in pairwise(strides)) or strides[-1] & (strides[-1] - 1):
        raise ValueError(f"a U-Net needs strides that are powers of 2, each twice the one before, got {list(strides)}")
    if strides[-1] <= output_stride:
        raise ValueError(f"a U-Net with output_stride {output_stride} needs a coarser map, got strides {list(strides)}")
    return [2**i for i in range(output_stride.bit_length() - 1, strides[-1].bit_length() - 1)]


def default_channels(in_channels: tuple[int, ...], strides: tuple[int, ...], output_stride: int) -> tuple[int, ...]:
    """Channels of a decoder's levels: those of the encoder's maps, halved for each level finer than they are, at least
    16."""
    skips = dict(zip(strides, in_channels, strict=True))
    return tuple(
        max(_LEAST_CHANNELS, skips.get(stride, in_channels[0] * stride // strides[0]))
        for stride in level_strides(strides, output_stride)
    )
