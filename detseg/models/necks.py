"""Necks: feature maps of several strides in, the same strides out, each map informed by the others."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detseg.models.backbones.csp import scaled_blocks
from detseg.models.layers import ConvNormAct, CSPLayer


class FPN(nn.Module):
    """Feature pyramid network (Lin et al. 2017, section 3): lateral 1×1 convolutions, a top-down sum, 3×3 smoothing.

    Args:
        in_channels: channels of the maps that come in, finest first.
        strides: their strides.
        channels: channels of every map that goes out.
    """

    def __init__(self, in_channels: tuple[int, ...], strides: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.strides = strides
        self.channels = (channels,) * len(in_channels)
        self.lateral = nn.ModuleList(ConvNormAct(num, channels, kernel_size=1) for num in in_channels)
        self.smooth = nn.ModuleList(ConvNormAct(channels, channels) for _ in in_channels)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Maps finest first → as many maps of the same sizes."""
        merged = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        for i in range(len(merged) - 2, -1, -1):
            merged[i] = merged[i] + F.interpolate(merged[i + 1], size=merged[i].shape[-2:], mode="nearest")
        return [smooth(x) for smooth, x in zip(self.smooth, merged, strict=True)]


class PAN(nn.Module):
    """Path aggregation network (Liu et al. 2018) with CSP layers: a top-down pass, then a bottom-up pass; maps meet by
    concatenation.

    Args:
        in_channels: channels of the maps that come in, finest first.
        strides: their strides.
        channels: channels of each map that goes out; a single map passes as it is, with those that it has.
        depth: multiplies the three bottlenecks of each CSP layer.
    """

    def __init__(
        self, in_channels: tuple[int, ...], strides: tuple[int, ...], channels: tuple[int, ...], depth: float
    ) -> None:
        super().__init__()
        self.strides = strides
        self.channels = channels
        blocks = scaled_blocks(3, depth)
        last = len(in_channels) - 1
        # What flows down from level i + 1 has its own width: the coarsest level is the backbone's map itself.
        down = [*channels[:last], in_channels[last]]
        self.top_down = nn.ModuleList(
            CSPLayer(in_channels[i] + down[i + 1], channels[i], blocks, shortcut=False) for i in range(last)
        )
        self.shrink = nn.ModuleList(ConvNormAct(channels[i], channels[i], stride=2) for i in range(last))
        self.bottom_up = nn.ModuleList(
            CSPLayer(channels[i] + down[i + 1], channels[i + 1], blocks, shortcut=False) for i in range(last)
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Maps finest first → as many maps of the same sizes."""
        maps = list(features)
        for i in range(len(maps) - 2, -1, -1):
            coarser = F.interpolate(maps[i + 1], size=maps[i].shape[-2:], mode="nearest")
            maps[i] = self.top_down[i](torch.cat([coarser, maps[i]], dim=1))
        for i in range(len(maps) - 1):
            maps[i + 1] = self.bottom_up[i](torch.cat([self.shrink[i](maps[i]), maps[i + 1]], dim=1))
        return maps
