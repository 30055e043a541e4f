"""Connected regions of masks and label maps: specks, holes, and outlines.

Pixels of a region touch along a side or at a corner; those of a hole along a side, so that a closed outline of pixels
that touch at corners alone encloses it (Rosenfeld 1970: the two kinds of neighbours belong together).

Letters for dimensions: H and W pixels, K corners of a ring.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from detseg.ops.masks import Mask

_Bool = npt.NDArray[np.bool_]
_Labels = npt.NDArray[np.uint8]
_Regions = npt.NDArray[np.int32]
Ring = npt.NDArray[np.int64]
"""(K, 2) corners x and y of a closed line along the edges of pixels; the first one is not repeated at the end."""


def drop_specks(mask: Mask, min_area: int) -> _Bool:
    """(H, W) mask → (H, W) bool, without its regions of fewer than ``min_area`` pixels."""
    regions, areas = _connected(mask, 8)
    keep = areas >= min_area
    keep[0] = False
    dropped: _Bool = keep[regions]
    return dropped


def fill_holes(mask: Mask, max_area: int) -> _Bool:
    """(H, W) mask → (H, W) bool, with its holes of at most ``max_area`` pixels filled. What touches the border of the
    image is no hole."""
    outside: _Bool = np.equal(mask, 0)
    regions, areas = _connected(outside, 4)
    fill = areas <= max_area
    fill[0] = True  # the mask itself
    for border in (regions[0], regions[-1], regions[:, 0], regions[:, -1]):
        fill[border[border > 0]] = False
    filled: _Bool = fill[regions]
    return filled


def relabel_specks(labels: _Labels, min_area: int) -> _Labels:
    """Give regions of fewer than ``min_area`` pixels the label around them.

    That is the label with which a region shares the most sides of pixels, the lowest of several; regions that are
    specks themselves do not count, until they have got a label. A map of nothing but specks stays as it is.

    Args:
        labels: (H, W) uint8.
        min_area: pixels; 1 or less changes nothing.

    Returns:
        (H, W) uint8.
    """
    labels = labels.copy()
    specks, num = np.zeros(labels.shape, dtype=np.int64), 0  # number of the speck, 0 for none
    for label in np.unique(labels):
        regions, areas = _connected(labels == label, 8)
        small = np.flatnonzero(areas[1:] < min_area) + 1
        numbers = np.zeros(len(areas), dtype=np.int64)
        numbers[small] = num + 1 + np.arange(len(small))
        specks += numbers[regions]
        num += len(small)
    while (specks > 0).any():
        sides = np.zeros((num + 1, int(labels.max()) + 1), dtype=np.int64)
        for here, there in _neighbours():
            meet = (specks[here] > 0) & (specks[there] == 0)
            np.add.at(sides, (specks[here][meet], labels[there][meet]), 1)
        known: _Bool = sides.sum(axis=1) > 0
        if not known.any():
            break
        ready = known[specks]
        labels[ready] = sides.argmax(axis=1).astype(np.uint8)[specks[ready]]
        specks[ready] = 0
    return labels


def mask_polygons(mask: Mask) -> list[list[Ring]]:
    """The outlines of a mask along the edges of its pixels: for each region its outer ring, then those of its holes.

    The area between the rings holds the centres of all pixels of the mask and of no others.  Outer rings turn clockwise
    on the screen, where y points down, and holes the other way round.
    """
    # OpenCV goes along the centres of pixels. With each of them split into 2 x 2, every corner of an outline has a
    # small pixel of its own: number 2 i for the edge at i, 2 i + 1 for that at i + 1.
    inside: _Bool = np.not_equal(mask, 0)
    split = inside.view(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    found, tree = cv2.findContours(split, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outer: dict[int, list[Ring]] = {}
    rings = [_clean_ring((np.asarray(one, dtype=np.int64).reshape(-1, 2) + 1) // 2) for one in found]
    parents = [] if tree is None else np.asarray(tree)[0, :, 3].tolist()
    for number, parent in enumerate(parents):
        if parent < 0:
            outer[number] = [_turned(rings[number], 1)]
    for number, parent in enumerate(parents):
        if parent >= 0:
            outer[parent].append(_turned(rings[number], -1))
    return list(outer.values())


def _clean_ring(points: Ring) -> Ring:
    """Without points that repeat the one before, at inner corners, which OpenCV passes aslant."""
    ring: Ring = points[~(points == np.roll(points, 1, axis=0)).all(axis=1)]
    return ring


def _turned(ring: Ring, sign: int) -> Ring:
    x, y = ring.T
    return ring if sign * int(x @ np.roll(y, -1) - y @ np.roll(x, -1)) > 0 else ring[::-1]


def _connected(mask: Mask, connectivity: int) -> tuple[_Regions, npt.NDArray[np.int64]]:
    """(H, W) int32 number of the region of each pixel, from 1, 0 outside; and the pixels of each number."""
    inside: _Bool = np.not_equal(mask, 0)
    found = cv2.connectedComponents(inside.view(np.uint8), connectivity=connectivity)[1]
    regions = np.asarray(found, dtype=np.int32)
    return regions, np.bincount(regions.ravel()).astype(np.int64)


def _neighbours() -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Pixels, and those beside them, of the four directions."""
    first, last, all_of = slice(None, -1), slice(1, None), slice(None)
    pairs = [((first, all_of), (last, all_of)), ((all_of, first), (all_of, last))]
    return [*pairs, *((there, here) for here, there in pairs)]
