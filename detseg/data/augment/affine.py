"""Affine maps of images: drawn at random, put together, and carried out on boxes and pixels.

N objects.  Coordinates are those of edges: pixel i covers [i, i + 1).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from detseg.config.schema.data import AffineConfig
from detseg.ops.letterbox import PAD_VALUE
from detseg.structures import UInt8Array

AffineMatrix = npt.NDArray[np.float64]
"""(2, 3): (x, y, 1) in edge coordinates of an image → (x, y) in those of the result."""

_DOUBLE: AffineMatrix = 2 * np.eye(2, 3)

MAX_SIDE = 32_766
"""Longest side of an image, pixels, that OpenCV maps."""


def random_zoom_matrix(factors: tuple[float, float], hw: tuple[int, int], rng: np.random.Generator) -> AffineMatrix:
    """Draw the (2, 3) matrix of a zoom at a random place, in edge coordinates (scale jitter, Chen et al. 2018).

    Of an image that grows a random part of its own size is seen; one that shrinks lies whole at a random place.

    Args:
        factors: range of the zoom, drawn on a logarithmic scale.
        hw: height and width of the image and of the result, pixels.
        rng: source of zoom and place.
    """
    zoom = math.exp(rng.uniform(math.log(factors[0]), math.log(factors[1])))
    # From 0 to the spare room, which is negative for zoom > 1.
    left, top = (rng.random() * (1 - zoom) * side for side in (hw[1], hw[0]))
    return np.array([[zoom, 0.0, left], [0.0, zoom, top]])


def random_affine_matrix(config: AffineConfig, hw: tuple[int, int], rng: np.random.Generator) -> AffineMatrix:
    """Draw the (2, 3) matrix of a map about the image's centre, in edge coordinates.

    The zoom is drawn on a logarithmic scale, so that halving is as likely as doubling.
    """
    zoom = math.exp(rng.uniform(math.log(config.scale[0]), math.log(config.scale[1])))
    shift_x, shift_y = (rng.uniform(-config.translate, config.translate) * side for side in (hw[1], hw[0]))
    angle = math.radians(rng.uniform(-config.rotate_degrees, config.rotate_degrees))
    shear_x, shear_y = (
        math.tan(math.radians(rng.uniform(-config.shear_degrees, config.shear_degrees))) for _ in range(2)
    )
    cosine, sine = zoom * math.cos(angle), zoom * math.sin(angle)
    # Rotation and zoom after shear, written out: numpy takes five times as long for a product of two by two numbers.
    a, b = cosine - sine * shear_y, cosine * shear_x - sine
    c, d = sine + cosine * shear_y, sine * shear_x + cosine
    x, y = hw[1] / 2, hw[0] / 2
    return np.array([[a, b, x + shift_x - a * x - b * y], [c, d, y + shift_y - c * x - d * y]])


def flip_matrix(hw: tuple[int, int], *, horizontal: bool, vertical: bool) -> AffineMatrix:
    """The (2, 3) matrix that mirrors an image of height and width ``hw`` left to right, top to bottom, or both."""
    return np.array(
        [[-1.0, 0.0, hw[1]] if horizontal else [1.0, 0.0, 0.0], [0.0, -1.0, hw[0]] if vertical else [0.0, 1.0, 0.0]]
    )


def chained(first: AffineMatrix, then: AffineMatrix) -> AffineMatrix:
    """The (2, 3) matrix of one affine map after another, so that pixels are interpolated once."""
    matrix: AffineMatrix = then[:, :2] @ first
    matrix[:, 2] += then[:, 2]
    return matrix


def between_centers(matrix: AffineMatrix) -> AffineMatrix:
    """A (2, 3) map in edge coordinates as OpenCV takes it: between pixel centres, half a pixel inside the edges."""
    linear, offset = matrix[:, :2], matrix[:, 2]
    return np.column_stack([linear, linear @ (0.5, 0.5) + offset - 0.5])


def mapped_boxes(boxes: npt.NDArray[np.float32], matrix: AffineMatrix) -> npt.NDArray[np.float64]:
    """(N, 4) xyxy → (N, 4) float64 xyxy, the smallest upright boxes around the four corners of each after a (2, 3)
    affine map in edge coordinates."""
    corners = (
        boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]].astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]
    )  # (N, 4, 2)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def mapped_image(image: UInt8Array, matrix: AffineMatrix, hw: tuple[int, int]) -> UInt8Array:
    """Map an image by a (2, 3) affine matrix in edge coordinates, interpolating between four pixels.

    Interpolation alone would skip pixels of an image that shrinks.  So it is halved before, by means of 2 × 2 pixels,
    until what is left is less than another half.

    Args:
        image: (H, W, 3) uint8 RGB, with sides of at most ``MAX_SIDE``.
        matrix: from the image to the result.
        hw: height and width of the result, pixels.

    Returns:
        (*hw, 3) uint8 RGB, in the grey of the letterbox outside of the image.
    """
    zoom = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
    while zoom <= 0.5 and min(image.shape[:2]) > 1:
        image, matrix, zoom = _halved(image), chained(_DOUBLE, then=matrix), 2 * zoom
    # OpenCV maps four channels in half the time of three, to the same values: 640 × 640 in 0.65 ms instead of 1.25.
    mapped = cv2.warpAffine(
        cv2.cvtColor(image, cv2.COLOR_RGB2RGBA),
        between_centers(matrix),
        (hw[1], hw[0]),
        flags=cv2.INTER_LINEAR,
        borderValue=(PAD_VALUE,) * 4,
    )
    return np.asarray(cv2.cvtColor(mapped, cv2.COLOR_RGBA2RGB), dtype=np.uint8)


def _halved(image: UInt8Array) -> UInt8Array:
    """(H, W, 3) → (⌈H/2⌉, ⌈W/2⌉, 3): the mean of 2 × 2 pixels; behind an odd last row or column lies grey.

    640 × 480 in 0.06 ms; by other factors than whole ones, INTER_AREA takes 1 ms and more.
    """
    below, right = image.shape[0] % 2, image.shape[1] % 2
    padded = image
    if below or right:
        padded = np.asarray(
            cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=(PAD_VALUE,) * 3), dtype=np.uint8
        )
    half = cv2.resize(padded, (padded.shape[1] // 2, padded.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return np.asarray(half, dtype=np.uint8)
