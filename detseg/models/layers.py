"""Convolution blocks that backbones, necks and heads are made of.

Letters: B images, C channels, H and W cells.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class ConvNormAct(nn.Sequential):
    """Convolution, batch normalisation, activation; keeps the size at stride 1, halves it (rounding up) at stride 2.

    (B, C_in, H, W) → (B, C_out, H / stride, W / stride)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        activation: type[nn.SiLU] | type[nn.ReLU] = nn.SiLU,
    ) -> None:
        padding = (kernel_size - 1) // 2
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False),
            # As in YOLOX (Ge et al. 2021): at small batches PyTorch's momentum of 0.1 makes a noisy average.
            nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.03),
            activation(inplace=True),
        )


class DoubleConv(nn.Sequential):
    """Two 3×3 convolutions, each with batch normalisation and ReLU: a level of U-Net (Ronneberger et al. 2015)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            ConvNormAct(in_channels, out_channels, activation=nn.ReLU),
            ConvNormAct(out_channels, out_channels, activation=nn.ReLU),
        )


def drop_channels(block: nn.Sequential, fraction: float) -> None:
    """Let a block drop whole channels of its output at random in training (Tompson et al. 2015, "Efficient Object
    Localization", section 3.2: cells beside each other are so alike that dropping some of them hides nothing).

    It belongs before the last convolution of a network: in front of a batch normalisation it would change the variance
    between training and evaluation (Li et al. 2019).  It has no weights, and the names of the others stay.
    """
    if fraction:  # else no random number is drawn
        block.append(nn.Dropout2d(fraction))


class Bottleneck(nn.Module):
    """Two 3×3 convolutions, with a shortcut around them where asked (He et al. 2016)."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvNormAct(channels, channels), ConvNormAct(channels, channels))
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        y = cast(Tensor, self.body(x))
        return x + y if self.shortcut else y


class CSPLayer(nn.Module):
    """Cross-stage partial layer: half of the channels pass a chain of bottlenecks, half go straight (Wang et al. 2020,
    "CSPNet"); the outputs of all links of the chain are gathered (Wang et al. 2022, "ELAN"), so that gradients of
    every path length reach the input."""

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int, shortcut: bool = True) -> None:
        super().__init__()
        hidden = out_channels // 2
        self.split = ConvNormAct(in_channels, 2 * hidden, kernel_size=1)
        self.blocks = nn.ModuleList(Bottleneck(hidden, shortcut) for _ in range(num_blocks))
        self.merge = ConvNormAct((2 + num_blocks) * hidden, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H, W)."""
        parts = list(cast(Tensor, self.split(x)).chunk(2, dim=1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return cast(Tensor, self.merge(torch.cat(parts, dim=1)))


class SpatialPyramidPool(nn.Module):
    """Max-pools of growing windows side by side (He et al. 2015); three 5×5 pools in a row see 5, 9 and 13 cells."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = ConvNormAct(channels, channels // 2, kernel_size=1)
        self.pool = nn.MaxPool2d(kernel_size=5, stride=1, padding=2)
        self.merge = ConvNormAct(4 * (channels // 2), channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        parts = [self.reduce(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return cast(Tensor, self.merge(torch.cat(parts, dim=1)))


class Normalize(nn.Module):
    """Subtracts a mean and divides by a standard deviation per channel, on the device and for a whole batch."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        # The two passes over the images take 2 % of a training step.
        self.is_identity = set(mean) == {0} and set(std) == {1}

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float in [0, 1] → (B, C, H, W) float."""
        return images if self.is_identity else (images - self.mean) / self.std
