"""Array types, and the checks of shape and dtype that the structures share.

Letters for dimensions: N objects of one image.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def check_boxes(boxes: Tensor) -> None:
    """Raise a ValueError unless boxes are (N, 4) float32."""
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype != torch.float32:
        raise ValueError(f"boxes: expected float32 of shape (N, 4), got {boxes.dtype} of shape {tuple(boxes.shape)}")


def check_column(name: str, column: Tensor, num: int, dtype: torch.dtype) -> None:
    """Raise a ValueError unless a column has shape (num,) and ``dtype``."""
    if column.shape != (num,) or column.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype} of shape ({num},), got {column.dtype} of {tuple(column.shape)}")
