"""Heads of segmenters: the decoder of U-Net, the head of fully convolutional networks, and an auxiliary one.

Sources: Ronneberger, Fischer, Brox 2015 ("U-Net", section 2); Long, Shelhamer, Darrell 2015 ("FCN", section 4).  Other
than in the papers the convolutions are padded, so that outputs are as large as inputs, and batch normalisation follows
each (in FCN it takes the place of dropout).

Letters: B images, C channels, K outputs a pixel, H and W pixels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from detseg.models.layers import ConvNormAct, DoubleConv

_MIN_CHANNELS = 16


class UNetDecoder(nn.Module):
    """Levels that double the size, concatenate the encoder's map of that size, and mix; satisfies ``SemanticHead``.

    Args:
        in_channels: channels of the encoder's maps, finest first; maps finer than ``output_stride`` are not used.
        strides: their strides, each twice the one before.
        num_outputs: K.
        channels: channels of each level, finest first, from ``output_stride`` to the second-coarsest map; None: those
            of the encoder's maps, halved for each level finer than they are, at least 16.
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
        if any(2 * fine != coarse for fine, coarse in pairwise(strides)) or strides[-1] & (strides[-1] - 1):
            raise ValueError(f"strides: expected powers of 2, each twice the one before, got {list(strides)}")
        if strides[-1] <= output_stride:
            raise ValueError(f"output_stride: expected less than the coarsest of {list(strides)}, got {output_stride}")
        levels = [2**i for i in range(output_stride.bit_length() - 1, strides[-1].bit_length() - 1)]
        skips = dict(zip(strides, in_channels, strict=True))
        if channels is None:
            channels = tuple(
                max(_MIN_CHANNELS, skips.get(stride, in_channels[0] * stride // strides[0])) for stride in levels
            )
        if len(channels) != len(levels):
            raise ValueError(f"channels: expected {len(levels)}, for the strides {levels}, got {list(channels)}")
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


class FCNHead(nn.Module):
    """Scores of several maps, added; satisfies ``SemanticHead``.

    Each map is scored by itself; the scores of the coarsest are upsampled twofold and added to those of the next, down
    to the finest map asked for (FCN-32s, 16s, 8s).  The last step, to the size of the images, is fixed in the paper and
    left to the segmenter here: the same bilinear interpolation, but one that does not fade towards the border.

    Args:
        in_channels: channels of the maps that come in, finest first; those finer than ``stride`` are not used.
        strides: their strides.
        num_outputs: K.
        stride: the finest map that is scored; from there on each stride must be twice the one before.
        upsampling: ``transposed``: 4×4 transposed convolutions that begin as bilinear interpolation and learn;
            ``bilinear``: interpolation.
        hidden: channels of the two convolutions before the scores of the coarsest map, which stand for the paper's fc6
            and fc7; None: a quarter of the map's.

    Raises:
        ValueError: the strides from ``stride`` on do not double.
    """

    def __init__(
        self,
        in_channels: tuple[int, ...],
        strides: tuple[int, ...],
        num_outputs: int,
        stride: int = 8,
        upsampling: Literal["transposed", "bilinear"] = "transposed",
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        used = [number for number in strides if number >= stride]
        if stride not in used or any(2 * fine != coarse for fine, coarse in pairwise(used)):
            raise ValueError(f"an FCN-{stride}s needs the strides {stride}, {2 * stride}, ..., got {list(strides)}")
        hidden = hidden or max(1, in_channels[-1] // 4)
        self.stride = stride
        self.body = DoubleConv(in_channels[-1], hidden)
        self.score = nn.Conv2d(hidden, num_outputs, kernel_size=1)
        skips = in_channels[len(strides) - len(used) : -1]
        self.skip_scores = nn.ModuleList(nn.Conv2d(channels, num_outputs, kernel_size=1) for channels in skips)
        self.upsamplings = nn.ModuleList(
            BilinearConvTranspose(num_outputs)
            if upsampling == "transposed"
            else nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            for _ in skips
        )
        for score in self.skip_scores:  # as in the paper: the scores of finer maps begin at 0
            nn.init.zeros_(cast(nn.Conv2d, score).weight)
            nn.init.zeros_(cast(Tensor, cast(nn.Conv2d, score).bias))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps finest first → (B, K, H / stride, W / stride) scores."""
        scores = cast(Tensor, self.score(self.body(features[-1])))
        finer = features[-1 - len(self.skip_scores) : -1]
        for x, upsampling, score in reversed(list(zip(finer, self.upsamplings, self.skip_scores, strict=True))):
            scores = upsampling(scores) + score(x)
        return scores


class BilinearConvTranspose(nn.ConvTranspose2d):
    """A transposed convolution that doubles the size and begins as bilinear interpolation of each channel.

    It sees zeros beyond the border, so that there, and there alone, it begins smaller than the interpolation.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel_size=4, stride=2, padding=1, bias=False)
        # An output lies a quarter of a cell from its nearest input and three quarters from the next one.
        line = torch.tensor([0.25, 0.75, 0.75, 0.25])
        with torch.no_grad():
            self.weight.zero_()
            for channel in range(channels):
                self.weight[channel, channel] = line[:, None] * line


class AuxiliaryHead(nn.Module):
    """Scores of a single map, for a loss nearer to the early layers (Zhao et al. 2017, "PSPNet", section 3.3).

    Args:
        in_channels: channels of the map.
        stride: its stride.
        num_outputs: K.
        position: where it is among the maps, counted from the coarsest: -1, -2, ...
    """

    def __init__(self, in_channels: int, stride: int, num_outputs: int, position: int) -> None:
        super().__init__()
        hidden = max(1, in_channels // 4)
        self.stride = stride
        self.position = position
        self.body = ConvNormAct(in_channels, hidden, activation=nn.ReLU)
        self.score = nn.Conv2d(hidden, num_outputs, kernel_size=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps finest first → (B, K, H / stride, W / stride) scores."""
        return cast(Tensor, self.score(self.body(features[self.position])))
