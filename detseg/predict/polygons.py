"""Masks as polygons, for formats that have nothing better.

Letters for dimensions: P corners, h and w pixels.
"""

from __future__ import annotations

import cv2
import numpy as np

from detseg.structures import BoolArray, FloatArray


def outer_polygon(mask: BoolArray) -> FloatArray:
    """The outline of the largest piece of a mask, along the outer edges of its pixels.

    Holes and all other pieces are lost; else nothing is: the polygon has the area of the piece, and holds the centres
    of its pixels and of no others.  Pixels that touch at a corner are of one piece.

    Args:
        mask: (h, w) bool, at least one pixel inside.

    Returns:
        (P, 2) float64, x and y of each corner in pixels, 0 to w and 0 to h; P is at least 4.

    Raises:
        ValueError: no pixel is inside.
    """
    # OpenCV goes along the centres of pixels.  With each of them split into 2 x 2, every corner of an outline has a
    # small pixel of its own: number 2 i for the edge at i, 2 i + 1 for that at i + 1.
    split = mask.view(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    outlines, _ = cv2.findContours(split, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not outlines:
        raise ValueError("mask: expected a pixel inside, got none")
    corners = [(np.asarray(outline, dtype=np.int64).reshape(-1, 2) + 1) // 2 for outline in outlines]
    largest = max(corners, key=lambda points: cv2.contourArea(points.astype(np.float32)))
    repeated = (largest == np.roll(largest, 1, axis=0)).all(axis=1)  # at inner corners, which are passed aslant
    polygon: FloatArray = largest[~repeated].astype(np.float64)
    return polygon
