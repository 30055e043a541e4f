"""The head of fully convolutional networks (Long, Shelhamer, Darrell 2015, "FCN", section 4).

Each map is scored by itself; the scores of the coarsest are upsampled twofold and added to those of the next, down to
the finest map asked for (FCN-32s, 16s, 8s).

Other than in the paper the convolutions are padded, and batch normalisation takes the place of dropout.

Letters: B images, K outputs a pixel, H and W pixels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from detseg.models.layers import DoubleConv


class FCNHead(nn.Module):
    """Scores of several maps, added; satisfies ``SemanticHead``.

    The last step, to the size of the images, is fixed in the paper and left to the segmenter here: the same bilinear
    interpolation, but one that does not fade towards the border.

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
        for score in self.skip_scores:  # as in the paper: a finer map begins by saying nothing
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
