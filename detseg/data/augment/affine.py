"""Affine maps and elastic deformations: drawn at random, chained, and applied to pixels and boxes.

H and W pixels of the result. Coordinates are those of edges: pixel i covers [i, i + 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from detseg.config.schema.data import AffineConfig, ElasticConfig
from detseg.ops.letterbox import PAD_VALUE
from detseg.structures import UInt8Array

AffineMatrix = npt.NDArray[np.float64]
"""(2, 3): (x, y, 1) in edge coordinates of an image → (x, y) in those of the result."""

MAX_SIDE = 32_766
"""Longest side of an image, pixels, that OpenCV maps."""

IDENTITY: AffineMatrix = np.eye(2, 3)


def random_zoom(factors: tuple[float, float], rng: np.random.Generator) -> float:
    """Draw a factor from a range, on a logarithmic scale."""
    return math.exp(rng.uniform(math.log(factors[0]), math.log(factors[1])))


def random_zoom_matrix(factors: tuple[float, float], hw: tuple[int, int], rng: np.random.Generator) -> AffineMatrix:
    """Draw a zoom at a random place (scale jitter, Chen et al. 2018) of an image of height and width ``hw``.

    An image that grows shows a random part of its own size; one that shrinks lies whole at a random place.
    """
    zoom = random_zoom(factors, rng)
    # From 0 to the spare room, which is negative for zoom > 1.
    left, top = (rng.random() * (1 - zoom) * side for side in (hw[1], hw[0]))
    return np.array([[zoom, 0.0, left], [0.0, zoom, top]])


def random_affine_matrix(config: AffineConfig, hw: tuple[int, int], rng: np.random.Generator) -> AffineMatrix:
    """Draw an affine map about the centre of an image of height and width ``hw``."""
    zoom = random_zoom(config.scale, rng)
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
    """Mirrors an image of height and width ``hw`` left to right, top to bottom, or both."""
    return np.array(
        [[-1.0, 0.0, hw[1]] if horizontal else [1.0, 0.0, 0.0], [0.0, -1.0, hw[0]] if vertical else [0.0, 1.0, 0.0]]
    )


def chained(first: AffineMatrix, then: AffineMatrix) -> AffineMatrix:
    """One affine map after another."""
    matrix: AffineMatrix = then[:, :2] @ first
    matrix[:, 2] += then[:, 2]
    return matrix


def _between_centers(matrix: AffineMatrix) -> AffineMatrix:
    """The map as OpenCV takes it: between pixel centres, half a pixel inside the edges."""
    linear, offset = matrix[:, :2], matrix[:, 2]
    return np.column_stack([linear, linear @ (0.5, 0.5) + offset - 0.5])


def random_displacements(
    config: ElasticConfig, hw: tuple[int, int], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Draw an elastic deformation (Ronneberger, Fischer, Brox 2015, section 3.1).

    Vectors from a normal distribution at `grid` x `grid` points, the centres of equal fields that cover the image, are
    interpolated bicubically. `strength` is their standard deviation as a fraction of the shorter side of ``hw``.

    Returns:
        (H, W, 2) float32, pixels: how far away, along x and y, the content of each pixel comes from.
    """
    control = rng.normal(0.0, config.strength * min(hw), size=(config.grid, config.grid, 2)).astype(np.float32)
    displacements = cv2.resize(control, (hw[1], hw[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(displacements, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Warp:
    """An affine map, which an elastic deformation may follow; pixels are interpolated once.

    Interpolation alone would skip pixels of an image that shrinks, so it is halved before, by means of 2 x 2 pixels,
    until less than another half is left.

    Attributes:
        matrix: of images with sides of at most ``MAX_SIDE``.
        hw: height and width of the result, pixels.
        displacements: (H, W, 2) float32 pixels; pixel p of the result shows what the affine map brings to
            p + displacement; None: there are none.
    """

    matrix: AffineMatrix
    hw: tuple[int, int]
    displacements: npt.NDArray[np.float32] | None = None

    @property
    def area_scale(self) -> float:
        """By which factor the affine map enlarges areas."""
        return abs(float(np.linalg.det(self.matrix[:, :2])))

    def image(self, image: UInt8Array) -> UInt8Array:
        """(h, w, 3) uint8 RGB → (H, W, 3): bilinear, and the grey of the letterbox outside of the image."""
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
        """(N, 4) xyxy → (N, 4) float32 xyxy around the four mapped corners of each, not clipped; without the elastic
        deformation."""
        corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]].astype(np.float64)  # N 4 2
        mapped = corners @ self.matrix[:, :2].T + self.matrix[:, 2]
        return np.concatenate([mapped.min(axis=1), mapped.max(axis=1)], axis=1).astype(np.float32)

    def _sample(self, pixels: npt.NDArray[np.integer], interpolation: int, outside: int) -> npt.NDArray[np.integer]:
        border = (float(outside),) * 4
        if self.displacements is None:
            centers, size = _between_centers(self.matrix), (self.hw[1], self.hw[0])
            return np.asarray(cv2.warpAffine(pixels, centers, size, flags=interpolation, borderValue=border))
        x, y = self._places
        return np.asarray(cv2.remap(pixels, x, y, interpolation, borderValue=border))

    @cached_property
    def _places(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(H, W) each: x and y in the image of what each pixel shows, counted from the centre of the first pixel."""
        assert self.displacements is not None
        places = self.displacements.copy()
        places[..., 0] += np.arange(self.hw[1], dtype=np.float32)
        places[..., 1] += np.arange(self.hw[0], dtype=np.float32)[:, None]
        x, y = cv2.split(cv2.transform(places, cv2.invertAffineTransform(_between_centers(self.matrix))))
        return np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float32)


def _halved(image: UInt8Array) -> UInt8Array:
    """(H, W, 3) → (⌈H/2⌉, ⌈W/2⌉, 3): the mean of 2 x 2 pixels; behind an odd last row or column lies grey."""
    below, right = image.shape[0] % 2, image.shape[1] % 2
    if below or right:
        image = np.pad(image, ((0, below), (0, right), (0, 0)), constant_values=PAD_VALUE)
    half = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return np.asarray(half, dtype=np.uint8)
