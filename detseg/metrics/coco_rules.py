"""The levels at which COCO measures (cocodataset.org/#detection-eval), as pycocotools has them to the last bit."""

from __future__ import annotations

import numpy as np

from detseg.structures import BoolArray, FloatArray

IOU_THRESHOLDS: FloatArray = np.linspace(0.5, 0.95, 10)
RECALL_LEVELS: FloatArray = np.linspace(0, 1, 101)

SIZES = ("all", "small", "medium", "large")
AREA_RANGES: FloatArray = np.array([[0, 1e5**2], [0, 32**2], [32**2, 96**2], [96**2, 1e5**2]])
"""(S, 2), least and greatest area of each size, square pixels; both belong to it."""


def outside_ranges(areas: FloatArray) -> BoolArray:
    """(N,) square pixels → (N, S) whether each lies outside the area range of each size; NaN lies in all."""
    outside: BoolArray = (areas[:, None] < AREA_RANGES[:, 0]) | (areas[:, None] > AREA_RANGES[:, 1])
    return outside
