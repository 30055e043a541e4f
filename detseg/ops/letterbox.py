"""Between images and the network: resizing of images and boxes to its input, and of its logits back to label maps.

Training, evaluation and prediction share these functions.  A letterbox scales an image to fit the network input, keeps
its proportions, centres it and pads the rest.

Letters: B images, C classes, h and w pixels of the network input, H and W pixels of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

UInt8Array = npt.NDArray[np.uint8]

PAD_VALUE = 114  # grey level of the padding (about the mean of natural images), in 0..255
_PIECE = 1 << 22  # values (16 MiB of float32) that are interpolated at a time; at least one plane of one class


@dataclass(frozen=True)
class Letterbox:
    """The place of an image in a network input."""

    original_hw: tuple[int, int]  # height and width of the image, pixels
    input_hw: tuple[int, int]  # height and width of the network input, pixels
    resized_hw: tuple[int, int]  # height and width of the scaled image inside the input
    top: int  # pixels of padding above it
    left: int  # pixels of padding to the left of it

    @classmethod
    def fit(cls, original_hw: tuple[int, int], input_hw: tuple[int, int]) -> Letterbox:
        """The largest placement of an image in an input, centred; sides are rounded to whole pixels, at least one."""
        height, width = original_hw
        if height < 1 or width < 1:
            raise ValueError(f"an image needs at least one pixel, got height {height} and width {width}")
        scale = min(input_hw[0] / height, input_hw[1] / width)
        resized = min(max(round(height * scale), 1), input_hw[0]), min(max(round(width * scale), 1), input_hw[1])
        return cls(original_hw, input_hw, resized, (input_hw[0] - resized[0]) // 2, (input_hw[1] - resized[1]) // 2)

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Input pixels per original pixel along x and y; they differ only by the rounding of the sides."""
        return self.resized_hw[1] / self.original_hw[1], self.resized_hw[0] / self.original_hw[0]

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """(2, 3) affine matrix from image to input, in coordinates in which pixel i covers [i, i + 1)."""
        sx, sy = self.scale_xy
        return np.array([[sx, 0.0, self.left], [0.0, sy, self.top]])

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the input that show the image."""
        height, width = self.resized_hw
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def apply(self, image: UInt8Array) -> UInt8Array:
        """Resize and pad an (H, W, 3) uint8 image to (*input_hw, 3); ValueError where it is not of `original_hw`."""
        if image.shape[:2] != self.original_hw:
            raise ValueError(f"expected an image of height and width {self.original_hw}, got {image.shape[:2]}")
        canvas = np.full((*self.input_hw, image.shape[2]), PAD_VALUE, dtype=np.uint8)
        canvas[self.inside] = resize(image, self.resized_hw)
        return canvas

    def to_input(self, regions: Tensor) -> Tensor:
        """(N, 4) xyxy in original pixels → (N, 4) float32 xyxy in input pixels."""
        return regions * regions.new_tensor(self.scale_xy * 2) + regions.new_tensor([self.left, self.top] * 2)

    def boxes_to_original(self, boxes: Tensor) -> Tensor:
        """(N, 4) xyxy in input pixels → (N, 4) float32 xyxy in original pixels, clipped to the image."""
        limit = boxes.new_tensor(self.original_hw[::-1] * 2)
        return torch.minimum(self.to_original(boxes).clamp(min=0), limit)

    def to_original(self, regions: Tensor) -> Tensor:
        """(N, 4) xyxy in input pixels → (N, 4) float32 xyxy in original pixels, not clipped."""
        return (regions - regions.new_tensor([self.left, self.top] * 2)) / regions.new_tensor(self.scale_xy * 2)


def resize(image: UInt8Array, hw: tuple[int, int]) -> UInt8Array:
    """Resize an (H, W, 3) uint8 image: by area when shrinking (no aliasing), bilinear when growing."""
    if image.shape[:2] == hw:
        return image
    shrinking = hw[0] * hw[1] < image.shape[0] * image.shape[1]
    interpolation = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (hw[1], hw[0]), interpolation=interpolation), dtype=np.uint8)


def nearest_pixels(side: int, length: int) -> npt.NDArray[np.int64]:
    """(length,) which of `side` pixels lies under the centre of each pixel when they are resized to `length`.

    In exact arithmetic; on a border between two pixels, the right or lower one. OpenCV's INTER_NEAREST is shifted by up
    to half a pixel against `resize`; its INTER_NEAREST_EXACT is not consistent at such borders.
    """
    centers_twice = 2 * np.arange(length, dtype=np.int64) + 1  # in half pixels of the result
    return centers_twice * side // (2 * length)


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
    best, label = _interpolate(planes[:num_at_once], hw).max(dim=0)
    labels = label.to(torch.uint8)
    for first in range(num_at_once, len(planes), num_at_once):
        value, label = _interpolate(planes[first : first + num_at_once], hw).max(dim=0)
        labels = torch.where(value > best, (label + first).to(torch.uint8), labels)
        best = torch.maximum(best, value)
    return labels


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
