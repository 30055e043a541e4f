"""Images as tensors, and logits as label maps in the size of the image.

Letters: B images, C classes, h and w pixels of the network input, H and W pixels of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from detseg.ops.letterbox import Letterbox, UInt8Array

_PIECE = 1 << 22  # values (16 MiB of float32) that are interpolated at a time; at least one plane of one class


def stack_images(images: Sequence[UInt8Array]) -> Tensor:
    """B images (H, W, 3) uint8 of one size → (B, 3, H, W) uint8, channels-last in memory."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def to_float(images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 → float32 in [0, 1], channels-last in memory; ValueError for another dtype, since the images
    may have been scaled before."""
    if images.dtype != torch.uint8:
        raise ValueError(f"images: expected uint8 in 0..255, got {images.dtype}")
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


def to_arrays(images: Tensor) -> list[UInt8Array]:
    """(B, 3, H, W) uint8 on any device → B images (H, W, 3) uint8, for drawing."""
    return list(np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy()))


def logits_at_original_size(logits: Tensor, letterbox: Letterbox) -> Tensor:
    """(C, h, w) float32 logits in pixels of the network input → (C, H, W) float32 on the same device: the padding is
    removed, the rest interpolated bilinearly (half-pixel centres, no antialiasing).  ValueError for another shape or
    dtype."""
    return _interpolate(_without_padding(logits, letterbox), letterbox.original_hw)


def label_map(logits: Tensor, letterbox: Letterbox) -> Tensor:
    """The argmax of ``logits_at_original_size`` over at most 255 classes, (H, W) uint8; the lowest label of equals.

    Large images are interpolated a few classes at a time, so that memory does not grow with C.
    """
    planes, hw = _without_padding(logits, letterbox), letterbox.original_hw
    if not 0 < len(planes) < 256:
        raise ValueError(f"logits: expected 1 to 255 classes, got {len(planes)}")
    num_at_once = max(_PIECE // (hw[0] * hw[1]), 1)
    best, labels = _best(_interpolate(planes[:num_at_once], hw))
    for first in range(num_at_once, len(planes), num_at_once):
        value, label = _best(_interpolate(planes[first : first + num_at_once], hw))
        labels = torch.where(value > best, label + first, labels)
        best = torch.maximum(best, value)
    return labels


def _best(planes: Tensor) -> tuple[Tensor, Tensor]:
    """(C, H, W) → the largest of each pixel, and its position as uint8."""
    if len(planes) == 1:  # of a large image, for which torch would write int64 positions
        return planes[0], torch.zeros_like(planes[0], dtype=torch.uint8)
    value, label = planes.max(dim=0)
    return value, label.to(torch.uint8)


def _without_padding(logits: Tensor, letterbox: Letterbox) -> Tensor:
    """(C, h, w) → (C, *resized_hw), the part that shows the image."""
    if logits.ndim != 3 or logits.dtype != torch.float32 or tuple(logits.shape[1:]) != letterbox.input_hw:
        raise ValueError(
            f"logits: expected float32 of shape (C, {letterbox.input_hw[0]}, {letterbox.input_hw[1]}), got "
            f"{logits.dtype} of shape {tuple(logits.shape)}"
        )
    # Torch has another kernel for channels-last memory, which rounds differently.
    return logits[:, *letterbox.inside].contiguous()


def _interpolate(planes: Tensor, hw: tuple[int, int]) -> Tensor:
    return F.interpolate(planes[None], size=hw, mode="bilinear", align_corners=False)[0]
