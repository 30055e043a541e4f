"""Regions of pixels from polygons and run lengths, filled exactly as pycocotools fills them.

Run lengths (RLE) count the pixels column by column, first those outside the region, then those inside, and so on.

Letters for dimensions: T regions, P polygons, V numbers (x and y of every corner), H and W pixels.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypedDict

import numpy as np

from detseg.data.annotations import running_total
from detseg.structures import FloatArray, IntArray, UInt8Array

MAX_COORDINATE = 1e6
"""Corners farther from the image's corner than this, in pixels, are taken for mistakes."""


class Rle(TypedDict):
    """A region as pycocotools takes it: height and width, and the run lengths, compressed."""

    size: list[int]
    counts: bytes


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

    def rle(self, index: int, hw: tuple[int, int]) -> Rle:
        """One region as run lengths; polygons are filled, the parts of a region united.

        Args:
            index: which region.
            hw: height and width of its image in pixels.
        """
        from pycocotools import mask

        text = self.rle_bytes[int(self.rle_offsets[index]) : int(self.rle_offsets[index + 1])]
        if text:
            return {"size": list(hw), "counts": text}
        first, last = int(self.region_offsets[index]), int(self.region_offsets[index + 1])
        edges = self.polygon_offsets[first : last + 1].tolist()
        polygons = [self.coordinates[a:b].tolist() for a, b in pairwise(edges)]
        merged: Rle = mask.merge(mask.frPyObjects(polygons, *hw))
        return merged


def rle_areas(rles: Sequence[Rle]) -> IntArray:
    """Pixels of each region, int64."""
    from pycocotools import mask

    # One by one: pycocotools 2.0.11 cannot count more than 255 at once.
    return np.array([int(mask.area(rle)) for rle in rles], dtype=np.int64)


def rle_mask(rle: Rle) -> UInt8Array:
    """(H, W) uint8, 1 inside the region."""
    from pycocotools import mask

    return np.asarray(mask.decode(rle), dtype=np.uint8)


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
            self._rles.append(_compressed(segmentation, hw))
            self._num_polygons.append(0)
            return
        if not isinstance(segmentation, list) or not segmentation:
            raise ValueError(f"expected polygons or run lengths, got {_short(segmentation)}")
        for polygon in segmentation:
            _check_polygon(polygon)
            self._coordinates.extend(polygon)
            self._polygon_lengths.append(len(polygon))
        self._rles.append(b"")
        self._num_polygons.append(len(segmentation))

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
    if not isinstance(polygon, list) or not all(isinstance(value, int | float) for value in polygon):
        raise ValueError(f"expected polygons [x, y, x, y, ...], got {_short(polygon)}")
    if len(polygon) < 6 or len(polygon) % 2:
        raise ValueError(f"a polygon needs x and y of at least 3 corners, got {len(polygon)} numbers")
    if not math.isfinite(math.fsum(polygon)) or max(map(abs, polygon)) > MAX_COORDINATE:
        raise ValueError(f"corners of a polygon lie more than {MAX_COORDINATE:.0f} pixels away, or nowhere")


def _compressed(rle: dict[str, Any], hw: tuple[int, int]) -> bytes:
    """The compressed run lengths of a region, after a check that they fill the image: pycocotools trusts them."""
    if rle.get("size") != list(hw):
        raise ValueError(
            f"size: expected that of the image, [height, width] = {list(hw)}, got {_short(rle.get('size'))}"
        )
    given = rle.get("counts")
    if isinstance(given, str) and given.isascii():
        counts, text = _decompress(given.encode()), given.encode()
    elif isinstance(given, list) and given and all(type(count) is int and count < 2**31 for count in given):
        from pycocotools import mask

        counts, text = np.array(given, dtype=np.int64), b""
    else:
        raise ValueError(f"counts: expected a list of run lengths or a compressed string, got {_short(given)}")
    if (counts < 0).any() or counts.sum() != hw[0] * hw[1]:
        raise ValueError(f"counts: the run lengths must add up to {hw[0]} x {hw[1]} pixels, got {int(counts.sum())}")
    return text or bytes(mask.frPyObjects({"size": list(hw), "counts": given}, *hw)["counts"])


def _decompress(text: bytes) -> IntArray:
    """The run lengths of a compressed string.

    Each character carries 5 bits of a number, the lowest first, and a sixth that says whether more follow; the highest
    of the last 5 is the sign.  From the fourth number on, the difference to the number two before it is written.
    """
    characters = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if not len(characters) or (characters < 0).any() or (characters > 63).any() or characters[-1] & 32:
        raise ValueError("counts: not a string of compressed run lengths, or cut short")
    last = np.flatnonzero(characters & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(characters)) - np.repeat(first, last - first + 1)
    if (place > 6).any():
        raise ValueError("counts: a compressed run length is too long")
    numbers = np.add.reduceat((characters & 31) << (5 * place), first)
    numbers -= np.where(characters[last] & 16, 1 << (5 * (place[last] + 1)), 0)
    counts = numbers.copy()
    counts[1::2] = np.cumsum(numbers[1::2])
    counts[2::2] = np.cumsum(numbers[2::2])
    return counts


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
