"""What moves an image with all that belongs to it, and which objects are dropped.

Letterbox, flips, zoom, affine map and elastic deformation are one `Motion`, so that pixels are interpolated once. Where
nothing is turned, sheared or deformed, the visible part of the image is resized to whole pixels (`Placement`), which is
faster than the general way (`Warp`). Both move the image, boxes, semantic map and masks; the last two by nearest
neighbour.

N objects. Coordinates are those of edges: pixel i covers [i, i + 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from detseg.data.augment.affine import IDENTITY, MAX_SIDE, AffineMatrix, Warp, chained
from detseg.data.augment.item import AugmentItem, BoxArray
from detseg.ops.letterbox import PAD_VALUE, Letterbox, nearest_pixels, resize
from detseg.structures import BoolArray, FloatArray, IntArray, UInt8Array

MIN_CROP = 0.5
"""Shortest side of a random crop as a fraction of the image's side, so that one small box is not blown up."""

Resize = Callable[[UInt8Array, tuple[int, int]], UInt8Array]


class AxisPlacement(NamedTuple):
    """Along one axis: image pixels ``first`` to ``first + taken`` are resized to canvas pixels ``start`` to ``end``."""

    first: int
    taken: int
    start: int
    end: int
    mirrored: bool

    @classmethod
    def fit(cls, side: int, scale: float, offset: float, low: int, high: int) -> AxisPlacement:
        """Place an image of ``side`` pixels by position → scale · position + offset, rounded to whole pixels.

        A negative scale mirrors it; it is seen between canvas pixels ``low`` and ``high`` only, maybe not at all.
        """
        near, far = sorted((offset, offset + scale * side))
        start, end = max(round(near), low), min(round(far), high)
        if start >= end:
            return cls(0, 0, 0, 0, False)
        per_pixel = side / (far - near)
        skipped, seen = (start - near) * per_pixel, (end - near) * per_pixel  # from the edge that is near on the canvas
        if scale < 0:
            skipped, seen = side - seen, side - skipped
        first = min(max(round(skipped), 0), side - 1)
        return cls(first, max(min(round(seen), side), first + 1) - first, start, end, scale < 0)

    @property
    def length(self) -> int:
        """Canvas pixels."""
        return self.end - self.start

    @property
    def scale_and_offset(self) -> tuple[float, float]:
        """Of positions: from the image to the canvas."""
        scale = self.length / max(self.taken, 1)
        return (-scale, self.end + self.first * scale) if self.mirrored else (scale, self.start - self.first * scale)

    @property
    def nearest(self) -> IntArray:
        """The image pixel under the centre of each canvas pixel."""
        pixels = self.first + nearest_pixels(self.taken, self.length)
        return pixels[::-1] if self.mirrored else pixels


