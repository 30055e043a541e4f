"""The image that augmentation changes, with everything that moves with it.

Masks of objects are a few maps of ids, which move like semantic maps. Objects that do not overlap have one map
together, so that 260 nuclei are one or two maps, not 260 masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from detseg.errors import DataError
from detseg.ops.masks import run_lengths
from detseg.structures import IGNORE_LABEL, BoolArray, FloatArray, InstanceMasks, IntArray, UInt8Array

IdMap = npt.NDArray[np.integer]  # (H, W) uint8 or uint16: the id of the object at each pixel, 0 where there is none


@dataclass(frozen=True, eq=False)
class InstanceLayers:
    """N masks of one image of H x W pixels."""

    maps: tuple[IdMap, ...]  # (H, W) each; an id occurs in one of them only; empty where there was no object
    ids: IntArray  # (N,) int64, the id of each object; other ids in the maps belong to objects that were dropped
    full_areas: FloatArray  # (N,) float64, the pixels that each mask would have if no border had cut it
    max_id: int  # no id in the maps is larger

    @classmethod
    def from_run_lengths(cls, masks: InstanceMasks) -> InstanceLayers:
        """Paint masks into as few maps as their overlaps allow: each into the first one where it covers no other."""
        height, width = masks.hw
        dtype = _id_type(len(masks))
        columns: list[IdMap] = []  # each map column by column, as run lengths count
        areas = []
        for new_id, counts in enumerate(masks.counts, start=1):
            lengths = run_lengths(counts)
            inside = np.repeat(np.arange(1, len(lengths)) % 2 == 1, lengths[1:])  # from the first pixel of the mask on
            window = slice(int(lengths[0]), int(lengths[0]) + len(inside))
            ids = next((ids for ids in columns if not np.logical_and(ids[window], inside).any()), None)
            if ids is None:
                columns.append(ids := np.zeros(height * width, dtype=dtype))
            ids[window] += inside * dtype.type(new_id)
            areas.append(int(lengths[1::2].sum()))
        maps = tuple(np.asarray(cv2.transpose(ids.reshape(width, height)), dtype=ids.dtype) for ids in columns)
        return cls(maps, np.arange(1, len(masks) + 1), np.array(areas, dtype=np.float64), len(masks))

    @classmethod
    def joined(
        cls, parts: Sequence[InstanceLayers], hw: tuple[int, int], corners: Sequence[tuple[int, int]] | None = None
    ) -> InstanceLayers:
        """The masks of several images, at least one, put together in a new one of height and width ``hw``.

        ``corners``: row and column of each image, which do not overlap; None: all lie at (0, 0), over each other.
        """
        dtype = _id_type(sum(part.max_id for part in parts))
        maps: list[IdMap] = []
        ids, max_id = [], 0
        for part, (top, left) in zip(parts, corners or [(0, 0)] * len(parts), strict=True):
            first = 0 if corners else len(maps)
            for layer, old in enumerate(part.maps, start=first):
                if layer == len(maps):
                    maps.append(np.zeros(hw, dtype=dtype))
                window = maps[layer][top : top + old.shape[0], left : left + old.shape[1]]
                np.add(old, dtype.type(max_id), out=window, where=old > 0, dtype=dtype)
            ids.append(part.ids + max_id)
            max_id += part.max_id
        full_areas = np.concatenate([part.full_areas for part in parts])
        return cls(tuple(maps), np.concatenate(ids), full_areas, max_id)

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: BoolArray | IntArray) -> InstanceLayers:
        """The masks of some objects; ``rows``: (N,) bool, or positions."""
        return replace(self, ids=self.ids[rows], full_areas=self.full_areas[rows])

    def moved(self, move: Callable[[IdMap], IdMap], area_scale: float) -> InstanceLayers:
        """Every map moved by nearest neighbour, 0 where nothing is shown; areas grow by a factor."""
        return replace(self, maps=tuple(map(move, self.maps)), full_areas=self.full_areas * area_scale)

    def measure(self) -> tuple[IntArray, npt.NDArray[np.float32]]:
        """(N,) int64 areas in pixels and (N, 4) float32 xyxy bounds, half-open; zeros where nothing is left."""
        areas = np.zeros(self.max_id + 1, dtype=np.int64)
        boxes = np.zeros((self.max_id + 1, 4), dtype=np.float32)
        for ids in self.maps:
            _measure(ids, areas, boxes)
        return areas[self.ids], boxes[self.ids]

    def mask(self, row: int, window: tuple[slice, slice] = (slice(None), slice(None))) -> BoolArray:
        """One mask, (H, W) bool, or its part in a window of rows and columns."""
        wanted = int(self.ids[row])  # a number of Python: one of numpy would widen the maps
        inside: BoolArray = self.maps[0][window] == wanted
        for ids in self.maps[1:]:
            inside |= ids[window] == wanted
        return inside


def _id_type(max_id: int) -> np.dtype[np.integer]:
    if max_id > np.iinfo(np.uint16).max:
        raise DataError(f"masks: expected at most {np.iinfo(np.uint16).max} objects in an image, got {max_id}")
    return np.dtype(np.uint8 if max_id <= np.iinfo(np.uint8).max else np.uint16)


def _measure(ids: IdMap, areas: IntArray, boxes: npt.NDArray[np.float32]) -> None:
    """Enter the areas and bounds of one map's objects at their ids, by runs of equal ids along the rows."""
    width = ids.shape[1]
    begins = np.ones(ids.shape, dtype=np.bool_)
    np.not_equal(ids[:, 1:], ids[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    values = ids.ravel()[starts]
    lengths = np.diff(starts, append=ids.size)
    inside = np.flatnonzero(values)
    inside = inside[np.argsort(values[inside], kind="stable")]  # object by object, each from top to bottom
    if not len(inside):
        return
    values, lengths, (rows, left) = values[inside], lengths[inside], np.divmod(starts[inside], width)
    first = np.flatnonzero(np.diff(values, prepend=0))
    found = values[first]
    areas[found] = np.add.reduceat(lengths, first)
    boxes[found, 0] = np.minimum.reduceat(left, first)
    boxes[found, 1] = rows[first]
    boxes[found, 2] = np.maximum.reduceat(left + lengths, first)
    boxes[found, 3] = np.append(rows[first[1:] - 1], rows[-1]) + 1


BoxArray = npt.NDArray[np.float32]

MoveLabels = Callable[[npt.NDArray[np.integer], int], npt.NDArray[np.integer]]
"""Moves an (H, W) map of integers by nearest neighbour; the second argument is the value where nothing is shown."""


@dataclass(frozen=True, eq=False)
class AugmentItem:
    """An image of H x W pixels and its N objects or its semantic map."""

    image: UInt8Array  # (H, W, 3) RGB
    boxes: BoxArray  # (N, 4) float32 xyxy, pixels; of objects with masks only `keep_visible` makes them the bounds
    labels: IntArray  # (N,) int64
    ignore: BoolArray  # (N,)
    semantic: UInt8Array | None = None  # (H, W) labels, IGNORE_LABEL where none counts; None in detection
    masks: InstanceLayers | None = None  # N masks of the size of the image; None where only boxes are learned
    num_dropped: int = 0  # objects that the user's own pipeline has removed

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def select(self, rows: BoolArray | IntArray) -> AugmentItem:
        """Some of the objects only; ``rows``: (N,) bool, or positions."""
        masks = None if self.masks is None else self.masks.select(rows)
        return replace(self, boxes=self.boxes[rows], labels=self.labels[rows], ignore=self.ignore[rows], masks=masks)

    def with_image(self, image: UInt8Array, move: MoveLabels, area_scale: float = 1.0) -> AugmentItem:
        """Another (H, W, 3) uint8 image, with the semantic map and masks moved to it, which enlarges areas by a factor;
        the boxes stay."""
        semantic = None if self.semantic is None else np.asarray(move(self.semantic, IGNORE_LABEL), dtype=np.uint8)
        masks = None if self.masks is None else self.masks.moved(lambda ids: move(ids, 0), area_scale)
        return replace(self, image=image, semantic=semantic, masks=masks)
