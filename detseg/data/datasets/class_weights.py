"""Class weights for losses by median frequency balancing (Eigen, Fergus 2015, section 6.3.2)."""

from __future__ import annotations

import numpy as np

from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.errors import DataError


def median_frequency_weights(dataset: SegmentationDataset, skip_bad: bool = False) -> tuple[float, ...]:
    """The weight of each class, at least 0: the median of all frequencies divided by its own.

    The frequency of a class is its fraction of the pixels, without ignored ones, of the images that show it. A class
    that never occurs has weight 0 and does not count in the median. Every mask is decoded once; ``skip_bad`` leaves out
    those that cannot be read.

    Raises:
        DataError: all pixels are ignored, or a mask cannot be read.
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
    occurs = counts > 0
    if not occurs.any():
        raise DataError("class_weights: all pixels of the training masks are ignored, so classes have no frequency")
    frequency = counts[occurs] / present[occurs]
    weights = np.zeros(num)
    weights[occurs] = np.median(frequency) / frequency
    return tuple(weights.tolist())
