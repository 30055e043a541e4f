"""From logits in pixels of the network input to the label map of the original image.

Letters for dimensions: C classes, h and w pixels of the network input, H and W pixels of the original image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detseg.ops.letterbox import Letterbox

_PIECE = 1 << 22
"""Values (16 MiB of float32) that are interpolated at a time; at least one plane of one class."""


def logits_at_original_size(logits: Tensor, letterbox: Letterbox) -> Tensor:
    """Remove the padding and interpolate the rest bilinearly (half-pixel centres, no antialiasing).

    Args:
        logits: (C, h, w) float32, in pixels of the network input.
        letterbox: the place of the image in that input.

    Returns:
        (C, H, W) float32, on the same device.

    Raises:
        ValueError: ``logits`` have another shape or dtype.
    """
    return _interpolate(_without_padding(logits, letterbox), letterbox.original_hw)


def label_map(logits: Tensor, letterbox: Letterbox) -> Tensor:
    """The argmax of ``logits_at_original_size`` over the classes; the lowest label of equal logits.

    Large images are interpolated a few classes at a time, so that memory does not grow with C.

    Args:
        logits: (C, h, w) float32, in pixels of the network input, C at most 255.
        letterbox: the place of the image in that input.

    Returns:
        (H, W) uint8, on the same device.

    Raises:
        ValueError: ``logits`` have another shape or dtype.
    """
    planes = _without_padding(logits, letterbox)
    if not 0 < len(planes) < 256:
        raise ValueError(f"logits: expected 1 to 255 classes, got {len(planes)}")
    height, width = letterbox.original_hw
    num_at_once = max(_PIECE // (height * width), 1)
    best, labels = _best(_interpolate(planes[:num_at_once], (height, width)))
    for first in range(num_at_once, len(planes), num_at_once):
        value, label = _best(_interpolate(planes[first : first + num_at_once], (height, width)))
        labels = torch.where(value > best, label + first, labels)
        best = torch.maximum(best, value)
    return labels


def _without_padding(logits: Tensor, letterbox: Letterbox) -> Tensor:
    """(C, h, w) → (C, *resized_hw), the part that shows the image, contiguous."""
    if logits.ndim != 3 or logits.dtype != torch.float32 or tuple(logits.shape[1:]) != letterbox.input_hw:
        raise ValueError(
            f"logits: expected float32 of shape (C, {letterbox.input_hw[0]}, {letterbox.input_hw[1]}), got "
            f"{logits.dtype} of shape {tuple(logits.shape)}"
        )
    height, width = letterbox.resized_hw
    cut = logits[:, letterbox.top : letterbox.top + height, letterbox.left : letterbox.left + width]
    # Torch has another kernel for channels-last memory, which rounds differently.
    return cut.contiguous()


def _interpolate(planes: Tensor, hw: tuple[int, int]) -> Tensor:
    return F.interpolate(planes[None], size=hw, mode="bilinear", align_corners=False)[0]


def _best(planes: Tensor) -> tuple[Tensor, Tensor]:
    """(K, H, W) → (H, W) the highest value, (H, W) uint8 its first position."""
    if len(planes) == 1:
        return planes[0], torch.zeros_like(planes[0], dtype=torch.uint8)
    value, position = planes.max(dim=0)
    return value, position.to(torch.uint8)
