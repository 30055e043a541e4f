"""Pixels counted by true and predicted label, in exact integers, on the device of the label maps."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from detseg.structures import IGNORE_LABEL

_NUM_LABELS = 256
_MAX_PIXELS = 1 << 24  # OpenCV returns counts as float32, which holds every integer up to here


def pair_counts(predicted: Tensor, truth: Tensor) -> Tensor:
    """How many pixels have each pair of labels; on a GPU the host does not wait.

    Args:
        predicted: uint8 or int64 of any shape.
        truth: uint8 or int64 of the same shape, on the same device.

    Returns:
        (256, 256) int64, rows truth, columns prediction, on the same device.  If a label is outside 0 to 255 there is
        a prediction of 255, for ``check_labels`` to find.

    Raises:
        ValueError: wrong shape or dtype.
    """
    if predicted.shape != truth.shape:
        raise ValueError(
            f"label maps: expected one shape, got {tuple(predicted.shape)} predicted and {tuple(truth.shape)} true"
        )
    for name, labels in (("predicted", predicted), ("truth", truth)):
        if labels.dtype not in (torch.uint8, torch.int64):
            raise ValueError(f"{name}: expected labels as uint8 or int64, got {labels.dtype}")
    count = count_with_opencv if predicted.device.type == "cpu" else count_by_scatter
    counts = count(predicted.to(torch.uint8), truth.to(torch.uint8))
    for labels in (predicted, truth):
        if labels.dtype == torch.int64 and labels.numel():
            lowest, highest = torch.aminmax(labels)
            counts[0, IGNORE_LABEL] += (lowest < 0) | (highest > IGNORE_LABEL)
    return counts


def check_labels(counts: Tensor, num_classes: int) -> None:
    """Raise for labels outside the class table.

    Args:
        counts: of ``pair_counts``, or a sum of such.
        num_classes: C, 1 to 255; labels are 0 to C - 1, and 255 in the truth where a pixel is ignored.

    Raises:
        ValueError: there is another label.
    """
    expected = f"expected labels 0 to {num_classes - 1} of {num_classes} classes"
    predicted, truth = counts.sum(dim=0)[num_classes:], counts.sum(dim=1)[num_classes:IGNORE_LABEL]
    if predicted.any():
        label = num_classes + int(predicted.nonzero()[-1])
        outside = ", or a label outside 0 to 255 in one of the maps (pixels to ignore are 255 in the truth, not -1)"
        raise ValueError(f"predicted: {expected}, got {label}{outside if label == IGNORE_LABEL else ''}")
    if truth.any():
        label = num_classes + int(truth.nonzero()[-1])
        raise ValueError(
            f"truth: {expected}, or {IGNORE_LABEL} to ignore, got {label}; are the masks of another class table?"
        )


def count_with_opencv(predicted: Tensor, truth: Tensor) -> Tensor:
    """``pair_counts`` of uint8 labels on a CPU, several times as fast as ``bincount``."""
    maps = truth.numpy().ravel(), predicted.numpy().ravel()
    chunks = ([labels[k : k + _MAX_PIXELS] for labels in maps] for k in range(0, truth.numel(), _MAX_PIXELS))
    sizes, ranges = [_NUM_LABELS] * 2, [0, _NUM_LABELS] * 2
    counts = (cv2.calcHist(chunk, [0, 1], None, sizes, ranges).astype(np.int64) for chunk in chunks)
    return torch.from_numpy(sum(counts, start=np.zeros(sizes, dtype=np.int64)))


def count_by_scatter(predicted: Tensor, truth: Tensor) -> Tensor:
    """``pair_counts`` of uint8 labels on any device; ``torch.bincount`` would wait for a GPU to learn its size."""
    pairs = truth.flatten().to(torch.int64) * _NUM_LABELS + predicted.flatten()
    counts = torch.zeros(_NUM_LABELS**2, dtype=torch.int64, device=truth.device)
    one = torch.ones(1, dtype=torch.int64, device=truth.device)
    return counts.scatter_add_(0, pairs, one.expand(len(pairs))).view(_NUM_LABELS, _NUM_LABELS)
