"""Outlines, textures and colours of the synthetic scenes.

Letters for dimensions: H and W pixels. Coordinates are continuous: the pixel in column i covers [i, i + 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]

SHAPE_CLASSES = ("ellipse", "rectangle", "ring", "star", "triangle")
"""Sorted, so that a VOC reader, which sorts the names it finds, gives the labels of the COCO file."""

SUPERSAMPLING = 4
"""Outlines are filled at this multiple of the resolution, for soft edges."""


def unit_contours(name: str) -> list[Float32Array]:
    """The closed contours of a shape that fills the square from (-1, -1) to (1, 1).

    Args:
        name: one of ``SHAPE_CLASSES``.

    Returns:
        arrays (V, 2) of x and y; points inside an odd number of contours belong to the shape.
    """
    if name == "ellipse":
        return [_polygon(64)]
    if name == "ring":
        return [_polygon(64), _polygon(64, radius=0.55)]
    if name == "rectangle":
        return [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float32)]
    if name == "triangle":
        return [np.array([[0, -1], [1, 1], [-1, 1]], dtype=np.float32)]
    if name == "star":
        points = _polygon(10)
        points[1::2] *= 0.42
        return [points]
    raise ValueError(f"shape: expected one of {SHAPE_CLASSES}, got {name!r}")


def _polygon(num_vertices: int, radius: float = 1.0) -> Float32Array:
    """(V, 2) vertices evenly spaced on a circle, the first one at the top."""
    angles = np.arange(num_vertices) * (2 * math.pi / num_vertices)
    return _as_float32(radius * np.stack([np.sin(angles), -np.cos(angles)], axis=1))


def shape_coverage(
    name: str, length: float, width: float, angle: float, offset: tuple[float, float]
) -> tuple[Float32Array, tuple[int, int]]:
    """The coverage of pixels by a shape, on a patch that holds the whole shape.

    Args:
        name: one of ``SHAPE_CLASSES``.
        length, width: sides of the shape before rotation, pixels.
        angle: of the rotation, radians.
        offset: x and y of the centre, pixels.

    Returns:
        (H, W) coverage in [0, 1], and x and y of the patch's first pixel.
    """
    half = math.ceil(math.hypot(length, width) / 2) + 1
    left, top = math.floor(offset[0]) - half, math.floor(offset[1]) - half
    side = 2 * half + 1
    cos, sin = math.cos(angle), math.sin(angle)
    to_patch = np.array([[cos, sin], [-sin, cos]]) * np.array([[length / 2], [width / 2]])
    centre = np.array([offset[0] - left, offset[1] - top])
    fine = np.zeros((side * SUPERSAMPLING, side * SUPERSAMPLING), dtype=np.uint8)
    # OpenCV's coordinates are of pixel centres; with shift=4 they are in sixteenths.
    contours = [
        np.round(((contour @ to_patch + centre) * SUPERSAMPLING - 0.5) * 16).astype(np.int32)
        for contour in unit_contours(name)
    ]
    cv2.fillPoly(fine, contours, 255, shift=4)
    coverage = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA)
    return _as_float32(coverage / np.float32(255)), (left, top)


def random_texture(rng: np.random.Generator, height: int, width: int) -> Float32Array:
    """(height, width) values in [0, 1]: a random gradient, or random stripes, checks or smooth blobs."""
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    along = xs * math.cos(angle) + ys * math.sin(angle)
    across = ys * math.cos(angle) - xs * math.sin(angle)
    kind = rng.integers(4)
    if kind == 0:
        return _as_float32((along - along.min()) / max(float(np.ptp(along)), 1.0))
    period = rng.uniform(5, 16)
    if kind == 1:
        return _as_float32(0.5 + 0.5 * np.sin(along * (2 * math.pi / period)))
    if kind == 2:
        odd = np.floor(along / period) + np.floor(across / period)
        return _as_float32(np.mod(odd, 2))
    grid = rng.random((math.ceil(height / period) + 2, math.ceil(width / period) + 2), dtype=np.float32)
    return _as_float32(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1))


def paint(rng: np.random.Generator, texture: Float32Array, color: Float32Array, contrast: float) -> Float32Array:
    """(H, W, 3) RGB in [0, 255]: a texture between a darker and a lighter variant of a colour."""
    tint = rng.uniform(0.4, 1.0, 3).astype(np.float32) * contrast
    return _as_float32((color + (texture[..., None] - 0.5) * tint).clip(0, 255))


def farthest_color(rng: np.random.Generator, others: Sequence[Float32Array], num_candidates: int = 6) -> Float32Array:
    """(3,) RGB in [0, 255]: the one of some random colours that is farthest from all ``others``."""
    candidates = rng.uniform(10, 245, (num_candidates, 3)).astype(np.float32)
    distances = np.linalg.norm(candidates[:, None] - np.stack(others)[None], axis=2)
    return _as_float32(candidates[distances.min(axis=1).argmax()])


def _as_float32(values: npt.NDArray[Any]) -> Float32Array:
    return values.astype(np.float32, copy=False)
