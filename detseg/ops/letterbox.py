"""The resize of images, boxes and label maps to the network input, for training, evaluation and prediction.

A letterbox scales an image to fit the network input, keeps its proportions, centres it and pads the rest. The geometry
is a value of its own, so that boxes are mapped there and back by the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

PAD_VALUE = 114
"""Grey level of the padding (about the mean of natural images), in 0..255."""

PAD_LABEL = 255
"""Label of the padding of semantic maps; equals ``IGNORE_LABEL`` of `detseg.structures`, which imports this package."""


@dataclass(frozen=True)
class Letterbox:
    """The place of an image in a network input.

    Attributes:
        original_hw: height and width of the image, pixels.
        input_hw: height and width of the network input, pixels.
        resized_hw: height and width of the scaled image inside the input.
        top, left: pixels of padding above and to the left of it.
    """

    original_hw: tuple[int, int]
    input_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    top: int
    left: int

    @classmethod
    def fit(cls, original_hw: tuple[int, int], input_hw: tuple[int, int]) -> Letterbox:
        """The largest placement of an image in an input, centred; sides are rounded to whole pixels, at least one."""
        height, width = original_hw
        if height < 1 or width < 1:
            raise ValueError(f"an image needs at least one pixel, got height {height} and width {width}")
        scale = min(input_hw[0] / height, input_hw[1] / width)
        resized = (
            min(max(round(height * scale), 1), input_hw[0]),
            min(max(round(width * scale), 1), input_hw[1]),
        )
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

    def apply(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Resize and pad an (H, W, 3) uint8 image to (*input_hw, 3)."""
        if image.shape[:2] != self.original_hw:
            raise ValueError(f"expected an image of height and width {self.original_hw}, got {image.shape[:2]}")
        height, width = self.resized_hw
        canvas = np.full((*self.input_hw, image.shape[2]), PAD_VALUE, dtype=np.uint8)
        canvas[self.top : self.top + height, self.left : self.left + width] = resize(image, (height, width))
        return canvas

    def apply_labels(self, semantic: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Resize an (H, W) uint8 semantic map by nearest neighbour and pad it with ``PAD_LABEL`` to `input_hw`.

        Raises:
            ValueError: the map is not of this letterbox's `original_hw`.
        """
        if semantic.shape != self.original_hw:
            raise ValueError(f"expected a semantic map of height and width {self.original_hw}, got {semantic.shape}")
        height, width = self.resized_hw
        canvas = np.full(self.input_hw, PAD_LABEL, dtype=np.uint8)
        canvas[self.top : self.top + height, self.left : self.left + width] = resize_labels(semantic, (height, width))
        return canvas

    def boxes_to_input(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(N, 4) xyxy in original pixels → (N, 4) float32 xyxy in input pixels."""
        sx, sy = self.scale_xy
        scaled = boxes * np.array([sx, sy, sx, sy]) + np.array([self.left, self.top, self.left, self.top])
        result: npt.NDArray[np.float32] = scaled.astype(np.float32)
        return result

    def boxes_to_original(self, boxes: Tensor) -> Tensor:
        """(N, 4) xyxy in input pixels → (N, 4) float32 xyxy in original pixels, clipped to the image."""
        height, width = self.original_hw
        limit = boxes.new_tensor([width, height, width, height])
        return torch.minimum(self.to_original(boxes).clamp(min=0), limit)

    def to_original(self, regions: Tensor) -> Tensor:
        """(N, 4) xyxy in input pixels → (N, 4) float32 xyxy in original pixels, not clipped."""
        sx, sy = self.scale_xy
        offset = regions.new_tensor([self.left, self.top, self.left, self.top])
        scale = regions.new_tensor([sx, sy, sx, sy])
        return (regions - offset) / scale


def resize(image: npt.NDArray[np.uint8], hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Resize an (H, W, 3) uint8 image: by area when shrinking (no aliasing), bilinear when growing."""
    if image.shape[:2] == hw:
        return image
    shrinking = hw[0] * hw[1] < image.shape[0] * image.shape[1]
    interpolation = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    resized: npt.NDArray[np.uint8] = np.asarray(cv2.resize(image, (hw[1], hw[0]), interpolation=interpolation))
    return resized


def resize_labels(semantic: npt.NDArray[np.uint8], hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Resize an (H, W) uint8 semantic map: each new pixel takes the label of the pixel that its centre falls into.

    On a border between two pixels, the right or lower one is taken. OpenCV's INTER_NEAREST takes the pixel under the
    upper left corner, shifted by up to half a pixel against `resize`; its INTER_NEAREST_EXACT is not consistent at such
    borders.
    """
    if semantic.shape == hw:
        return semantic
    rows, columns = (nearest_pixels(side, length) for side, length in zip(semantic.shape, hw, strict=True))
    resized: npt.NDArray[np.uint8] = semantic.take(rows, axis=0).take(columns, axis=1)
    return resized


def nearest_pixels(side: int, length: int) -> npt.NDArray[np.int64]:
    """(length,) positions of the nearest of `side` pixels when they are resized to `length`, in exact arithmetic."""
    centers_twice = 2 * np.arange(length, dtype=np.int64) + 1  # in half pixels of the result
    return centers_twice * side // (2 * length)
