"""Between images and the network: resizing of images and boxes to its input, and of boxes back.

Training, evaluation and prediction share these functions, with and without torch.  A letterbox scales an image to fit
the network input, keeps its proportions, centres it and pads the rest.

Letters: h and w pixels of the network input, H and W pixels of an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

UInt8Array = npt.NDArray[np.uint8]

PAD_VALUE = 114  # grey level of the padding (about the mean of natural images), in 0..255


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
        return self.to_original(boxes).clamp(min=0).minimum(limit)

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
