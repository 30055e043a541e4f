"""COCO's segmentations (Lin et al. 2014): polygons, or the run lengths (RLE) of `detseg.ops.masks`.

They stay text in the annotation file until an image is used, and are filled exactly as pycocotools fills them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from detseg.data.annotations.shared import SharedArrays
from detseg.errors import DataError
from detseg.messages import shown
from detseg.ops.masks import encode_edges, run_lengths
from detseg.structures import InstanceMasks, IntArray

LARGEST = 1e15
"""Numbers beyond this are no pixels; up to it, float64 holds every whole number."""

_MAX_COORDINATE = 1e6
"""Corners of polygons farther from the image's corner than this, in pixels, are taken for mistakes."""

_POLYGONS = "expected a list of polygons [[x, y, x, y, ...], ...]"


def file_version(file: BinaryIO) -> tuple[int, int]:
    """Size in bytes of an open file, and when it was last changed, in nanoseconds."""
    state = os.fstat(file.fileno())
    return state.st_size, state.st_mtime_ns


@dataclass(frozen=True, eq=False)
class Segmentations(SharedArrays):
    """Where the segmentations of T objects lie in an annotation file, which every use opens again, for any thread.

    Attributes:
        file: JSON in UTF-8.
        version: of the file, as `file_version` gives it.
        annotation_ids: (T,) int64, for messages.
        starts: (T,) int64, the position in the file of the first byte of each.
        lengths: (T,) int64, bytes of each; 0 where an annotation has no segmentation.
    """

    file: Path
    version: tuple[int, int]
    annotation_ids: IntArray
    starts: IntArray
    lengths: IntArray

    def __len__(self) -> int:
        return len(self.starts)

    def masks(self, rows: range, hw: tuple[int, int]) -> InstanceMasks:
        """The masks of some objects; the polygons of an object are united.

        Args:
            rows: which objects, all of one image.
            hw: height and width of that image in pixels.

        Raises:
            DataError: a segmentation is missing or wrong, or the file has changed since it was read.
        """
        counts: list[bytes] = []
        for row, text in zip(rows, self.texts(rows), strict=True):
            try:
                counts.append(region_counts(msgspec.json.decode(text or b"null"), hw))
            except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
                raise DataError(
                    f"{self.file}: annotation {self.annotation_ids[row]}: segmentation: {error}; "
                    "fix it, or remove the annotation"
                ) from None
        return InstanceMasks(hw, tuple(counts))

    def texts(self, rows: Iterable[int]) -> Iterator[bytes]:
        """The segmentations of some objects as the file has them; raises a DataError if it has changed, or is gone."""
        try:
            with self.file.open("rb", buffering=0) as file:
                if file_version(file) != self.version:
                    raise DataError(f"{self.file}: the annotation file changed while it was in use; start again")
                for row in rows:
                    file.seek(int(self.starts[row]))
                    yield file.read(int(self.lengths[row]))
        except OSError as error:
            raise DataError(f"{self.file}: cannot read the annotation file: {error.strerror}") from None

    def select(self, rows: IntArray) -> Segmentations:
        """Those of some objects, in the given order."""
        return replace(
            self, annotation_ids=self.annotation_ids[rows], starts=self.starts[rows], lengths=self.lengths[rows]
        )


def region_counts(segmentation: object, hw: tuple[int, int]) -> bytes:
    """The compressed run lengths of one segmentation.

    Args:
        segmentation: a list of polygons ``[x, y, x, y, ...]``, or ``{"size": [H, W], "counts": ...}`` with run lengths
            as a list or as a compressed string.
        hw: height and width of its image in pixels.

    Raises:
        ValueError: it is neither, or cannot be filled.
    """
    if isinstance(segmentation, dict):
        return _rle_counts(segmentation, hw)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(f"expected polygons or run lengths, got {shown(segmentation)}")
    if all(isinstance(value, int | float) for value in segmentation):
        raise ValueError(f"{_POLYGONS}, got one flat list of numbers; put it in brackets")
    for polygon in segmentation:
        _check_polygon(polygon)
    from pycocotools import mask

    return bytes(mask.merge(mask.frPyObjects(segmentation, *hw))["counts"])


def _check_polygon(polygon: object) -> None:
    if isinstance(polygon, list) and polygon and all(isinstance(point, list) for point in polygon):
        raise ValueError(f"{_POLYGONS}, got one of points [[x, y], ...]; write its numbers one after the other")
    if not isinstance(polygon, list) or not set(map(type, polygon)) <= {int, float}:
        raise ValueError(f"{_POLYGONS}, got {shown(polygon)} in it")
    if len(polygon) < 6 or len(polygon) % 2:
        raise ValueError(f"a polygon needs x and y of at least 3 corners, got {len(polygon)} numbers")
    if not all(-_MAX_COORDINATE <= value <= _MAX_COORDINATE for value in polygon):  # NaN is not
        raise ValueError(f"corners of a polygon lie more than {_MAX_COORDINATE:.0f} pixels away, or nowhere")


def _rle_counts(rle: dict[str, Any], hw: tuple[int, int]) -> bytes:
    """Compressed run lengths, after a check that they fill the image: pycocotools trusts them."""
    size, given, counts = rle.get("size"), rle.get("counts"), None
    if size != list(hw):
        raise ValueError(f"size: expected that of the image, [height, width] = {list(hw)}, got {shown(size)}")
    if isinstance(given, str) and given.isascii():
        counts = run_lengths(given.encode())
    elif isinstance(given, list) and set(map(type, given)) == {int} and min(given) > -(2**31) and max(given) < 2**31:
        counts = np.array(given, dtype=np.int64)
    if counts is None:
        what = "run lengths, a list of whole numbers or a compressed string"
        raise ValueError(f"counts: expected {what}, got {shown(given)}")
    if (counts < 0).any() or counts.sum() != hw[0] * hw[1]:
        raise ValueError(f"counts: the run lengths must add up to {hw[0]} x {hw[1]} pixels, got {int(counts.sum())}")
    if isinstance(given, str) and counts[1:].all():
        return given.encode()
    # Runs of no pixels are joined with their neighbours: pycocotools finds wrong bounds with them.
    ends = np.cumsum(counts)
    kept = (np.arange(len(counts)) % 2 == 1) & (counts > 0)
    return encode_edges(np.stack([(ends - counts)[kept], ends[kept]], axis=1).ravel(), int(counts.sum()))
