"""Masks on their way through augmentation: small bitmaps and where each lies in the picture.

So that 260 nuclei cost 260 small windows, not 260 pictures.  Every operation gives, bit for bit, what it would give on
masks of the whole picture; the bitmaps stay as small as their masks, so that bounds cost nothing.

Letters for dimensions: N masks, H and W pixels of the picture, h and w of one bitmap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from detseg.ops.letterbox import nearest_pixels
from detseg.ops.masks import decode_part
from detseg.structures import BoolArray, FloatArray, InstanceMasks, IntArray, UInt8Array

MAX_LAYER = 255
"""So many masks fit into one layer of uint8."""


@dataclass(frozen=True, eq=False)
class CroppedMasks:
    """N masks of one picture.

    Attributes:
        hw: height and width of the picture, pixels.
        parts: N bitmaps (h, w) uint8, 1 inside, with a pixel of the mask on each of their four sides; of an empty mask
            (0, 0).
        corners: (N, 2) int64, row and column of the upper left pixel of each.
        full_areas: (N,) float64, the pixels that each mask would have if no picture's border had cut it.
    """

    hw: tuple[int, int]
    parts: tuple[UInt8Array, ...]
    corners: IntArray
    full_areas: FloatArray

    @classmethod
    def decoded(cls, masks: InstanceMasks) -> CroppedMasks:
        """Masks from run lengths; none is ever there at the size of the picture."""
        found = [decode_part(counts, masks.hw) for counts in masks.counts]
        corners = np.array([corner for _, corner in found], dtype=np.int64).reshape(-1, 2)
        parts = tuple(part for part, _ in found)
        return cls(masks.hw, parts, corners, _areas(parts).astype(np.float64))

    @classmethod
    def joined(cls, several: Sequence[CroppedMasks]) -> CroppedMasks:
        """The masks of several pictures of one size, one after the other.

        Raises:
            ValueError: the sizes differ.
        """
        hw = several[0].hw
        if any(masks.hw != hw for masks in several):
            raise ValueError(f"masks are joined for one size of picture, got {[masks.hw for masks in several]}")
        return cls(
            hw,
            tuple(part for masks in several for part in masks.parts),
            np.concatenate([masks.corners for masks in several]),
            np.concatenate([masks.full_areas for masks in several]),
        )

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, picked: BoolArray | IntArray) -> CroppedMasks:
        rows = np.arange(len(self))[picked]
        parts = tuple(self.parts[row] for row in rows.tolist())
        return replace(self, parts=parts, corners=self.corners[rows], full_areas=self.full_areas[rows])

    @property
    def sides(self) -> IntArray:
        """(N, 2) int64, height and width of each bitmap, pixels."""
        return np.array([part.shape for part in self.parts], dtype=np.int64).reshape(-1, 2)

    @property
    def boxes(self) -> npt.NDArray[np.float32]:
        """(N, 4) float32 xyxy, the bounds of each mask; without an area for an empty one."""
        return np.concatenate([self.corners, self.corners + self.sides], axis=1)[:, [1, 0, 3, 2]].astype(np.float32)

    @property
    def areas(self) -> IntArray:
        """(N,) int64 pixels."""
        return _areas(self.parts)

    def dense(self) -> BoolArray:
        """(N, H, W) bool, all masks in full: mind the memory."""
        masks = np.zeros((len(self), *self.hw), dtype=np.bool_)
        for mask, part, (top, left) in zip(masks, self.parts, self.corners.tolist(), strict=True):
            mask[top : top + part.shape[0], left : left + part.shape[1]] = part
        return masks

    def uncut(self) -> CroppedMasks:
        """The same masks, from now on taken for whole ones."""
        return replace(self, full_areas=self.areas.astype(np.float64))

    def cropped(self, window: tuple[int, int, int, int]) -> CroppedMasks:
        """What lies in a window (x1, y1, x2, y2) of the picture, in pixels; the window is the new picture."""
        x1, y1, x2, y2 = window
        parts = []
        for part, (top, left) in zip(self.parts, self.corners.tolist(), strict=True):
            parts.append(part[max(y1 - top, 0) : max(y2 - top, 0), max(x1 - left, 0) : max(x2 - left, 0)])
        corners = np.maximum(self.corners - (y1, x1), 0)
        return _tight((y2 - y1, x2 - x1), parts, corners, self.full_areas)

    def placed(self, hw: tuple[int, int], top: int, left: int) -> CroppedMasks:
        """The masks in a larger picture, in which this one begins at row ``top`` and column ``left``."""
        return replace(self, hw=hw, corners=self.corners + np.array([top, left]))

    def flipped(self, *, horizontal: bool, vertical: bool) -> CroppedMasks:
        """Mirrored left to right, top to bottom, or both."""
        step = (-1 if vertical else 1, -1 if horizontal else 1)
        mirrored = np.array(self.hw) - self.corners - self.sides
        return replace(
            self,
            parts=tuple(np.ascontiguousarray(part[:: step[0], :: step[1]]) for part in self.parts),
            corners=np.where([vertical, horizontal], mirrored, self.corners),
        )

    def resized(self, hw: tuple[int, int]) -> CroppedMasks:
        """The masks of the picture resized to ``hw``, each pixel from where `ops.letterbox.resize_labels` takes it."""
        if hw == self.hw:
            return self
        rows, columns = nearest_pixels(self.hw[0], hw[0]), nearest_pixels(self.hw[1], hw[1])
        ends = self.corners + self.sides
        first = np.stack([rows.searchsorted(self.corners[:, 0]), columns.searchsorted(self.corners[:, 1])], axis=1)
        last = np.stack([rows.searchsorted(ends[:, 0]), columns.searchsorted(ends[:, 1])], axis=1)
        parts = []
        for part, (top, left), (y1, x1), (y2, x2) in zip(
            self.parts, self.corners.tolist(), first.tolist(), last.tolist(), strict=True
        ):
            parts.append(part.take(rows[y1:y2] - top, axis=0).take(columns[x1:x2] - left, axis=1))
        scale = hw[0] * hw[1] / (self.hw[0] * self.hw[1])
        return _tight(hw, parts, first, self.full_areas * scale)

    def resampled(
        self,
        resample: Callable[[UInt8Array], UInt8Array],
        reach: npt.NDArray[np.floating],
        scale: float,
        hw: tuple[int, int],
    ) -> CroppedMasks:
        """Every mask after a change of the whole picture that takes each pixel from one other place.

        The masks go through it together, painted into as few pictures as their overlaps allow: OpenCV's arithmetic
        depends on the place in the picture, so windows apart would not give the same pixels.

        Args:
            resample: (H, W) uint8 → (*hw) uint8, by nearest neighbour, 0 where the picture shows nothing.
            reach: (N, 4) xyxy in pixels; nothing of a mask can come to lie more than 2 pixels outside of its row.
            scale: by how much the change enlarges areas.
            hw: height and width of the new picture, pixels.
        """
        low = np.clip(np.floor(reach[:, [1, 0]]) - 2, 0, hw).astype(np.int64)
        high = np.clip(np.ceil(reach[:, [3, 2]]) + 2, 0, hw).astype(np.int64)
        windows = np.concatenate([low, high], axis=1).tolist()
        parts = list(self.parts)
        for layer, members in self._layers():
            changed = resample(layer)
            for value, row in enumerate(members, start=1):
                y1, x1, y2, x2 = windows[row]
                parts[row] = (changed[y1:y2, x1:x2] == value).view(np.uint8)
        return _tight(hw, parts, low, self.full_areas * scale)

    def _layers(self) -> Iterator[tuple[UInt8Array, list[int]]]:
        """All masks in as many (H, W) maps as their overlaps ask for, value k for the k-th of the masks listed."""
        layers: list[tuple[UInt8Array, list[int]]] = []
        for row, (part, (top, left)) in enumerate(zip(self.parts, self.corners.tolist(), strict=True)):
            inside = part.view(np.bool_)
            window = (slice(top, top + part.shape[0]), slice(left, left + part.shape[1]))
            for layer, members in layers:
                if len(members) < MAX_LAYER and not layer[window][inside].any():
                    break
            else:
                layer, members = np.zeros(self.hw, dtype=np.uint8), []
                layers.append((layer, members))
            members.append(row)
            layer[window][inside] = len(members)
        return iter(layers)


def _areas(parts: Sequence[UInt8Array]) -> IntArray:
    return np.array([cv2.countNonZero(part) if part.size else 0 for part in parts], dtype=np.int64)


def _tight(hw: tuple[int, int], parts: Sequence[UInt8Array], corners: IntArray, full_areas: FloatArray) -> CroppedMasks:
    """The masks with bitmaps as small as they can be."""
    bounds = [cv2.boundingRect(part) if part.size else (0, 0, 0, 0) for part in parts]  # x, y, width, height
    small = tuple(
        np.ascontiguousarray(part[y : y + height, x : x + width])
        for part, (x, y, width, height) in zip(parts, bounds, strict=True)
    )
    shifts = np.array([(y, x) for x, y, _, _ in bounds], dtype=np.int64).reshape(-1, 2)
    return CroppedMasks(hw, small, corners + shifts, full_areas)


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
