"""Images as the input of a network, for training, evaluation and prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def stack_images(images: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
    """B images (H, W, 3) uint8 of one size → (B, 3, H, W) uint8, channels-last in memory."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def to_float(images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 → float32 in [0, 1], channels-last in memory.

    Raises:
        ValueError: the images are not uint8, so they may have been scaled before.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images: expected uint8 in 0..255, got {images.dtype}")
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


def to_arrays(images: Tensor) -> list[npt.NDArray[np.uint8]]:
    """(B, 3, H, W) uint8 on any device → B images (H, W, 3) uint8, for drawing."""
    return list(np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy()))
