"""Boundary IoU: how well the outlines of the classes agree (Cheng et al. 2021, "Boundary IoU", section 4).

The band of a mask holds its pixels within d of its contour: the mask without its erosion by d steps of a 3 × 3 square,
no mask outside the image.  Boundary IoU is the IoU of the bands of truth and prediction.  The paper measures masks of
instances; here intersections and unions of the bands of a class are summed over the whole data set, as mIoU does with
masks.

d steps of a 3 × 3 square are one square of side 2 d + 1.  A pixel is in the band of its class exactly when the square
around it holds another label or reaches outside the image, that is when the lowest and the highest label in it differ.
So one minimum and one maximum over squares give the bands of all classes at once, on any device.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from detseg.metrics.segmentation.confusion import pair_counts
from detseg.structures import IGNORE_LABEL


def band_width(hw: tuple[int, int], diagonal_fraction: float) -> int:
    """d in pixels: ``diagonal_fraction`` of the image's diagonal, rounded, at least 1."""
    return max(round(diagonal_fraction * math.hypot(*hw)), 1)


def bands(labels: Tensor, width: int) -> Tensor:
    """The label map with ``IGNORE_LABEL`` wherever a pixel is not in the band of its class.

    Args:
        labels: (H, W) uint8; pixels with ``IGNORE_LABEL`` are in no mask and in no band.
        width: d, 1 or more, pixels.

    Returns:
        (H, W) uint8, on the same device.
    """
    side = 2 * width + 1
    # Outside the image is the highest label, which no class has and which lowers no minimum.
    padded = F.pad(labels, (width, width, width, width), value=IGNORE_LABEL)
    highest = _over_squares(padded, side, torch.maximum)
    lowest = _over_squares(padded, side, torch.minimum)
    return labels.masked_fill(highest == lowest, IGNORE_LABEL)


def band_overlaps(predicted: Tensor, truth: Tensor, num_classes: int, width: int) -> Tensor:
    """Pixels in the intersection and in the union of the bands of prediction and truth, by class.

    Args:
        predicted: (H, W) uint8, labels below ``num_classes``.
        truth: (H, W) uint8, likewise, or ``IGNORE_LABEL``: such a pixel is taken out of both maps first.
        num_classes: C.
        width: of the bands, pixels.

    Returns:
        (2, C) int64: intersections, unions; on the device of the maps.
    """
    predicted_bands = bands(predicted.masked_fill(truth == IGNORE_LABEL, IGNORE_LABEL), width)
    counts = pair_counts(predicted_bands, bands(truth, width))
    intersections = counts.diagonal()
    unions = counts.sum(dim=0) + counts.sum(dim=1) - intersections
    return torch.stack([intersections, unions])[:, :num_classes]


def _over_squares(labels: Tensor, side: int, reduce: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(H, W) → (H - side + 1, W - side + 1): each square reduced to one label."""
    rows = _over_rows(labels, side, reduce)
    return _over_rows(rows.T.contiguous(), side, reduce).T


def _over_rows(labels: Tensor, side: int, reduce: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(H, W) → (H - side + 1, W): ``side`` rows reduced to one, in log2(side) passes."""
    num = 1  # rows that each row stands for
    while num < side:
        step = min(num, side - num)
        labels = reduce(labels[:-step], labels[step:])
        num += step
    return labels
