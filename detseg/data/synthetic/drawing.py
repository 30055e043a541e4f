"""Outlines, textures and colours of the synthetic scenes.

Coordinates are continuous: the pixel in column i covers [i, i + 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]

SUPERSAMPLING = 4
"""Outlines are filled at this multiple of the resolution, for soft edges."""


def _polygon(num_vertices: int, radius: float = 1.0) -> Float32Array:
    """(V, 2) vertices evenly spaced on a circle, the first one at the top."""
    angles = np.arange(num_vertices) * (2 * math.pi / num_vertices)
    return (radius * np.stack([np.sin(angles), -np.cos(angles)], axis=1)).astype(np.float32)


_CONTOURS: dict[str, list[Float32Array]] = {
    "ellipse": [_polygon(64)],
    "rectangle": [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float32)],
    "ring": [_polygon(64), _polygon(64, radius=0.55)],
    "star": [_polygon(10) * np.array([[1], [0.42]] * 5, dtype=np.float32)],
    "triangle": [np.array([[0, -1], [1, 1], [-1, 1]], dtype=np.float32)],
}
"""Closed contours, (V, 2) x and y, of each shape in the square from (-1, -1) to (1, 1); points inside an odd number of
them belong to the shape."""

SHAPE_CLASSES = tuple(_CONTOURS)
"""Sorted, so that a VOC reader, which sorts the names it finds, gives the labels of the COCO file."""


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
    points = [((contour @ to_patch + centre) * SUPERSAMPLING - 0.5) * 16 for contour in _CONTOURS[name]]
    cv2.fillPoly(fine, [np.round(contour).astype(np.int32) for contour in points], 255, shift=4)
    coverage = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA)
    return (coverage / np.float32(255)).astype(np.float32), (left, top)


def random_texture(rng: np.random.Generator, height: int, width: int) -> Float32Array:
    """(height, width) values in [0, 1]: a random gradient, or random stripes, checks or smooth blobs."""
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    along = xs * math.cos(angle) + ys * math.sin(angle)
    across = ys * math.cos(angle) - xs * math.sin(angle)
    kind = rng.integers(4)
    texture: npt.NDArray[np.floating]
    if kind == 0:
        texture = (along - along.min()) / max(float(np.ptp(along)), 1.0)
        return texture.astype(np.float32)
    period = rng.uniform(5, 16)
    if kind == 1:
        texture = 0.5 + 0.5 * np.sin(along * (2 * math.pi / period))
    elif kind == 2:
        texture = np.mod(np.floor(along / period) + np.floor(across / period), 2)
    else:
        grid = rng.random((math.ceil(height / period) + 2, math.ceil(width / period) + 2), dtype=np.float32)
        texture = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    return texture.astype(np.float32)


def paint(rng: np.random.Generator, texture: Float32Array, color: Float32Array, contrast: float) -> Float32Array:
    """(H, W, 3) RGB in [0, 255]: a texture between a darker and a lighter variant of a colour."""
    tint = rng.uniform(0.4, 1.0, 3).astype(np.float32) * contrast
    return (color + (texture[..., None] - 0.5) * tint).clip(0, 255).astype(np.float32)


def farthest_color(rng: np.random.Generator, others: Sequence[Float32Array]) -> Float32Array:
    """(3,) RGB in [0, 255]: the one of six random colours that is farthest from all ``others``."""
    candidates = rng.uniform(10, 245, (6, 3)).astype(np.float32)
    distances = np.linalg.norm(candidates[:, None] - np.stack(others)[None], axis=2)
    farthest: Float32Array = candidates[distances.min(axis=1).argmax()]
    return farthest
