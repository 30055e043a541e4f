"""Label maps of large images by overlapping tiles whose logits are blended, so that no seam shows.

Tiles begin at multiples of the network's coarsest stride, so that each samples the same grid as the whole image would.
Logits near a tile's inner edge come from zero padding in place of the image: they have no weight, and further inside
the weights ramp linearly.  Rows of the image are finished one row of tiles after the other, so that logits are held for
the height of one tile only.

Letters for dimensions: C classes, H and W pixels of the image, h and w pixels of a tile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from detseg.predict.tiles.cuts import Tiling, starts_of
from detseg.structures import Float32Array, UInt8Array


@dataclass(frozen=True, eq=False)
class Span:
    """Where a tile lies along one axis."""

    start: int  # its first pixel
    stop: int  # the one after its last
    weights: Float32Array  # (stop - start,) float32 in [0, 1] of the logits at its pixels; those of all tiles sum to 1

    def __len__(self) -> int:
        return self.stop - self.start


def spans(length: int, tile: int, overlap: int, stride: int) -> list[Span]:
    """Cut an axis of ``length`` pixels into tiles.

    Args:
        length: pixels of the image along the axis; where one tile holds them all, there is one.
        tile: pixels of a tile, a multiple of ``stride``.
        overlap: pixels that neighbours share at least, at most ``tile - stride``.
        stride: every tile starts at a multiple of it.

    Returns:
        Tiles that cover the axis, first to last; the last may be cut short by the end of the image, by less than
        ``stride`` where there are several.
    """
    step = (tile - overlap) // stride * stride
    starts = starts_of(length, tile, overlap, stride)
    stops = [min(start + tile, length) for start in starts]
    shared = tile - step  # at least `overlap`: of it two fifths have no weight, one ramps, two have all the weight
    margin = 2 * shared // 5
    found = []
    total = np.zeros(length, dtype=np.float32)
    for start, stop in zip(starts, stops, strict=True):
        weights = np.ones(stop - start, dtype=np.float32)
        ramp = ((np.arange(stop - start, dtype=np.float32) - margin + 0.5) / max(shared - 2 * margin, 1)).clip(0, 1)
        if start > 0 and shared:
            weights = np.minimum(weights, ramp)
        if stop < length and shared:
            weights = np.minimum(weights, ramp[::-1])
        total[start:stop] += weights
        found.append(Span(start, stop, weights))
    return [Span(span.start, span.stop, span.weights / total[span.start : span.stop]) for span in found]


def label_tiles(
    image: UInt8Array,
    tiling: Tiling,
    logits_of: Callable[[UInt8Array], Float32Array],
    num_classes: int,
    batch_size: int,
    probabilities: bool,
) -> tuple[UInt8Array, npt.NDArray[np.float32] | None]:
    """The class of every pixel of an image at its own scale.

    Memory beyond the image and the network's own: C x h x W float32 logits.

    Args:
        image: (H, W, 3) uint8 RGB.
        tiling: how to cut it.
        logits_of: (B, h, w, 3) uint8 → (B, C, h, w) float32 logits.
        num_classes: C.
        batch_size: how many tiles ``logits_of`` gets at a time.
        probabilities: whether to return them, at 4 C bytes a pixel.

    Returns:
        (H, W) uint8 labels, and (C, H, W) float32 probabilities or None.

    Raises:
        ValueError: the image has no pixels.
    """
    height, width = image.shape[:2]
    if height < 1 or width < 1:
        raise ValueError(f"an image needs at least one pixel, got height {height} and width {width}")
    axes = zip((height, width), tiling.tile_hw, tiling.overlap_hw, strict=True)
    rows, columns = (spans(length, tile, overlap, tiling.stride) for length, tile, overlap in axes)
    labels = np.empty((height, width), dtype=np.uint8)
    class_probs = np.empty((num_classes, height, width), dtype=np.float32) if probabilities else None
    band = np.zeros((num_classes, max(map(len, rows)), width), dtype=np.float32)  # logits of the rows in work
    for row, below in zip(rows, [*(span.start for span in rows[1:]), height], strict=True):
        for group in _batches(columns, batch_size):
            tiles = np.stack([image[row.start : row.stop, column.start : column.stop] for column in group])
            for column, logits in zip(group, logits_of(tiles), strict=True):
                band[:, : len(row), column.start : column.stop] += logits * (row.weights[:, None] * column.weights)
        done = below - row.start  # no later tile reaches these rows
        labels[row.start : below] = band[:, :done].argmax(axis=0)
        if class_probs is not None:
            class_probs[:, row.start : below] = softmax(band[:, :done])
        for plane in band:  # one after the other, since NumPy copies what overlaps
            plane[: len(plane) - done] = plane[done:]
            plane[len(plane) - done :] = 0
    return labels, class_probs


def _batches(columns: list[Span], batch_size: int) -> list[list[Span]]:
    """Runs of at most ``batch_size`` tiles of one width."""
    found = []
    for _, run in groupby(columns, key=len):
        same = list(run)
        found += [same[start : start + batch_size] for start in range(0, len(same), batch_size)]
    return found


def softmax(logits: Float32Array) -> Float32Array:
    """Over the first axis."""
    powers: Float32Array = np.exp(logits - logits.max(axis=0))
    powers /= powers.sum(axis=0)
    return powers