class Placement(NamedTuple):
    """What a canvas of height and width ``hw`` shows of an image that is neither turned nor sheared, and where."""

    x: AxisPlacement
    y: AxisPlacement
    hw: tuple[int, int]
    resize: Resize

    @classmethod
    def fit(cls, image_hw: tuple[int, int], matrix: AffineMatrix, hw: tuple[int, int], resize: Resize) -> Placement:
        """Place an image of height and width ``image_hw`` by a (2, 3) matrix on a canvas of ``hw``."""
        (scale_x, _, offset_x), (_, scale_y, offset_y) = matrix.tolist()
        x = AxisPlacement.fit(image_hw[1], scale_x, offset_x, 0, hw[1])
        return cls(x, AxisPlacement.fit(image_hw[0], scale_y, offset_y, 0, hw[0]), hw, resize)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas."""
        return slice(self.y.start, self.y.end), slice(self.x.start, self.x.end)

    @property
    def source_window(self) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 of the part of the image that is seen, pixels."""
        x, y = self.x, self.y
        return x.first, y.first, x.first + x.taken, y.first + y.taken

    @property
    def scales_and_offsets(self) -> tuple[float, ...]:
        """Of x1, y1, x2 and y2 of boxes: four scales, then four offsets."""
        (scale_x, offset_x), (scale_y, offset_y) = self.x.scale_and_offset, self.y.scale_and_offset
        return scale_x, scale_y, scale_x, scale_y, offset_x, offset_y, offset_x, offset_y

    @property
    def area_scale(self) -> float:
        """By which factor areas grow."""
        return abs(self.x.scale_and_offset[0] * self.y.scale_and_offset[0])

    def paint(self, image: UInt8Array, canvas: UInt8Array) -> None:
        """Draw what is seen of an (h, w, 3) image on an (H, W, 3) canvas."""
        x, y = self.x, self.y
        if x.length and y.length:
            part = self.resize(image[y.first : y.first + y.taken, x.first : x.first + x.taken], (y.length, x.length))
            if x.mirrored or y.mirrored:
                part = np.asarray(cv2.flip(part, (-1 if y.mirrored else 1) if x.mirrored else 0), dtype=np.uint8)
            canvas[self.window] = part

    def visible_labels(self, labels: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """What the window shows of an (h, w) map of integers, by nearest neighbour."""
        if not (self.x.length and self.y.length):
            return np.empty((self.y.length, self.x.length), dtype=labels.dtype)
        # Columns are picked as rows of the transposed map: numpy gathers columns at a fifth of the speed.
        transposed = np.asarray(cv2.transpose(labels.take(self.y.nearest, axis=0)))
        return np.asarray(cv2.transpose(transposed.take(self.x.nearest, axis=0)))

    def image(self, image: UInt8Array) -> UInt8Array:
        """(h, w, 3) uint8 RGB → (H, W, 3), in the grey of the letterbox outside of the image."""
        canvas = np.full((*self.hw, 3), PAD_VALUE, dtype=np.uint8)
        self.paint(image, canvas)
        return canvas

    def labels(self, labels: npt.NDArray[np.integer], outside: int) -> npt.NDArray[np.integer]:
        """(h, w) integers → (H, W) by nearest neighbour, and ``outside`` where nothing is shown."""
        canvas = np.full(self.hw, outside, dtype=labels.dtype)
        canvas[self.window] = self.visible_labels(labels)
        return canvas

    def boxes(self, boxes: BoxArray) -> BoxArray:
        """(N, 4) xyxy → (N, 4) float32 xyxy on the canvas, not clipped; without an area where nothing is seen."""
        numbers = np.array(self.scales_and_offsets)
        return scaled_boxes(boxes, numbers[:4], numbers[4:])


def scaled_boxes(boxes: BoxArray, scales: FloatArray, offsets: FloatArray) -> BoxArray:
    """(N, 4) xyxy → (N, 4) float32 xyxy; ``scales`` and ``offsets``: (4,), or (N, 4); negative scales mirror."""
    ends = boxes * scales + offsets
    corners = np.minimum(ends[:, :2], ends[:, 2:]), np.maximum(ends[:, :2], ends[:, 2:])
    return np.asarray(np.concatenate(corners, axis=1), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Motion:
    """What happens to a letterboxed image or a mosaic of the input's size; drawn before there is an image.

    Attributes:
        matrix: flips, zoom and affine map in edge coordinates of the input.
        displacements: (H, W, 2) float32 pixels of the elastic deformation, which comes last; None: there is none.
    """

    matrix: AffineMatrix = field(default_factory=lambda: IDENTITY)
    displacements: npt.NDArray[np.float32] | None = None

    @property
    def is_upright(self) -> bool:
        """Whether upright rectangles stay such."""
        return self.displacements is None and not (self.matrix[0, 1] or self.matrix[1, 0])


def moved(item: AugmentItem, motion: Motion, hw: tuple[int, int]) -> AugmentItem:
    """Letterbox an image of any size to height and width ``hw`` and move it; boxes are clipped by `keep_visible`.

    Raises:
        ValueError: an elastic deformation of boxes without masks.
    """
    if motion.displacements is not None and item.masks is None and (item.semantic is None or len(item.boxes)):
        raise ValueError("boxes cannot follow an elastic deformation; set data.augmentation.elastic.probability to 0")
    if not motion.is_upright and max(item.hw) > MAX_SIDE:
        item = moved(item, Motion(), hw)
    matrix = chained(Letterbox.fit(item.hw, hw).matrix, then=motion.matrix)
    move: Placement | Warp
    if motion.is_upright:
        # What is only letterboxed is resized as in evaluation; for a zoom the faster way is good enough.
        zoomed = (np.abs(motion.matrix.diagonal()) != 1).any()
        move = Placement.fit(item.hw, matrix, hw, resize_smoothly if zoomed else resize)
    else:
        move = Warp(matrix, hw, motion.displacements)
    return replace(item.with_image(move.image(item.image), move.labels, move.area_scale), boxes=move.boxes(item.boxes))


def letterboxed(item: AugmentItem, hw: tuple[int, int]) -> AugmentItem:
    """Scale and pad an image with all that belongs to it to height and width ``hw``, as evaluation does."""
    return moved(item, Motion(), hw)


def random_crop(item: AugmentItem, rng: np.random.Generator) -> AugmentItem:
    """Cut out a random part of the image that holds every box whole; its sides are at least half the image's."""
    if item.masks is not None:
        item = keep_visible(item, 0.0, 0.0)  # for the bounds of the masks
    height, width = item.hw
    boxes = item.boxes if len(item.boxes) else np.array([[width, height, 0, 0]], dtype=np.float32)  # nothing to keep
    x1, x2 = _random_interval(width, float(boxes[:, 0].min()), float(boxes[:, 2].max()), rng)
    y1, y2 = _random_interval(height, float(boxes[:, 1].min()), float(boxes[:, 3].max()), rng)
    cut = item.with_image(item.image[y1:y2, x1:x2], lambda labels, _: labels[y1:y2, x1:x2])
    return replace(cut, boxes=item.boxes - np.array([x1, y1, x1, y1], dtype=np.float32))


def _random_interval(side: int, first: float, last: float, rng: np.random.Generator) -> tuple[int, int]:
    """A random part [start, end) of [0, side) that holds [first, last], or anything where first > last."""
    low, high = math.floor(first), math.ceil(last)
    shortest = max(high - low, math.ceil(side * MIN_CROP))
    length = int(rng.integers(shortest, side, endpoint=True))
    start = int(rng.integers(max(high - length, 0), min(low, side - length), endpoint=True))
    return start, start + length


def resize_smoothly(image: UInt8Array, hw: tuple[int, int]) -> UInt8Array:
    """Resize an (H, W, 3) uint8 image: halved as often as its sides allow, then bilinear; faster than by area."""
    height, width = image.shape[:2]
    while height % 2 == width % 2 == 0 and height >= 2 * hw[0] and width >= 2 * hw[1]:
        height, width = height // 2, width // 2
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return np.asarray(cv2.resize(image, (hw[1], hw[0]), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def visible_boxes(
    boxes: npt.NDArray[np.floating],
    window: tuple[float, float, float, float] | FloatArray,
    min_visibility: float,
    min_size: float,
) -> tuple[BoxArray, BoolArray]:
    """Clip (N, 4) xyxy boxes to a window, or to one each, (N, 4): the one rule of affine map and mosaic.

    A box is dropped when less than `min_visibility` of its area, in [0, 1], lies in the window, or when a side of what
    is left is shorter than `min_size` pixels, or when nothing is left.

    Returns:
        (N, 4) float32 clipped boxes and (N,) bool, true where the box stays; only those rows are valid boxes.
    """
    windows = np.asarray(window)
    low, high = windows[..., None, :2], windows[..., None, 2:]
    exact = boxes.astype(np.float64).reshape(-1, 2, 2)  # N, two corners, x and y
    clipped = np.minimum(np.maximum(exact, low), high)
    full_area = (exact[:, 1] - exact[:, 0]).prod(axis=1)
    sides = clipped[:, 1] - clipped[:, 0]
    rounded = clipped.astype(np.float32)
    keep = (rounded[:, 1] > rounded[:, 0]).all(axis=1)  # thin boxes can lose their area by rounding
    keep &= (sides.prod(axis=1) >= min_visibility * full_area) & (sides >= min_size).all(axis=1)
    return rounded.reshape(-1, 4), keep


def keep_visible(item: AugmentItem, min_visibility: float, min_size: float) -> AugmentItem:
    """Clip the boxes to the image and drop objects by the rule of `visible_boxes`.

    For an object with a mask the area is that of the mask, and its box becomes the bounds of what is left.
    """
    if item.masks is None:
        boxes, keep = visible_boxes(item.boxes, (0, 0, item.hw[1], item.hw[0]), min_visibility, min_size)
    else:
        areas, boxes = item.masks.measure()
        keep = (areas > 0) & (areas >= min_visibility * item.masks.full_areas)
        keep &= (boxes[:, 2:] - boxes[:, :2] >= min_size).all(axis=1)
    return replace(item, boxes=boxes).select(keep)
