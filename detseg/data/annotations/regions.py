"""COCO's segmentations (Lin et al. 2014): polygons, or the run lengths (RLE) of `detseg.ops.masks`."""

from __future__ import annotations

from typing import Any

import numpy as np

from detseg.messages import shown
from detseg.ops.masks import encode_edges, run_lengths

LARGEST = 1e15  # numbers beyond this are no pixels; up to it, float64 holds every whole number

_MAX_COORDINATE = 1e6  # corners of polygons farther from the image's corner than this, pixels, are mistakes

_POLYGONS = "expected a list of polygons [[x, y, x, y, ...], ...]"


def region_counts(segmentation: object, hw: tuple[int, int]) -> bytes:
    """The compressed run lengths of one segmentation, filled exactly as pycocotools fills it.

    It is a list of polygons ``[x, y, x, y, ...]``, or ``{"size": [H, W], "counts": ...}`` with run lengths as a list or
    as a compressed string, in an image of ``hw`` pixels (height, width); a ValueError if it is not.
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
