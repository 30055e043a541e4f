"""Regions of pixels from polygons and run lengths, filled exactly as pycocotools fills them.

Run lengths (RLE) are those of `detseg.ops.masks`.

Letters for dimensions: T regions, P polygons, V numbers (x and y of every corner), H and W pixels.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from detseg.data.numbers import are_numbers
from detseg.data.offsets import running_total
from detseg.errors import shown
from detseg.ops.masks import encode_edges, run_lengths
from detseg.structures import FloatArray, InstanceMasks, IntArray

MAX_COORDINATE = 1e6
"""Corners farther from the image's corner than this, in pixels, are taken for mistakes."""

_POLYGONS = "expected a list of polygons [[x, y, x, y, ...], ...]"


@dataclass(frozen=True)
class PackedRegions:
    """T regions in a few arrays; each is either polygons or compressed run lengths.

    Attributes:
        coordinates: (V,) float64 x, y, x, y, ... in pixels.
        polygon_offsets: (P + 1,) int64; polygon p is ``coordinates[polygon_offsets[p]:polygon_offsets[p + 1]]``.
        region_offsets: (T + 1,) int64; the polygons of region t are ``region_offsets[t]`` to ``region_offsets[t + 1]``.
        rle_bytes: the compressed run lengths one after the other.
        rle_offsets: (T + 1,) int64, where those of each region begin and end; nothing for polygons.
    """

    coordinates: FloatArray
    polygon_offsets: IntArray
    region_offsets: IntArray
    rle_bytes: bytes
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
        builder = RegionsBuilder()
        for row in rows:
            builder.copy(self, int(row))
        return builder.build()

    def polygons(self, index: int) -> list[list[float]]:
        """The polygons of one region; none where it is run lengths."""
        first, last = int(self.region_offsets[index]), int(self.region_offsets[index + 1])
        return [self.coordinates[a:b].tolist() for a, b in pairwise(self.polygon_offsets[first : last + 1].tolist())]

    def stated_counts(self, index: int) -> bytes:
        """The compressed run lengths of one region; empty where it is polygons."""
        return self.rle_bytes[int(self.rle_offsets[index]) : int(self.rle_offsets[index + 1])]

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
            self._add([], _compressed(segmentation, hw))
            return
        if not isinstance(segmentation, list) or not segmentation:
            raise ValueError(f"expected polygons or run lengths, got {shown(segmentation)}")
        if all(isinstance(value, int | float) for value in segmentation):
            raise ValueError(f"{_POLYGONS}, got one flat list of numbers; put it in brackets")
        for polygon in segmentation:
            _check_polygon(polygon)
        self._add(segmentation, b"")

    def copy(self, regions: PackedRegions, index: int) -> None:
        """Add a region that is packed already."""
        self._add(regions.polygons(index), regions.stated_counts(index))

    def _add(self, polygons: list[list[float]], counts: bytes) -> None:
        for polygon in polygons:
            self._coordinates.extend(polygon)
            self._polygon_lengths.append(len(polygon))
        self._rles.append(counts)
        self._num_polygons.append(len(polygons))

    def build(self) -> PackedRegions:
        """Everything appended so far, packed."""
        return PackedRegions(
            coordinates=np.array(self._coordinates, dtype=np.float64),
            polygon_offsets=running_total(self._polygon_lengths),
            region_offsets=running_total(self._num_polygons),
            rle_bytes=b"".join(self._rles),
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


def _compressed(rle: dict[str, Any], hw: tuple[int, int]) -> bytes:
    """The compressed run lengths of a region, after a check that they fill the image: pycocotools trusts them."""
    if rle.get("size") != list(hw):
        raise ValueError(
            f"size: expected that of the image, [height, width] = {list(hw)}, got {shown(rle.get('size'))}"
        )
    given = rle.get("counts")
    if isinstance(given, str) and given.isascii():
        counts, text = run_lengths(given.encode()), given.encode()
    elif isinstance(given, list) and given and all(type(count) is int and abs(count) < 2**31 for count in given):
        counts, text = np.array(given, dtype=np.int64), b""
    else:
        raise ValueError(
            f"counts: expected run lengths, a list of whole numbers or a compressed string, got {shown(given)}"
        )
    if (counts < 0).any() or counts.sum() != hw[0] * hw[1]:
        raise ValueError(f"counts: the run lengths must add up to {hw[0]} x {hw[1]} pixels, got {int(counts.sum())}")
    return text if text and counts[1:].all() else _without_empty_runs(counts)


def _without_empty_runs(counts: IntArray) -> bytes:
    """The same mask with runs of no pixels joined with their neighbours: pycocotools finds wrong bounds with them."""
    ends = np.cumsum(counts)
    kept = (np.arange(len(counts)) % 2 == 1) & (counts > 0)
    return encode_edges(np.stack([(ends - counts)[kept], ends[kept]], axis=1).ravel(), int(counts.sum()))
