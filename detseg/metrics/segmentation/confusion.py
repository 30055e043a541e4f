"""The confusion matrix of semantic segmentation, in exact integers, on the device of the predictions.

Letters: C classes, N pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detseg.structures import IGNORE_LABEL, MAX_CLASSES, IntArray

Bytes = npt.NDArray[np.uint8]
Labels = Bytes | IntArray

_NUM_TABLES = 8
"""Into which neighbours are counted in turn; see ``_pair_counts``."""

_PIECE = 1 << 24
"""Pixels counted at a time on a CPU: OpenCV hands counts out as float32, which holds every integer up to here."""


class ConfusionMatrix:
    """Counts pixels by true and predicted class over any number of images.

    It takes memory for C² numbers, however many pixels are counted.  On a GPU an update only puts work into the queue
    and the host does not wait; wrong labels are reported as soon as the numbers are read.

    Args:
        num_classes: C, 1 to 255.
        device: where counting begins; the counts move to where the predictions are.

    Raises:
        ValueError: ``num_classes`` is out of its range.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        if not 1 <= num_classes <= MAX_CLASSES:
            raise ValueError(f"num_classes: expected 1 to {MAX_CLASSES}, got {num_classes}")
        self.num_classes = num_classes
        # Row 0 holds the ignored pixels, row 1 + k those of class k: uint8 arithmetic then takes 255 + 1 to row 0.
        self._table = torch.zeros((num_classes + 1) * num_classes, dtype=torch.int64, device=device)
        self._extremes = torch.zeros(3, dtype=torch.int64, device=device)

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Count the pixels of one or more label maps.

        Args:
            predicted: uint8 or int64 of any shape, labels 0 to C - 1, below ignored pixels too.
            truth: uint8 or int64 of the same shape, 0 to C - 1, or 255 where a pixel is to be ignored.

        Raises:
            ValueError: shape or dtype is wrong, or (on a CPU; else once the counts are read) a label.
        """
        if predicted.shape != truth.shape:
            raise ValueError(
                f"label maps: expected one shape, got {tuple(predicted.shape)} predicted and {tuple(truth.shape)} true"
            )
        for name, labels in (("predicted", predicted), ("truth", truth)):
            if labels.dtype not in (torch.uint8, torch.int64):
                raise ValueError(f"{name}: expected labels as uint8 or int64, got {labels.dtype}")
        if not predicted.numel():
            return
        device = predicted.device
        self._table, self._extremes = self._table.to(device), self._extremes.to(device)
        if device.type == "cpu":
            counts = self._counted_on_cpu(predicted.detach().numpy().ravel(), truth.cpu().numpy().ravel())
        else:
            counts = self._counted_on_gpu(predicted.flatten(), truth.to(device, non_blocking=True).flatten())
        self._table = self._table + counts  # in place would refuse tensors of inference mode

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the counts of another matrix.

        Raises:
            ValueError: it has another number of classes.
        """
        if other.num_classes != self.num_classes:
            raise ValueError(f"expected a matrix of {self.num_classes} classes, got one of {other.num_classes}")
        self._table = self._table + other._table.to(self._table.device)
        self._extremes = torch.maximum(self._extremes, other._extremes.to(self._extremes.device))

    @property
    def counts(self) -> Tensor:
        """(C, C) int64, pixels by truth (rows) and prediction (columns); a copy.

        Raises:
            ValueError: a label was out of its range.
        """
        return self.table[1:]

    @property
    def num_ignored(self) -> int:
        """Pixels whose truth is 255.

        Raises:
            ValueError: a label was out of its range.
        """
        return int(self.table[0].sum())

    @property
    def table(self) -> Tensor:
        """(C + 1, C) int64, the ignored pixels by prediction, then ``counts``; a copy.

        Raises:
            ValueError: a label was out of its range.
        """
        self._refuse_wrong_labels(self._extremes.tolist())
        return self._table.view(self.num_classes + 1, self.num_classes).clone()

    @classmethod
    def from_table(cls, table: Tensor) -> ConfusionMatrix:
        """The matrix whose ``table`` is the given one, (C + 1, C) int64."""
        matrix = cls(table.shape[1], table.device)
        matrix._table = table.flatten().clone()
        return matrix

    def _counted_on_gpu(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """(N,) and (N,) labels → table of how often each pair occurs; wrong ones are noted, to be reported later."""
        outside = torch.maximum(_outside_uint8(predicted), _outside_uint8(truth))
        columns, rows = predicted.to(torch.uint8), truth.to(torch.uint8) + 1
        extremes = torch.stack([outside, columns.max().to(torch.int64), rows.max().to(torch.int64)])
        self._extremes = torch.maximum(self._extremes, extremes)
        size = len(self._table)
        pairs = rows.to(torch.int64) * self.num_classes + columns
        return histogram(pairs.clamp_(max=size - 1), size)  # wrong labels stay inside

    def _counted_on_cpu(self, predicted: Labels, truth: Labels) -> Tensor:
        """The same on a CPU; wrong labels are refused at once."""
        outside = _any_outside_uint8(predicted) or _any_outside_uint8(truth)
        columns = predicted.astype(np.uint8, copy=False)
        rows = truth.astype(np.uint8, copy=False) + np.uint8(1)
        table = _pair_counts(rows, columns, (self.num_classes + 1, self.num_classes))
        if outside or table.sum() < len(rows):  # labels beyond the table are left out
            self._refuse_wrong_labels([int(outside), int(columns.max()), int(rows.max())])
        return torch.from_numpy(table.ravel())

    def _refuse_wrong_labels(self, extremes: list[int]) -> None:
        """Raise for three numbers: whether a label lies outside 0 to 255, the highest column, the highest row."""
        outside, column, row = extremes
        last = self.num_classes - 1
        if outside:
            raise ValueError(
                f"labels: expected 0 to {last}, or {IGNORE_LABEL} in the truth to ignore a pixel (not -1), got some "
                f"outside 0 to 255"
            )
        if column > last:
            raise ValueError(f"predicted: expected labels 0 to {last} of {self.num_classes} classes, got {column}")
        if row - 1 > last:
            raise ValueError(
                f"truth: expected labels 0 to {last} of {self.num_classes} classes, or {IGNORE_LABEL} to ignore, got "
                f"{row - 1}; are the masks of another class table?"
            )


def _pair_counts(rows: Bytes, columns: Bytes, shape: tuple[int, int]) -> IntArray:
    """How often each pair of bytes occurs, counted by OpenCV on a CPU.

    Neighbours are mostly equal, and a counter that has just been written is slow to read again.  So neighbours have
    tables of their own: measured on maps of regions, 1.7 instead of 10 ms for 2 million pixels.

    Args:
        rows: (N,) uint8.
        columns: (N,) uint8.
        shape: of the table; pairs that lie beyond it are left out.

    Returns:
        int64 of ``shape``.
    """
    num_tables = _NUM_TABLES if _NUM_TABLES * shape[0] * shape[1] <= len(rows) else 1
    turns = np.tile(np.arange(num_tables, dtype=np.uint8), min(len(rows), _PIECE) // num_tables + 1)
    counts = np.zeros(shape, dtype=np.int64)
    for first in range(0, len(rows), _PIECE):
        piece = slice(first, min(first + _PIECE, len(rows)))
        images = [turns[: piece.stop - first], rows[piece], columns[piece]]
        ranges = [0, num_tables, 0, shape[0], 0, shape[1]]
        counts += cv2.calcHist(images, [0, 1, 2], None, [num_tables, *shape], ranges).astype(np.int64).sum(axis=0)
    return counts


def _any_outside_uint8(labels: Labels) -> bool:
    """Whether a label lies outside 0 to 255; one that does sets a bit above the lowest eight."""
    return labels.dtype != np.uint8 and bool(np.bitwise_or.reduce(labels) & ~IGNORE_LABEL)


def _outside_uint8(labels: Tensor) -> Tensor:
    """1 if a label lies outside 0 to 255, else 0: an int64 scalar on the device of the labels."""
    if labels.dtype == torch.uint8:
        return torch.zeros((), dtype=torch.int64, device=labels.device)
    lowest, highest = torch.aminmax(labels)
    return ((lowest < 0) | (highest > IGNORE_LABEL)).to(torch.int64)


def histogram(values: Tensor, size: int) -> Tensor:
    """How often each number from 0 to ``size - 1`` occurs; nothing here makes the host wait for a GPU.

    Args:
        values: (N,) of any integer type, all below ``size``.
        size: bins.

    Returns:
        (size,) int64, on the same device.
    """
    if values.device.type == "cpu":
        return torch.bincount(values, minlength=size)
    return histogram_by_scatter(values, size)


def histogram_by_scatter(values: Tensor, size: int) -> Tensor:
    """``histogram`` for GPUs, where torch.bincount reads the highest value back to learn how many bins there are."""
    counts = torch.zeros(size, dtype=torch.int64, device=values.device)
    one = torch.ones(1, dtype=torch.int64, device=values.device)
    return counts.scatter_add_(0, values.to(torch.int64), one.expand(len(values)))
