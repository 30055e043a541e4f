"""Boundary IoU: how well the outlines of the classes agree (Cheng et al. 2021, "Boundary IoU", section 4).

The band of a mask holds its pixels within d of its contour: the mask less its erosion by d steps of a 3 × 3 square,
beyond the image being no mask.  Boundary IoU is the IoU of the bands of truth and prediction.  The paper measures masks
of instances; here the bands of a class are intersected and united over the whole data set, as mIoU does with masks.

d steps of a 3 × 3 square are one square of side 2 d + 1.  A pixel of class k is thus in the band of k exactly when the
square around it holds another label or reaches beyond the image, that is when its lowest and its highest label differ.
So one minimum and one maximum over squares give the bands of all classes at once, on any device.

Letters: C classes, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from detseg.metrics.segmentation.confusion import histogram
from detseg.structures import IGNORE_LABEL


def band_width(hw: tuple[int, int], width_share: float) -> int:
    """d in pixels: ``width_share`` of the image's diagonal, rounded, at least 1."""
    return max(round(width_share * math.hypot(*hw)), 1)


def bands(labels: Tensor, width: int) -> Tensor:
    """The label map with ``IGNORE_LABEL`` wherever a pixel is not in the band of its class.

    Args:
        labels: (H, W) uint8; pixels with ``IGNORE_LABEL`` are in no mask and in no band.
        width: d, 1 or more, pixels.

    Returns:
        (H, W) uint8, on the same device.
    """
    side = 2 * width + 1
    # No class has the label of the surroundings, and no minimum falls by it: it is the highest there is.
    surrounded = F.pad(labels, (width, width, width, width), value=IGNORE_LABEL)
    highest = _over_squares(surrounded, side, torch.maximum)
    lowest = _over_squares(surrounded, side, torch.minimum)
    return labels.masked_fill(highest == lowest, IGNORE_LABEL)


def band_overlaps(predicted: Tensor, truth: Tensor, num_classes: int, width: int) -> Tensor:
    """Pixels in the intersection and in the union of the bands of prediction and truth, by class.

    Args:
        predicted: (H, W) uint8, labels below ``num_classes``.
        truth: (H, W) uint8, likewise, or ``IGNORE_LABEL``: such a pixel is taken out of both maps beforehand.
        num_classes: C.
        width: of the bands, pixels.

    Returns:
        (2, C) int64: intersections, unions; on the device of the maps.
    """
    true_band = bands(truth, width)
    found_band = bands(predicted.masked_fill(truth == IGNORE_LABEL, IGNORE_LABEL), width)
    both = true_band.masked_fill(true_band != found_band, IGNORE_LABEL)
    intersection = _label_counts(both, num_classes)
    union = _label_counts(true_band, num_classes) + _label_counts(found_band, num_classes) - intersection
    return torch.stack([intersection, union])


def _label_counts(labels: Tensor, num_classes: int) -> Tensor:
    """(H, W) uint8 → (C,) int64, pixels of each class."""
    return histogram(labels.flatten(), IGNORE_LABEL + 1)[:num_classes]


def _over_squares(labels: Tensor, side: int, pick: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(H, W) → (H - side + 1, W - side + 1): what ``pick`` leaves of each square."""
    rows = _over_rows(labels, side, pick)
    return _over_rows(rows.T.contiguous(), side, pick).T


def _over_rows(labels: Tensor, side: int, pick: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(H, W) → (H - side + 1, W): what ``pick`` leaves of ``side`` rows, in log2(side) passes."""
    num = 1  # rows that each row stands for by now
    while num < side:
        step = min(num, side - num)
        labels = pick(labels[:-step], labels[step:])
        num += step
    return labels
