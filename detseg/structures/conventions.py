"""Array types, and the numbers that mean the same everywhere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

IGNORE_LABEL = 255
"""Label of ignored pixels of a semantic map: void, crowd, padding. They count neither in losses nor in metrics."""

MAX_CLASSES = 255
"""Most classes of a semantic map, beside ``IGNORE_LABEL``."""

SCORE_THRESHOLD = 0.3
"""Detections with a lower score are neither drawn nor returned by a predictor, unless another threshold is given.
Evaluation has no such threshold: AP counts the tail of the ranking."""
