"""The masks of a batch on their way from a worker to the main process: one bit a pixel, in two arrays.

Letters for dimensions: B images, N objects of one image, T objects of all of them, H and W pixels of the network input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detseg.data.cropped_masks import CroppedMasks
from detseg.structures import BoolArray, IntArray, UInt8Array


@dataclass(frozen=True, eq=False)
class PackedMasks:
    """T masks.

    Attributes:
        bits: uint8, the pixels of all bitmaps one after the other, row by row, 8 to a byte.
        windows: (T, 4) int64, where each bitmap lies in its image: row, column, height, width.
    """

    bits: UInt8Array
    windows: IntArray

    def dense(self, hw: tuple[int, int], counts: Sequence[int]) -> list[BoolArray]:
        """The masks in full.

        Args:
            hw: height and width of all images, pixels.
            counts: number of masks of each of the B images.

        Returns:
            B arrays (N, H, W) bool.
        """
        pixels = np.unpackbits(self.bits).view(np.bool_)
        masks = [np.zeros((num, *hw), dtype=np.bool_) for num in counts]
        start = 0
        for mask, (top, left, height, width) in zip(
            (mask for of_image in masks for mask in of_image), self.windows.tolist(), strict=True
        ):
            end = start + height * width
            mask[top : top + height, left : left + width] = pixels[start:end].reshape(height, width)
            start = end
        return masks


def pack_masks(several: Sequence[CroppedMasks]) -> PackedMasks:
    """The masks of B images, at least one, in a row."""
    parts = [part.ravel() for masks in several for part in masks.parts]
    windows = [np.concatenate([masks.corners, masks.sides], axis=1) for masks in several]
    pixels = np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint8)
    return PackedMasks(np.packbits(pixels), np.concatenate(windows))
