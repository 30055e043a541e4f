"""Masks as run lengths, and the pasting of a network's small grids into images.

Run lengths (RLE, Lin et al. 2014) are the lengths of the runs of pixels outside and inside a mask in turn, column by
column, beginning outside. Their compressed form is a string of bytes, the same as that of pycocotools.

Letters for dimensions: N masks, R runs, H and W pixels of the image, M cells along a side of a grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_] | npt.NDArray[np.uint8]  # 0 outside
Edges = npt.NDArray[np.int64]

_MOST_CHARACTERS = 7  # of one compressed number
_BLOCK_PIXELS = 1 << 20  # grids are pasted in blocks of about so many, to bound the memory


def encode_mask(mask: Mask) -> bytes:
    """(H, W) mask → compressed run lengths."""
    return encode_part(mask, (0, 0), (mask.shape[0], mask.shape[1]))


def encode_part(part: Mask, corner: tuple[int, int], hw: tuple[int, int]) -> bytes:
    """(h, w) part of a mask that is empty elsewhere → compressed run lengths of the whole mask of size ``hw``.

    ``corner``: row and column of its upper left pixel; ValueError where the part reaches beyond the image.
    """
    top, left = corner
    height, width = part.shape
    if min(corner) < 0 or top + height > hw[0] or left + width > hw[1]:
        raise ValueError(f"a part of {height} x {width} at row {top}, column {left} is not inside {hw[0]} x {hw[1]}")
    # A pixel outside the mask follows each column, so that no run reaches into the next one, and one precedes all.
    pixels = np.zeros(1 + width * (height + 1), dtype=np.bool_)
    np.not_equal(part.T, 0, out=pixels[1:].reshape(width, height + 1)[:, :height])
    edges = np.flatnonzero(pixels[1:] != pixels[:-1])
    column, row = np.divmod(edges, height + 1)
    return encode_edges((left + column) * hw[0] + top + row, hw[0] * hw[1])


def encode_edges(edges: Edges, num_pixels: int) -> bytes:
    """(2R,) ascending begins and ends of R runs inside the mask, in pixels column by column of an image of
    ``num_pixels`` → compressed run lengths; a run may begin where the one before ends."""
    meeting = np.flatnonzero(edges[1:-1:2] == edges[2::2]) * 2 + 1
    edges = np.delete(edges, np.concatenate([meeting, meeting + 1]))
    lengths = np.diff(edges, prepend=0, append=num_pixels)
    # No empty run at the end.
    return compressed(lengths[:-1] if len(lengths) > 1 and lengths[-1] == 0 else lengths)


def decode_mask(counts: bytes, hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Compressed run lengths → (H, W) uint8, 1 inside."""
    return _filled(run_lengths(counts), hw)


