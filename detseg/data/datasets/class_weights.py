"""Weights of the classes for losses, from how often they occur (Eigen, Fergus 2015, section 6.3.2).

Letters for dimensions: C classes.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from detseg.errors import DataError
from detseg.structures import ClassTable, IntArray, UInt8Array


class LabelMaps(Protocol):
    """What is counted; a ``SegmentationDataset`` is one."""

    @property
    def classes(self) -> ClassTable:
        """The classes of the maps."""
        ...

    def __len__(self) -> int: ...

    def semantic(self, index: int, /) -> UInt8Array:
        """(H, W) uint8 labels, ``IGNORE_LABEL`` where none counts."""
        ...


def class_pixel_counts(dataset: LabelMaps, skip_bad: bool = False) -> tuple[IntArray, IntArray]:
    """How often each class occurs; every mask is decoded once.

    Args:
        dataset: the training set.
        skip_bad: whether masks that cannot be read are left out, since the training skips them.

    Returns:
        (C,) int64 pixels of each class, and (C,) int64 pixels that count, whatever their class, of the images in which
        the class occurs.
    """
    num = len(dataset.classes)
    counts, present = np.zeros(num, dtype=np.int64), np.zeros(num, dtype=np.int64)
    for index in range(len(dataset)):
        try:
            semantic = dataset.semantic(index)
        except DataError:
            if not skip_bad:
                raise
            continue
        pixels = np.bincount(semantic.ravel(), minlength=256)[:num]
        counts += pixels
        present[pixels > 0] += pixels.sum()
    return counts, present


def median_frequency_weights(dataset: LabelMaps, skip_bad: bool = False) -> tuple[float, ...]:
    """Weight of each class: the median frequency over its own.

    The frequency of a class is its share of the pixels that count of the images in which it occurs.  A class that
    never occurs has weight 0, and no part in the median.

    Args:
        dataset: the training set.
        skip_bad: as above.

    Returns:
        C weights in label order, at least 0.

    Raises:
        DataError: no class occurs, or a mask cannot be read.
    """
    counts, present = class_pixel_counts(dataset, skip_bad)
    occurs = counts > 0
    if not occurs.any():
        raise DataError("class_weights: no pixel of the training masks counts, so classes have no frequency")
    frequency = counts[occurs] / present[occurs]
    weights = np.zeros(len(counts))
    weights[occurs] = np.median(frequency) / frequency
    return tuple(weights.tolist())
