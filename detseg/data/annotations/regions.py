"""Regions of pixels from polygons and run lengths, filled exactly as pycocotools fills them.

Run lengths (RLE) are those of `detseg.ops.masks`.

Letters for dimensions: T regions, P polygons, V numbers (x and y of every corner), H and W pixels.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.data.annotations.filled import surely_filled
from detseg.data.annotations.ragged import THREADS, pick_rows, running_total
from detseg.messages import shown
from detseg.ops.masks import encode_edges, run_lengths
from detseg.structures import BoolArray, FloatArray, InstanceMasks, IntArray, UInt8Array

LARGEST = 1e15
"""Numbers beyond this are no pixels; up to it, float64 holds every whole number."""

MAX_COORDINATE = 1e6
"""Corners farther from the image's corner than this, in pixels, are taken for mistakes."""

_POLYGONS = "expected a list of polygons [[x, y, x, y, ...], ...]"

_HUNDREDTHS = 100
"""Of a pixel: COCO states its corners in them, and a whole number of them takes half the memory of the fraction."""

_LOT = 1 << 12
"""Polygons that are looked at together."""

Coordinates = npt.NDArray[np.int32] | FloatArray


def are_numbers(values: Iterable[object]) -> bool:
    """Whether all values are numbers that can be pixels; true and false are none."""
    return all(
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST  # NaN is not less
        for value in values
    )


def compact(pixels: FloatArray) -> Coordinates:
    """Coordinates up to ``MAX_COORDINATE`` in hundredths where these are the very same numbers, else as they are."""
    hundredths = np.rint(pixels * _HUNDREDTHS)
    if np.array_equal(hundredths / _HUNDREDTHS, pixels):
        return hundredths.astype(np.int32)
    return pixels


def in_pixels(coordinates: Coordinates) -> FloatArray:
    """What ``compact`` was given."""
    pixels: FloatArray = (
        coordinates / _HUNDREDTHS if coordinates.dtype == np.int32 else coordinates.astype(float, copy=False)
    )
    return pixels


@dataclass(frozen=True)
class PackedRegions:
    """T regions in a few arrays; each is either polygons or compressed run lengths.

    Attributes:
        coordinates: (V,) x, y, x, y, ...: float64 pixels, or int32 hundredths of them.
        polygon_offsets: (P + 1,) int64; polygon p is ``coordinates[polygon_offsets[p]:polygon_offsets[p + 1]]``.
        region_offsets: (T + 1,) int64; the polygons of region t are ``region_offsets[t]`` to ``region_offsets[t + 1]``.
        rle_bytes: uint8, the compressed run lengths one after the other.
        rle_offsets: (T + 1,) int64, where those of each region begin and end; nothing for polygons.
    """

    coordinates: Coordinates
    polygon_offsets: IntArray
    region_offsets: IntArray
    rle_bytes: UInt8Array
    rle_offsets: IntArray

    def __len__(self) -> int:
        return len(self.region_offsets) - 1

    def masks(self, rows: range, hw: tuple[int, int]) -> InstanceMasks:
        """Some regions as masks; polygons are filled, the parts of a region united.

        Args:
            rows: which regions, all of one image.
            hw: height and width of that image in pixels.
        """
        return InstanceMasks(hw, tuple(self._counts(row, hw) for row in rows))

    def select(self, rows: Sequence[int] | IntArray) -> PackedRegions:
        """Some of the regions, in the given order."""
        rows = np.asarray(rows, dtype=np.int64)
        polygons, region_offsets = pick_rows(np.arange(len(self.polygon_offsets) - 1), self.region_offsets, rows)
        corners = self.coordinates.view(np.int64 if self.coordinates.dtype == np.int32 else np.complex128)
        picked, corner_offsets = pick_rows(corners, self.polygon_offsets // 2, polygons)
        rle_bytes, rle_offsets = pick_rows(self.rle_bytes, self.rle_offsets, rows)
        coordinates = picked.view(self.coordinates.dtype)
        return PackedRegions(coordinates, 2 * corner_offsets, region_offsets, rle_bytes, rle_offsets)

    def are_empty(self, sizes: IntArray) -> BoolArray:
        """(T,) bool, which regions have no pixel.

        Args:
            sizes: (T, 2) int64, height and width in pixels of the image of each.
        """
        polygon_sizes = np.repeat(sizes, np.diff(self.region_offsets), axis=0)
        filled = np.zeros(len(polygon_sizes), dtype=np.bool_)

        def fill(first: int) -> None:
            lot = slice(first, min(first + _LOT, len(filled)))
            offsets = self.polygon_offsets[lot.start : lot.stop + 1]
            numbers = in_pixels(self.coordinates[offsets[0] : offsets[-1]])
            filled[lot] = surely_filled(numbers, offsets - offsets[0], polygon_sizes[lot])

        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(fill, range(0, len(filled), _LOT)))
        num_filled = running_total(filled)
        empty: BoolArray = num_filled[self.region_offsets[1:]] == num_filled[self.region_offsets[:-1]]
        # Run lengths of more than one run have a pixel: there are no empty runs but the first.
        ends = np.flatnonzero((self.rle_bytes - 48) & 32 == 0)
        empty &= np.diff(np.searchsorted(ends, self.rle_offsets)) < 2
        for row in np.flatnonzero(empty).tolist():
            hw = int(sizes[row, 0]), int(sizes[row, 1])
            empty[row] = not self.masks(range(row, row + 1), hw).areas[0]
        return empty

    def polygons(self, index: int) -> list[list[float]]:
        """The polygons of one region; none where it is run lengths."""
        first, last = int(self.region_offsets[index]), int(self.region_offsets[index + 1])
        return [
            in_pixels(self.coordinates[a:b]).tolist()
            for a, b in pairwise(self.polygon_offsets[first : last + 1].tolist())
        ]

    def stated_counts(self, index: int) -> bytes:
        """The compressed run lengths of one region; empty where it is polygons."""
        return self.rle_bytes[self.rle_offsets[index] : self.rle_offsets[index + 1]].tobytes()

    def _counts(self, index: int, hw: tuple[int, int]) -> bytes:
        from pycocotools import mask

        stated = self.stated_counts(index)
        return stated or bytes(mask.merge(mask.frPyObjects(self.polygons(index), *hw))["counts"])


