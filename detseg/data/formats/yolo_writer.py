"""Writes detections as YOLO text: for each image a file of boxes, and one of polygons where there are masks.

A line of boxes: class, x and y of the centre, width, height, score. A line of polygons: class, then x and y of each
corner. Coordinates are fractions of the sides of the image. N objects, P corners, h and w pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from detseg.atomic_write import write_text
from detseg.structures import BoolArray, FloatArray, InstanceMasks


def write_yolo_boxes(
    path: Path, hw: tuple[int, int], labels: npt.NDArray[Any], boxes: npt.NDArray[Any], scores: npt.NDArray[Any]
) -> None:
    """Write the boxes of an image of height and width ``hw`` pixels, replacing an existing file.

    ``labels``, ``boxes``, ``scores``: (N,), (N, 4) xyxy pixels, (N,) in [0, 1]. A DataError if it cannot be written.
    """
    height, width = hw
    x1, y1, x2, y2 = boxes.astype(np.float64).T
    columns = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height, scores]
    rows = zip(*(column.tolist() for column in columns), strict=True)
    write_text(path, "".join(_line(label, row) for label, row in zip(labels.tolist(), rows, strict=True)))


def write_yolo_polygons(path: Path, labels: npt.NDArray[Any], masks: InstanceMasks) -> int:
    """Write the outlines of N masks, see ``outer_polygon``; returns how many were left out because they are empty. A
    DataError if the file cannot be written."""
    height, width = masks.hw
    lines = []
    for i, label in enumerate(labels.tolist()):
        part, (top, left) = masks.part(i)
        if part.size:
            corners = (outer_polygon(part) + np.array([left, top])) / np.array([width, height])
            lines.append(_line(label, corners.ravel().tolist()))
    write_text(path, "".join(lines))
    return len(masks) - len(lines)


def _line(label: int, numbers: Iterable[float]) -> str:
    return " ".join([str(label), *(f"{number:.6f}" for number in numbers)]) + "\n"


def outer_polygon(mask: BoolArray) -> FloatArray:
    """The outline of the largest piece of a mask, (h, w) bool, along the outer edges of its pixels, which holds the
    centres of all of them and of no others; holes and other pieces are lost. Pixels that touch at a corner are of one
    piece. Returns (P, 2) float64 x and y, 0 to w and 0 to h pixels, P ≥ 4; a ValueError if no pixel is inside."""
    # OpenCV goes along the centres of pixels. With each of them split into 2 x 2, every corner of an outline has a
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
