"""Priors of the anchor-free detectors: one point in the middle of every cell.

Letters: A priors over all strides, finest stride first, row by row.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

_MOVED_AT_ONCE = 2**19
"""Outputs that are moved (2 MB) in the time that it takes to look which of them are wanted."""


class Points(NamedTuple):
    """Places that predict.

    Attributes:
        centres: (A, 2) float32 x, y in input pixels.
        strides: (A,) float32 width of each place's cell in pixels.
    """

    centres: Tensor
    strides: Tensor


def cell_points(maps: list[Tensor], strides: tuple[int, ...]) -> Points:
    """The cell centres of (B, K, H / s, W / s) maps, one map a stride; kept, so they are not to be changed."""
    return _points(tuple((raw.shape[-2], raw.shape[-1]) for raw in maps), strides, maps[0].device)


@lru_cache(maxsize=32)
def _points(sizes: tuple[tuple[int, int], ...], strides: tuple[int, ...], device: torch.device) -> Points:
    # Thirty small operations, which would take a fifth of the time that one picture takes behind the network.  Whoever
    # asks first may be in inference mode, whose tensors no training may use.
    with torch.inference_mode(False):
        centres, widths = [], []
        for (height, width), stride in zip(sizes, strides, strict=True):
            ys = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * stride
            xs = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * stride
            grid_y, grid_x = torch.meshgrid(ys, xs, indexing="ij")
            centres.append(torch.stack([grid_x.flatten(), grid_y.flatten()], dim=1))
            widths.append(torch.full((height * width,), float(stride), device=device))
        return Points(torch.cat(centres), torch.cat(widths))


def flatten_maps(maps: list[Tensor]) -> Tensor:
    """(B, K, H / s, W / s) maps → (B, A, K), in the order of ``cell_points``."""
    # The outputs of a prior side by side: that is how channels-last maps lie in memory, and how softmax is fast.
    return torch.cat([raw.permute(0, 2, 3, 1).flatten(1, 2) for raw in maps], dim=1)


def outputs_at(maps: list[Tensor], image: Tensor, place: Tensor) -> Tensor:
    """Some rows of ``flatten_maps``, without the rest being moved where that would take long.

    Args:
        maps: (B, K, H / s, W / s), one map a stride.
        image: (P,) int64 which image.
        place: (P,) int64 which cell, in the order of ``cell_points``.

    Returns:
        (P, K).
    """
    if sum(raw.numel() for raw in maps) <= _MOVED_AT_ONCE:
        return flatten_maps(maps)[image, place]
    found = maps[0].new_empty(len(image), maps[0].shape[1])
    start = 0
    for raw in maps:
        height, width = raw.shape[-2:]
        here = torch.nonzero((place >= start) & (place < start + height * width)).flatten()
        cell = place[here] - start
        found[here] = raw[image[here], :, cell // width, cell % width]
        start += height * width
    return found
