"""The masks of the objects of one image as run lengths.

Letters for dimensions: N objects, H and W pixels of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detseg.ops.masks import decode_mask, decode_part, encode_mask, mask_areas, mask_bounds
from detseg.structures.conventions import BoolArray, FloatArray, IntArray, UInt8Array


@dataclass(frozen=True)
class InstanceMasks:
    """N masks of one image as compressed run lengths (see `detseg.ops.masks`), kilobytes each.

    Attributes:
        hw: height and width of the image, pixels.
        counts: the compressed run lengths of each mask.
    """

    hw: tuple[int, int]
    counts: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.counts)

    def select(self, positions: Sequence[int] | IntArray) -> InstanceMasks:
        """The masks at some positions, in that order."""
        return InstanceMasks(self.hw, tuple(self.counts[int(i)] for i in positions))

    def mask(self, index: int) -> BoolArray:
        """(H, W) bool, one mask at the size of the image."""
        decoded: BoolArray = decode_mask(self.counts[index], self.hw).view(np.bool_)
        return decoded

    def part(self, index: int) -> tuple[BoolArray, tuple[int, int]]:
        """The smallest part that holds one whole mask, (h, w) bool, and row and column of its upper left pixel; (0, 0)
        for an empty mask."""
        part, corner = decode_part(self.counts[index], self.hw)
        return part.view(np.bool_), corner

    def dense(self) -> BoolArray:
        """(N, H, W) bool, all masks at the size of the image; takes N · H · W bytes."""
        masks = np.zeros((len(self), *self.hw), dtype=np.bool_)
        for i in range(len(self)):
            masks[i] = self.mask(i)
        return masks

    @property
    def areas(self) -> IntArray:
        """(N,) int64 pixels."""
        return mask_areas(self.counts)

    @property
    def boxes(self) -> FloatArray:
        """(N, 4) float64 xyxy, the smallest box around each mask; zeros for an empty mask."""
        return mask_bounds(self.counts, self.hw)

    @classmethod
    def from_dense(cls, masks: BoolArray | UInt8Array) -> InstanceMasks:
        """(N, H, W) bool, or uint8 that is 0 outside, → run lengths; another shape is a ValueError."""
        if masks.ndim != 3:
            raise ValueError(f"masks: expected shape (N, H, W), got {masks.shape}")
        return cls((masks.shape[1], masks.shape[2]), tuple(encode_mask(mask) for mask in masks))
