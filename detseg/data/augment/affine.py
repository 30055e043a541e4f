"""Affine maps: drawn at random, chained, and carried out on boxes and pixels, an elastic deformation included.

N objects, H and W pixels of the result. Coordinates are those of edges: pixel i covers [i, i + 1).
"""

from __future__ import annotations

import math
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from detseg.config.schema.data import AffineConfig
from detseg.ops.letterbox import PAD_VALUE
from detseg.structures import UInt8Array

AffineMatrix = npt.NDArray[np.float64]
"""(2, 3): (x, y, 1) in edge coordinates of an image → (x, y) in those of the result."""

MAX_SIDE = 32_766
"""Longest side of an image, pixels, that OpenCV maps."""

IDENTITY: AffineMatrix = np.eye(2, 3)


def random_zoom_matrix(factors: tuple[float, float], hw: tuple[int, int], rng: np.random.Generator) -> AffineMatrix:
    """Draw the (2, 3) matrix of a zoom at a random place (scale jitter, Chen et al. 2018).

    An image that grows shows a random part of its own size; one that shrinks lies whole at a random place.

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
    """Draw the (2, 3) matrix of an affine map about the image's centre; the zoom on a logarithmic scale."""
    zoom = math.exp(rng.uniform(math.log(config.scale[0]), math.log(config.scale[1])))
    shift_x, shift_y = (rng.uniform(-config.translate, config.translate) * side for side in (hw[1], hw[0]))
    angle = math.radians(rng.uniform(-config.rotate_degrees, config.rotate_degrees))
    shear_x, shear_y = (
        math.tan(math.radians(rng.uniform(-config.shear_degrees, config.shear_degrees))) for _ in range(2)
    )
    cosine, sine = zoom * math.cos(angle), zoom * math.sin(angle)
    # Rotation and zoom after shear, written out: numpy is slow for products of such small matrices.
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
    """The (2, 3) matrix of one affine map after another."""
    matrix: AffineMatrix = then[:, :2] @ first
    matrix[:, 2] += then[:, 2]
    return matrix


def between_centers(matrix: AffineMatrix) -> AffineMatrix:
    """A (2, 3) map in edge coordinates as OpenCV takes it: between pixel centres, half a pixel inside the edges."""
    linear, offset = matrix[:, :2], matrix[:, 2]
    return np.column_stack([linear, linear @ (0.5, 0.5) + offset - 0.5])


class Warp:
    """An affine map of images and what belongs to them, followed by an elastic deformation or not.

    Pixels are interpolated once. Interpolation alone would skip pixels of an image that shrinks, so it is halved
    before, by means of 2 x 2 pixels, until less than another half is left.

    Args:
        matrix: (2, 3), from images with sides of at most ``MAX_SIDE`` to the result.
        hw: height and width of the result, pixels.
        displacements: (H, W, 2) float32 pixels; pixel p of the result shows what the affine map brings to
            p + displacement; None: there are none.
    """

    def __init__(
        self, matrix: AffineMatrix, hw: tuple[int, int], displacements: npt.NDArray[np.float32] | None = None
    ) -> None:
        self.matrix, self.hw, self.displacements = matrix, hw, displacements

    @property
    def area_scale(self) -> float:
        """By which factor the affine map enlarges areas."""
        return abs(float(np.linalg.det(self.matrix[:, :2])))

    def image(self, image: UInt8Array) -> UInt8Array:
        """(h, w, 3) uint8 RGB → (H, W, 3): between four pixels, and the grey of the letterbox outside of the image."""
        warp = self
        while warp.area_scale <= 0.25 and min(image.shape[:2]) > 1:
            image, warp = _halved(image), Warp(chained(2 * IDENTITY, then=warp.matrix), self.hw, self.displacements)
        # OpenCV maps four channels in half the time of three, to the same values.
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), dtype=np.uint8)
        mapped = warp._sample(image, cv2.INTER_LINEAR, PAD_VALUE)
        return np.asarray(cv2.cvtColor(mapped, cv2.COLOR_RGBA2RGB), dtype=np.uint8)

    def labels(self, labels: npt.NDArray[np.integer], outside: int) -> npt.NDArray[np.integer]:
        """(h, w) uint8 or uint16 → (H, W): the value of the nearest pixel, and ``outside`` where there is none."""
        return self._sample(labels, cv2.INTER_NEAREST, outside)

    def boxes(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(N, 4) xyxy → (N, 4) float32, the smallest upright boxes around the four mapped corners of each, not clipped.

        Boxes do not follow the elastic deformation.
        """
        corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]].astype(np.float64)  # N 4 2
        mapped = corners @ self.matrix[:, :2].T + self.matrix[:, 2]
        return np.concatenate([mapped.min(axis=1), mapped.max(axis=1)], axis=1).astype(np.float32)

    def _sample(self, pixels: npt.NDArray[np.integer], interpolation: int, outside: int) -> npt.NDArray[np.integer]:
        border = (float(outside),) * 4
        if self.displacements is None:
            size = (self.hw[1], self.hw[0])
            centers = between_centers(self.matrix)
            return np.asarray(cv2.warpAffine(pixels, centers, size, flags=interpolation, borderValue=border))
        x, y = self._places
        mapped = cv2.remap(pixels, x, y, interpolation, borderMode=cv2.BORDER_CONSTANT, borderValue=border)
        return np.asarray(mapped)

    @cached_property
    def _places(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(H, W) each: x and y in the image of what each pixel shows, counted from the centre of the first pixel."""
        assert self.displacements is not None
        places = self.displacements.copy()
        places[..., 0] += np.arange(self.hw[1], dtype=np.float32)
        places[..., 1] += np.arange(self.hw[0], dtype=np.float32)[:, None]
        x, y = cv2.split(cv2.transform(places, cv2.invertAffineTransform(between_centers(self.matrix))))
        return np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float32)


def _halved(image: UInt8Array) -> UInt8Array:
    """(H, W, 3) → (⌈H/2⌉, ⌈W/2⌉, 3): the mean of 2 x 2 pixels; behind an odd last row or column lies grey."""
    below, right = image.shape[0] % 2, image.shape[1] % 2
    if below or right:
        grey = (float(PAD_VALUE),) * 3
        image = np.asarray(
            cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=grey), dtype=np.uint8
        )
    half = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return np.asarray(half, dtype=np.uint8)
