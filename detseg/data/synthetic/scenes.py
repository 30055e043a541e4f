"""Synthetic scenes: coloured, textured, rotated shapes that overlap on a textured background, with noise.

Every scene is a function of (seed, split, index) alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from detseg.data.synthetic import drawing
from detseg.data.synthetic.drawing import SHAPE_CLASSES, Float32Array
from detseg.structures import BoolArray, FloatArray, IntArray, UInt8Array

Split = Literal["train", "val"]
SPLIT_NUMBERS: dict[Split, int] = {"train": 0, "val": 1}

EMPTY_FRACTION = 0.03
"""Fraction of the images without objects, as real sets have them."""
MIN_VISIBLE = 0.6
"""Smallest visible fraction of the pixels of every object: half a triangle could be half a rectangle."""
MIN_SIDE = 12
"""Shortest side of the box of the visible part of an object, pixels."""
MIN_WIDTH = 16
"""Shortest side of a whole object before rotation, pixels: smaller shapes look alike under the noise."""
MAX_TRIES = 20
"""Places that are tried for an object before it is left out."""


@dataclass(frozen=True, eq=False)
class Scene:
    """One synthetic image with its ground truth.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        masks: (N, H, W) bool, the visible part of each object; no two overlap.
        labels: (N,) int64, positions in ``SHAPE_CLASSES``.
        boxes: (N, 4) float64 xyxy, 0-based and half-open, tight around the masks.
        truncated: (N,) bool: part of the object is hidden by another one or outside the image.
    """

    image: UInt8Array
    masks: BoolArray
    labels: IntArray
    boxes: FloatArray
    truncated: BoolArray


def render_scene(seed: int, split: Split, index: int, size: int, max_objects: int) -> Scene:
    """Draw one scene.

    Args:
        seed: of the set, at least 0.
        split: "train" or "val", which have different scenes.
        index: of the scene in its split, from 0.
        size: longest side of the image in pixels, at least 64; the other side is 0.6 to 1 times as long.
        max_objects: largest number of objects, at least 1.
    """
    rng = np.random.default_rng((seed, SPLIT_NUMBERS[split], index))
    canvas = _Canvas(rng, size)
    num_objects = 0 if rng.random() < EMPTY_FRACTION else int(rng.integers(1, max_objects + 1))
    for _ in range(num_objects):
        _add_object(rng, canvas, size)
    noise = rng.normal(0, rng.uniform(2, 8), canvas.image.shape)
    masks: BoolArray = canvas.owner == np.arange(len(canvas.labels))[:, None, None]
    return Scene(
        image=(canvas.image + noise).round().clip(0, 255).astype(np.uint8),
        masks=masks,
        labels=np.array(canvas.labels, dtype=np.int64),
        boxes=mask_boxes(masks),
        truncated=masks.sum(axis=(1, 2)) < np.array(canvas.areas, dtype=np.int64),
    )


def mask_boxes(masks: BoolArray) -> FloatArray:
    """(N, H, W) non-empty masks → (N, 4) float64 xyxy, the tight half-open boxes around them."""
    spans = [(np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))) for mask in masks]
    return np.array([(x[0], y[0], x[-1] + 1, y[-1] + 1) for x, y in spans], dtype=np.float64).reshape(-1, 4)


class _Canvas:
    """A scene while objects are added."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        other = round(size * rng.uniform(0.6, 1))
        hw = (size, other) if rng.random() < 0.5 else (other, size)
        self.colors: list[Float32Array] = [rng.uniform(30, 225, 3).astype(np.float32)]  # background, objects
        coarse = drawing.paint(rng, drawing.random_texture(rng, *hw), self.colors[0], contrast=50)
        self.image = drawing.paint(rng, drawing.random_texture(rng, *hw), coarse, contrast=30)
        self.owner: IntArray = np.full(hw, -1, dtype=np.int64)  # the object that each pixel shows; -1: none
        self.labels: list[int] = []
        self.areas: list[int] = []  # visible and hidden pixels of each object


def _add_object(rng: np.random.Generator, canvas: _Canvas, size: int) -> None:
    """Draw an object on top of the others if a place for it is found."""
    label = int(rng.integers(len(SHAPE_CLASSES)))
    color = drawing.farthest_color(rng, canvas.colors)
    height, width = canvas.owner.shape
    for _ in range(MAX_TRIES):
        length = max(MIN_WIDTH, math.exp(rng.uniform(math.log(size / 8), math.log(size / 2))))
        across = max(MIN_WIDTH, length / rng.uniform(1, 1.7))
        offset = rng.uniform(0, width), rng.uniform(0, height)
        angle = rng.uniform(0, 2 * math.pi)
        coverage, (left, top) = drawing.shape_coverage(SHAPE_CLASSES[label], length, across, angle, offset)
        inside = slice(max(-top, 0), height - top), slice(max(-left, 0), width - left)
        part = coverage[inside]
        area = int((coverage >= 0.5).sum())
        y, x = max(top, 0), max(left, 0)
        window = slice(y, y + part.shape[0]), slice(x, x + part.shape[1])
        owner = canvas.owner.copy()
        owner[window][part >= 0.5] = len(canvas.labels)
        if _all_visible(owner, [*canvas.areas, area]):
            break
    else:
        return
    filling = drawing.paint(rng, drawing.random_texture(rng, *part.shape), color, contrast=rng.uniform(10, 70))
    ground = canvas.image[window]
    canvas.image[window] = ground + part[..., None] * (filling - ground)
    canvas.owner = owner
    canvas.labels.append(label)
    canvas.areas.append(area)
    canvas.colors.append(color)


def _all_visible(owner: IntArray, areas: list[int]) -> bool:
    """Whether enough of each object is visible: ``MIN_VISIBLE`` of its area, and ``MIN_SIDE`` pixels on both sides."""
    for number, area in enumerate(areas):
        mask = owner == number
        if mask.sum() < MIN_VISIBLE * area:
            return False
        x1, y1, x2, y2 = mask_boxes(mask[None])[0]
        if min(x2 - x1, y2 - y1) < MIN_SIDE:
            return False
    return True