class RegionsBuilder:
    """Collects regions one by one, as COCO files state them, and packs them."""

    def __init__(self) -> None:
        self._coordinates = array("d")
        self._polygon_lengths: list[int] = []
        self._num_polygons: list[int] = []
        self._rles: list[bytes] = []

    def append(self, segmentation: object, hw: tuple[int, int]) -> None:
        """Add one region.

        Args:
            segmentation: a list of polygons ``[x, y, x, y, ...]``, or ``{"size": [H, W], "counts": ...}`` with run
                lengths as a list or as a compressed string.
            hw: height and width of its image in pixels.

        Raises:
            ValueError: it is neither, or cannot be filled.
        """
        if isinstance(segmentation, dict):
            self._add([], compressed_counts(segmentation, hw))
            return
        if not isinstance(segmentation, list) or not segmentation:
            raise ValueError(f"expected polygons or run lengths, got {shown(segmentation)}")
        if all(isinstance(value, int | float) for value in segmentation):
            raise ValueError(f"{_POLYGONS}, got one flat list of numbers; put it in brackets")
        for polygon in segmentation:
            _check_polygon(polygon)
        self._add(segmentation, b"")

    def _add(self, polygons: list[list[float]], counts: bytes) -> None:
        for polygon in polygons:
            self._coordinates.extend(polygon)
            self._polygon_lengths.append(len(polygon))
        self._rles.append(counts)
        self._num_polygons.append(len(polygons))

    def build(self) -> PackedRegions:
        """Everything appended so far, packed."""
        return PackedRegions(
            coordinates=compact(np.array(self._coordinates, dtype=np.float64) + 0.0),  # of two zeros one is left
            polygon_offsets=running_total(self._polygon_lengths),
            region_offsets=running_total(self._num_polygons),
            rle_bytes=np.frombuffer(b"".join(self._rles), dtype=np.uint8),
            rle_offsets=running_total([len(text) for text in self._rles]),
        )


def _check_polygon(polygon: object) -> None:
    if isinstance(polygon, list) and polygon and all(isinstance(point, list) for point in polygon):
        raise ValueError(f"{_POLYGONS}, got one of points [[x, y], ...]; write its numbers one after the other")
    if not isinstance(polygon, list) or not all(isinstance(value, int | float) for value in polygon):
        raise ValueError(f"{_POLYGONS}, got {shown(polygon)} in it")
    if len(polygon) < 6 or len(polygon) % 2:
        raise ValueError(f"a polygon needs x and y of at least 3 corners, got {len(polygon)} numbers")
    if not are_numbers(polygon) or max(map(abs, polygon)) > MAX_COORDINATE:
        raise ValueError(f"corners of a polygon lie more than {MAX_COORDINATE:.0f} pixels away, or nowhere")


def compressed_counts(rle: dict[str, Any], hw: tuple[int, int]) -> bytes:
    """The compressed run lengths of a region, after a check that they fill the image: pycocotools trusts them."""
    if rle.get("size") != list(hw):
        raise ValueError(
            f"size: expected that of the image, [height, width] = {list(hw)}, got {shown(rle.get('size'))}"
        )
    given, counts = rle.get("counts"), None
    if isinstance(given, str) and given.isascii():
        counts = run_lengths(given.encode())
    elif isinstance(given, list) and set(map(type, given)) == {int} and min(given) > -(2**31) and max(given) < 2**31:
        counts = np.array(given, dtype=np.int64)
    if counts is None:
        raise ValueError(
            f"counts: expected run lengths, a list of whole numbers or a compressed string, got {shown(given)}"
        )
    if (counts < 0).any() or counts.sum() != hw[0] * hw[1]:
        raise ValueError(f"counts: the run lengths must add up to {hw[0]} x {hw[1]} pixels, got {int(counts.sum())}")
    if not counts[1:].all():
        return _without_empty_runs(counts)
    if isinstance(given, str):
        return given.encode()
    from pycocotools import mask

    return bytes(mask.frPyObjects(rle, *hw)["counts"])  # as ``compressed`` does it, in a tenth of the time


def _without_empty_runs(counts: IntArray) -> bytes:
    """The same mask with runs of no pixels joined with their neighbours: pycocotools finds wrong bounds with them."""
    ends = np.cumsum(counts)
    kept = (np.arange(len(counts)) % 2 == 1) & (counts > 0)
    return encode_edges(np.stack([(ends - counts)[kept], ends[kept]], axis=1).ravel(), int(counts.sum()))
