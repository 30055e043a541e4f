"""Heads: feature maps to raw maps, box outputs first, class outputs after them.

Letters: B images, K = box_outputs + class_outputs.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from detseg.models.layers import ConvNormAct
from detseg.models.yolo.scheme import Scheme


class DecoupledHead(nn.Module):
    """A branch for boxes and a branch for classes at every stride (Ge et al. 2021, "YOLOX", section 2.1).

    Args:
        channels: channels of the feature maps, finest first.
        scheme: what the outputs mean, and how they start.
        hidden: channels inside both branches; at least the finest map's.
    """

    def __init__(self, channels: tuple[int, ...], scheme: Scheme, hidden: int) -> None:
        super().__init__()
        self.box_branches = nn.ModuleList(_branch(num, hidden, scheme.box_outputs) for num in channels)
        self.class_branches = nn.ModuleList(_branch(num, hidden, scheme.class_outputs) for num in channels)
        for stride, boxes, classes in zip(scheme.strides, self.box_branches, self.class_branches, strict=True):
            bias = scheme.initial_bias(stride)
            _set_bias(boxes, bias[: scheme.box_outputs])
            _set_bias(classes, bias[scheme.box_outputs :])

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Feature maps → (B, K, H / s, W / s) raw maps, one a stride."""
        return [
            torch.cat([boxes(x), classes(x)], dim=1)
            for x, boxes, classes in zip(features, self.box_branches, self.class_branches, strict=True)
        ]


class CoupledHead(nn.Module):
    """One branch for everything at every stride, as in YOLOv1 to v3 (Redmon, Farhadi 2018, section 2.3)."""

    def __init__(self, channels: tuple[int, ...], scheme: Scheme, hidden: int) -> None:
        super().__init__()
        outputs = scheme.box_outputs + scheme.class_outputs
        self.branches = nn.ModuleList(_branch(num, hidden, outputs) for num in channels)
        for stride, branch in zip(scheme.strides, self.branches, strict=True):
            _set_bias(branch, scheme.initial_bias(stride))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Feature maps → (B, K, H / s, W / s) raw maps, one a stride."""
        return [branch(x) for x, branch in zip(features, self.branches, strict=True)]


def _branch(in_channels: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        ConvNormAct(in_channels, hidden), ConvNormAct(hidden, hidden), nn.Conv2d(hidden, outputs, kernel_size=1)
    )


def _set_bias(branch: nn.Module, bias: Tensor) -> None:
    last = cast(nn.Conv2d, cast(nn.Sequential, branch)[-1])
    assert last.bias is not None
    with torch.no_grad():
        last.bias.copy_(bias)
