"""Masks as run lengths, COCO's way, and the pasting of a network's small grids into them.

Run lengths (RLE, Lin et al. 2014) count the pixels of a mask column by column, first those outside, then those inside,
and so on; the compressed form is a short string of bytes, exactly that of pycocotools.  A mask of an image of 12
megapixels takes kilobytes in this form.

Letters for dimensions: N masks, H and W pixels of the image, M cells along a side of a grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

BLOCK_PIXELS = 1 << 20
"""A grid is pasted in blocks of about so many pixels, so that its memory does not grow with the object."""


class Rle(TypedDict):
    """A mask as pycocotools takes it: height and width, and the compressed run lengths."""

    size: list[int]
    counts: bytes


def encode_mask(mask: npt.NDArray[np.bool_] | npt.NDArray[np.uint8]) -> bytes:
    """(H, W) bool, or uint8 that is 0 outside, → compressed run lengths."""
    return encode_part(mask, (0, 0), (mask.shape[0], mask.shape[1]))


def encode_part(
    part: npt.NDArray[np.bool_] | npt.NDArray[np.uint8], corner: tuple[int, int], hw: tuple[int, int]
) -> bytes:
    """The run lengths of a mask of which only a part is at hand; nothing lies outside of it.

    Args:
        part: (h, w) bool, or uint8 that is 0 outside.
        corner: row and column of its upper left pixel in the image.
        hw: height and width of the image, pixels.

    Raises:
        ValueError: the part reaches beyond the image.
    """
    top, left = corner
    height, width = part.shape
    if min(corner) < 0 or top + height > hw[0] or left + width > hw[1]:
        raise ValueError(f"a part of {height} x {width} at row {top}, column {left} is not inside {hw[0]} x {hw[1]}")
    # Column by column, each closed by a pixel outside, so that runs never reach from one column into the next one ...
    columns = np.zeros((width, height + 1), dtype=np.int8)
    columns[:, :height] = np.asarray(part != 0).T
    edges = np.flatnonzero(np.diff(columns.ravel(), prepend=np.int8(0)))
    column, row = np.divmod(edges, height + 1)
    position = (left + column) * hw[0] + top + row
    # ... unless the column goes on where the next one begins: there the two edges are one place, and none.
    joined = np.flatnonzero(position[1:-1:2] == position[2::2]) * 2 + 1
    position = np.delete(position, np.concatenate([joined, joined + 1]))
    counts = np.diff(position, prepend=0, append=hw[0] * hw[1]).tolist()
    if len(counts) > 1 and counts[-1] == 0:
        counts.pop()  # the mask ends at the last pixel
    return _compress(counts, hw)


def decode_mask(counts: bytes, hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Compressed run lengths → (H, W) uint8, 1 inside."""
    from pycocotools import mask

    return np.asarray(mask.decode(_rle(counts, hw)), dtype=np.uint8)


def mask_areas(masks: Sequence[bytes], hw: tuple[int, int]) -> npt.NDArray[np.int64]:
    """(N,) int64, the pixels inside each mask."""
    from pycocotools import mask

    # One by one: pycocotools 2.0.11 cannot count more than 255 at once.
    return np.array([int(mask.area(_rle(counts, hw))) for counts in masks], dtype=np.int64)


def mask_bounds(masks: Sequence[bytes], hw: tuple[int, int]) -> npt.NDArray[np.float64]:
    """(N, 4) float64 xyxy, the smallest box around each mask, half-open; zeros for an empty one."""
    from pycocotools import mask

    boxes = np.array([mask.toBbox(_rle(counts, hw)) for counts in masks], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def paste_grid(grid: npt.NDArray[np.float32], region: Sequence[float], hw: tuple[int, int], threshold: float) -> bytes:
    """Spread a grid of probabilities over a region of an image, and keep the pixels of at least a threshold.

    Each cell has its value at its centre; between centres it is interpolated linearly along both axes, towards zeros
    outside the grid.  A pixel counts by the value at its centre (He et al. 2017, section 3: "the m × m floating-number
    mask output is then resized to the RoI size, and binarized at a threshold of 0.5").

    Args:
        grid: (M, M) float32 in [0, 1].
        region: x1, y1, x2, y2 in pixels of the image, the outer edges of the grid; may reach beyond the image.
        hw: height and width of the image, pixels.
        threshold: in (0, 1].

    Returns:
        compressed run lengths of the image's size.
    """
    x1, y1, x2, y2 = (float(value) for value in region)
    columns = _covered(x1, x2, grid.shape[1], hw[1])
    rows = _covered(y1, y2, grid.shape[0], hw[0])
    across = _weights(columns, x1, x2, grid.shape[1])  # w M
    down = _weights(rows, y1, y2, grid.shape[0])  # h M
    part = np.zeros((len(rows), len(columns)), dtype=np.bool_)
    values = grid @ across.T  # M w
    step = max(BLOCK_PIXELS // max(len(columns), 1), 1)
    for start in range(0, len(rows), step):
        part[start : start + step] = down[start : start + step] @ values >= threshold
    return encode_part(part, (rows.start, columns.start), hw)


def _covered(low: float, high: float, cells: int, side: int) -> range:
    """The pixels along one axis that a region of ``cells`` cells and the half cell around it can reach."""
    margin = (high - low) / cells / 2
    start = min(max(math.floor(low - margin), 0), side)
    return range(start, max(min(math.ceil(high + margin), side), start))


def _weights(pixels: range, low: float, high: float, cells: int) -> npt.NDArray[np.float32]:
    """(pixels, cells) float32: how much of each cell's value each pixel takes, by linear interpolation of centres."""
    centers = np.arange(pixels.start, pixels.stop, dtype=np.float64) + 0.5
    places = (centers - low) * (cells / max(high - low, 1e-9)) - 0.5
    weights: npt.NDArray[np.float32] = np.maximum(1 - np.abs(places[:, None] - np.arange(cells)), 0).astype(np.float32)
    return weights


def _compress(counts: list[int], hw: tuple[int, int]) -> bytes:
    from pycocotools import mask

    return bytes(mask.frPyObjects({"size": list(hw), "counts": counts}, *hw)["counts"])


def _rle(counts: bytes, hw: tuple[int, int]) -> Rle:
    return {"size": list(hw), "counts": counts}