def decode_part(counts: bytes, hw: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """The inverse of ``encode_part``: compressed run lengths → the smallest part that holds the whole mask, (h, w)
    uint8, 1 inside, and row and column of its upper left pixel; an empty mask has shape (0, 0) at (0, 0)."""
    begins, ends = _runs_inside(counts)
    left, top, right, bottom = _bounds(begins, ends, hw)
    height, width = bottom - top, right - left
    if not height:
        return np.zeros((0, 0), dtype=np.uint8), (0, 0)
    column, row = np.divmod(np.stack([begins, ends], axis=1).ravel(), hw[0])
    before = (column - left) * height + np.clip(row - top, 0, height)  # pixels of the part before each edge
    lengths = np.diff(before, prepend=0, append=height * width)
    return np.ascontiguousarray(_filled(lengths, (height, width))), (top, left)


def run_lengths(counts: bytes) -> npt.NDArray[np.int64]:
    """Compressed run lengths → (R,) int64 run lengths, beginning outside the mask; ValueError for any other bytes.

    Each character holds 5 bits of a number, the lowest first, and a sixth bit that is set if more follow; the highest
    of the last 5 bits is the sign. From the fourth number on, the difference to the number two before is stored.
    """
    characters = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if not len(characters) or (characters < 0).any() or (characters > 63).any() or characters[-1] & 32:
        raise ValueError("counts: not a string of compressed run lengths, or cut short")
    last = np.flatnonzero(characters & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(characters)) - np.repeat(first, last - first + 1)
    if (place >= _MOST_CHARACTERS).any():
        raise ValueError("counts: a compressed run length is too long")
    numbers = np.add.reduceat((characters & 31) << (5 * place), first)
    numbers -= np.where(characters[last] & 16, 1 << (5 * (place[last] + 1)), 0)
    for every_other in (numbers[1::2], numbers[2::2]):
        np.cumsum(every_other, out=every_other)
    return numbers


def compressed(lengths: npt.NDArray[np.int64]) -> bytes:
    """(R,) int64 run lengths → compressed run lengths; the inverse of ``run_lengths``."""
    rest = np.array(lengths, dtype=np.int64)
    rest[3:] -= lengths[1:-2]
    characters = np.zeros((len(rest), _MOST_CHARACTERS), dtype=np.uint8)
    written = np.zeros(characters.shape, dtype=np.bool_)
    more = np.ones(len(rest), dtype=np.bool_)
    for place in range(_MOST_CHARACTERS):
        written[:, place] = more
        low = rest & 31
        rest >>= 5
        more = more & np.where(low & 16, rest != -1, rest != 0)  # until the sign bit tells the rest
        characters[:, place] = 48 + low + 32 * more
    return characters[written].tobytes()


def mask_areas(masks: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """(N,) int64 pixels inside each mask."""
    return np.array([run_lengths(counts)[1::2].sum() for counts in masks], dtype=np.int64)


def mask_bounds(masks: Sequence[bytes], hw: tuple[int, int]) -> npt.NDArray[np.float64]:
    """(N, 4) float64 xyxy, the smallest half-open box around each mask; zeros for an empty mask."""
    return np.array([_bounds(*_runs_inside(counts), hw) for counts in masks], dtype=np.float64).reshape(-1, 4)


def paste_grid(grid: npt.NDArray[np.float32], region: Sequence[float], hw: tuple[int, int], threshold: float) -> bytes:
    """Resize a grid of probabilities to a region of an image and threshold it (He et al. 2017, section 3).

    Values are interpolated bilinearly between the centres of cells, towards zeros outside the grid, and taken at the
    centres of pixels.  Returns compressed run lengths.

    Args:
        grid: (M, M) float32 in [0, 1].
        region: x1, y1, x2, y2, the outer edges of the grid in pixels of the image; it may extend beyond the image.
        hw: height and width of the image, pixels.
        threshold: smallest probability inside the mask, in (0, 1].
    """
    x1, y1, x2, y2 = (float(value) for value in region)
    columns = _covered(x1, x2, grid.shape[1], hw[1])
    rows = _covered(y1, y2, grid.shape[0], hw[0])
    across = _weights(columns, x1, x2, grid.shape[1])  # w M
    down = _weights(rows, y1, y2, grid.shape[0])  # h M
    part = np.zeros((len(columns), len(rows)), dtype=np.bool_)  # transposed, the order in which it is encoded
    values = (grid @ across.T).T  # w M
    step = max(_BLOCK_PIXELS // max(len(rows), 1), 1)
    for start in range(0, len(columns), step):
        part[start : start + step] = values[start : start + step] @ down.T >= threshold
    return encode_part(part.T, (rows.start, columns.start), hw)


def _covered(low: float, high: float, cells: int, side: int) -> range:
    """The pixels along one axis that a region and half a cell around it cover."""
    margin = (high - low) / cells / 2
    start = min(max(math.floor(low - margin), 0), side)
    return range(start, max(min(math.ceil(high + margin), side), start))


def _weights(pixels: range, low: float, high: float, cells: int) -> npt.NDArray[np.float32]:
    """(pixels, cells) float32 weights of linear interpolation between the centres of cells."""
    centers = np.arange(pixels.start, pixels.stop, dtype=np.float64) + 0.5
    places = (centers - low) * (cells / max(high - low, 1e-9)) - 0.5
    return np.asarray(np.maximum(1 - np.abs(places[:, None] - np.arange(cells)), 0), dtype=np.float32)


def _filled(lengths: npt.NDArray[np.int64], hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    inside = (np.arange(len(lengths)) % 2).astype(np.uint8)
    return np.repeat(inside, lengths).reshape(hw[1], hw[0]).T


def _runs_inside(counts: bytes) -> tuple[Edges, Edges]:
    """Begins and ends of the runs inside a mask, in pixels column by column."""
    ends = np.cumsum(run_lengths(counts))  # of all runs; each begins where the one before ends
    begins, ends = ends[0 : len(ends) // 2 * 2 : 2], ends[1::2]
    return begins[ends > begins], ends[ends > begins]


def _bounds(begins: Edges, ends: Edges, hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """The smallest half-open box around runs, xyxy; zeros if there are none."""
    if not len(ends):
        return 0, 0, 0, 0
    first_column, first_row = np.divmod(begins, hw[0])
    last_column, last_row = np.divmod(ends - 1, hw[0])
    left, right = int(first_column[0]), int(last_column[-1]) + 1
    if (last_column > first_column).any():  # a run over two columns touches bottom and top
        return left, 0, right, hw[0]
    return left, int(first_row.min()), right, int(last_row.max()) + 1
