"""Masks of regions: what the mask head learns (He et al. 2017, section 3.1), and what its grids cover.

Letters: N objects of one image, P regions, H and W pixels, M cells along a side of a grid.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import roi_align

_PIXELS_AT_ONCE = 1 << 24
"""So many pixels of masks are floats at one time: 64 MB, however many objects an image has."""


def mask_targets(masks: Tensor, objects: Tensor, regions: Tensor, cells: int, aligned: bool) -> Tensor:
    """The part of each region's object that lies in each cell of a grid over the region.

    Args:
        masks: (N, H, W) bool.
        objects: (P,) int64, the mask of each region.
        regions: (P, 4) float32 xyxy.
        cells: M.
        aligned: whether a pixel's value is at its centre (RoIAlign as it is now) or at its upper left corner, half a
            pixel off, as torchvision's published weights were trained.

    Returns:
        (P, M, M) float32 in [0, 1].
    """
    targets = regions.new_zeros(len(regions), cells, cells)
    used, position = torch.unique(objects, return_inverse=True)
    step = max(_PIXELS_AT_ONCE // max(masks[0].numel() if len(masks) else 1, 1), 1)
    for start in range(0, len(used), step):
        members = torch.nonzero((position >= start) & (position < start + step)).flatten()
        dense = masks[used[start : start + step], None].to(regions.dtype)
        rois = torch.cat([(position[members, None] - start).to(regions.dtype), regions[members]], dim=1)
        targets[members] = roi_align(dense, rois, (cells, cells), aligned=aligned)[:, 0]
    return targets


def published_regions(boxes: Tensor, cells: int) -> Tensor:
    """The regions over which torchvision spreads the grids of its published weights.

    It pads a grid by a cell of zeros, widens the box as much, truncates that to whole pixels, and counts the last pixel
    in.  A grid without the padding covers the inner part of this.

    Args:
        boxes: (N, 4) float32 xyxy.
        cells: M.

    Returns:
        (N, 4) float32 xyxy.
    """
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * ((cells + 2) / cells)
    center = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    low = (center - half).to(torch.int64)
    high = (center + half).to(torch.int64) + 1
    cell = (high - low) / (cells + 2)
    return torch.cat([low + cell, high - cell], dim=1)
