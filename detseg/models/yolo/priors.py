"""Priors of the anchor-free detectors: one point in the middle of every cell.

Letters: A priors over all strides, finest stride first, row by row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Points(NamedTuple):
    """Places that predict.

    Attributes:
        centres: (A, 2) float32 x, y in input pixels.
        strides: (A,) float32 width of each place's cell in pixels.
    """

    centres: Tensor
    strides: Tensor


def cell_points(maps: list[Tensor], strides: tuple[int, ...]) -> Points:
    """The cell centres of (B, K, H / s, W / s) maps, one map a stride."""
    centres, widths = [], []
    for raw, stride in zip(maps, strides, strict=True):
        height, width = raw.shape[-2:]
        ys = (torch.arange(height, device=raw.device, dtype=torch.float32) + 0.5) * stride
        xs = (torch.arange(width, device=raw.device, dtype=torch.float32) + 0.5) * stride
        grid_y, grid_x = torch.meshgrid(ys, xs, indexing="ij")
        centres.append(torch.stack([grid_x.flatten(), grid_y.flatten()], dim=1))
        widths.append(torch.full((height * width,), float(stride), device=raw.device))
    return Points(torch.cat(centres), torch.cat(widths))


def flatten_maps(maps: list[Tensor]) -> Tensor:
    """(B, K, H / s, W / s) maps → (B, A, K), in the order of ``cell_points``."""
    # The outputs of a prior side by side: that is how channels-last maps lie in memory, and how softmax is fast.
    return torch.cat([raw.permute(0, 2, 3, 1).flatten(1, 2) for raw in maps], dim=1)
