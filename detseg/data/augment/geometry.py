"""The image that augmentation changes with all that belongs to it, what moves it, and which objects are dropped.

Masks of objects are a few maps of ids, which move like semantic maps. Objects that do not overlap have one map
together, so that 260 nuclei are one or two maps, not 260 masks.

Letterbox, flips, zoom, affine map and elastic deformation are one `Motion`, so that pixels are interpolated once. Where
nothing is turned, sheared or deformed, the visible part of the image is resized to whole pixels (`Placement`), which is
faster than the general way (`Warp`). Both move the image, boxes, semantic map and masks; the last two by nearest
neighbour.

N objects, H and W pixels of the result. Coordinates are those of edges: pixel i covers [i, i + 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from detseg.config.schema.data import AffineConfig, ElasticConfig
from detseg.errors import DataError
from detseg.ops.letterbox import PAD_VALUE, Letterbox, nearest_pixels, resize
from detseg.ops.masks import run_lengths
from detseg.structures import IGNORE_LABEL, BoolArray, FloatArray, InstanceMasks, IntArray, UInt8Array

BoxArray = npt.NDArray[np.float32]
Float32Array = npt.NDArray[np.float32]
AffineMatrix = npt.NDArray[np.float64]
"""(2, 3): (x, y, 1) in edge coordinates of an image → (x, y) in those of the result."""

IDENTITY: AffineMatrix = np.eye(2, 3)
MAX_SIDE = 32_766  # longest side of an image, pixels, that OpenCV maps
MIN_CROP = 0.5  # shortest side of a random crop as a fraction of the image's, so that no small box is blown up

IdMap = npt.NDArray[np.integer]  # (H, W) uint8 or uint16: the id of the object at each pixel, 0 where there is none


@dataclass(frozen=True, eq=False)
class InstanceLayers:
    """N masks of one image of H x W pixels."""

    maps: tuple[IdMap, ...]  # (H, W) each; an id occurs in one of them only; empty where there was no object
    ids: IntArray  # (N,) int64, the id of each object; other ids in the maps belong to objects that were dropped
    full_areas: FloatArray  # (N,) float64, the pixels that each mask would have if no border had cut it
    max_id: int  # no id in the maps is larger

    @classmethod
    def from_run_lengths(cls, masks: InstanceMasks) -> InstanceLayers:
        """Paint masks into as few maps as their overlaps allow: each into the first one where it covers no other."""
        height, width = masks.hw
        dtype = _id_type(len(masks))
        columns: list[IdMap] = []  # each map column by column, as run lengths count
        areas = []
        for new_id, counts in enumerate(masks.counts, start=1):
            lengths = run_lengths(counts)
            inside = np.repeat(np.arange(1, len(lengths)) % 2 == 1, lengths[1:])  # from the first pixel of the mask on
            window = slice(int(lengths[0]), int(lengths[0]) + len(inside))
            ids = next((ids for ids in columns if not np.logical_and(ids[window], inside).any()), None)
            if ids is None:
                columns.append(ids := np.zeros(height * width, dtype=dtype))
            ids[window] += inside * dtype.type(new_id)
            areas.append(int(lengths[1::2].sum()))
        maps = tuple(np.asarray(cv2.transpose(ids.reshape(width, height)), dtype=ids.dtype) for ids in columns)
        return cls(maps, np.arange(1, len(masks) + 1), np.array(areas, dtype=np.float64), len(masks))

    @classmethod
    def joined(
        cls, parts: Sequence[InstanceLayers], hw: tuple[int, int], corners: Sequence[tuple[int, int]] | None = None
    ) -> InstanceLayers:
        """The masks of several images, at least one, put together in a new one of height and width ``hw``.

        ``corners``: row and column of each image, which do not overlap; None: all lie at (0, 0), over each other.
        """
        dtype = _id_type(sum(part.max_id for part in parts))
        maps: list[IdMap] = []
        ids, max_id = [], 0
        for part, (top, left) in zip(parts, corners or [(0, 0)] * len(parts), strict=True):
            first = 0 if corners else len(maps)
            for layer, old in enumerate(part.maps, start=first):
                if layer == len(maps):
                    maps.append(np.zeros(hw, dtype=dtype))
                window = maps[layer][top : top + old.shape[0], left : left + old.shape[1]]
                np.add(old, dtype.type(max_id), out=window, where=old > 0, dtype=dtype)
            ids.append(part.ids + max_id)
            max_id += part.max_id
        full_areas = np.concatenate([part.full_areas for part in parts])
        return cls(tuple(maps), np.concatenate(ids), full_areas, max_id)

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: BoolArray | IntArray) -> InstanceLayers:
        """The masks of some objects; ``rows``: (N,) bool, or positions."""
        return replace(self, ids=self.ids[rows], full_areas=self.full_areas[rows])

    def moved(self, move: Callable[[IdMap], IdMap], area_scale: float) -> InstanceLayers:
        """Every map moved by nearest neighbour, 0 where nothing is shown; areas grow by a factor."""
        return replace(self, maps=tuple(map(move, self.maps)), full_areas=self.full_areas * area_scale)

    def measure(self) -> tuple[IntArray, npt.NDArray[np.float32]]:
        """(N,) int64 areas in pixels and (N, 4) float32 xyxy bounds, half-open; zeros where nothing is left."""
        areas = np.zeros(self.max_id + 1, dtype=np.int64)
        boxes = np.zeros((self.max_id + 1, 4), dtype=np.float32)
        for ids in self.maps:  # by runs of equal ids along the rows
            begins = np.ones(ids.shape, dtype=np.bool_)
            np.not_equal(ids[:, 1:], ids[:, :-1], out=begins[:, 1:])
            starts = np.flatnonzero(begins)
            values, lengths = ids.ravel()[starts], np.diff(starts, append=ids.size)
            inside = np.flatnonzero(values)
            if not len(inside):
                continue
            inside = inside[np.argsort(values[inside], kind="stable")]  # object by object, each from top to bottom
            values, lengths, (rows, left) = values[inside], lengths[inside], np.divmod(starts[inside], ids.shape[1])
            first = np.flatnonzero(np.diff(values, prepend=0))
            found = values[first]
            areas[found] = np.add.reduceat(lengths, first)
            boxes[found, 0] = np.minimum.reduceat(left, first)
            boxes[found, 1] = rows[first]
            boxes[found, 2] = np.maximum.reduceat(left + lengths, first)
            boxes[found, 3] = np.append(rows[first[1:] - 1], rows[-1]) + 1
        return areas[self.ids], boxes[self.ids]

    def mask(self, row: int, window: tuple[slice, slice] = (slice(None), slice(None))) -> BoolArray:
        """One mask, (H, W) bool, or its part in a window of rows and columns."""
        wanted = int(self.ids[row])  # a number of Python: one of numpy would widen the maps
        inside: BoolArray = self.maps[0][window] == wanted
        for ids in self.maps[1:]:
            inside |= ids[window] == wanted
        return inside


def _id_type(max_id: int) -> np.dtype[np.integer]:
    if max_id > np.iinfo(np.uint16).max:
        raise DataError(f"masks: expected at most {np.iinfo(np.uint16).max} objects in an image, got {max_id}")
    return np.dtype(np.uint8 if max_id <= np.iinfo(np.uint8).max else np.uint16)


MoveLabels = Callable[[npt.NDArray[np.integer], int], npt.NDArray[np.integer]]
"""Moves an (H, W) map of integers by nearest neighbour; the second argument is the value where nothing is shown."""


@dataclass(frozen=True, eq=False)
class AugmentItem:
    """An image of H x W pixels and its N objects or its semantic map."""

    image: UInt8Array  # (H, W, 3) RGB
    boxes: BoxArray  # (N, 4) float32 xyxy, pixels; of objects with masks only `keep_visible` makes them the bounds
    labels: IntArray  # (N,) int64
    ignore: BoolArray  # (N,)
    semantic: UInt8Array | None = None  # (H, W) labels, IGNORE_LABEL where none counts; None in detection
    masks: InstanceLayers | None = None  # N masks of the size of the image; None where only boxes are learned
    num_dropped: int = 0  # objects that the user's own pipeline has removed

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def select(self, rows: BoolArray | IntArray) -> AugmentItem:
        """Some of the objects only; ``rows``: (N,) bool, or positions."""
        masks = None if self.masks is None else self.masks.select(rows)
        return replace(self, boxes=self.boxes[rows], labels=self.labels[rows], ignore=self.ignore[rows], masks=masks)

    def with_image(self, image: UInt8Array, move: MoveLabels, area_scale: float = 1.0) -> AugmentItem:
        """Another (H, W, 3) uint8 image, with the semantic map and masks moved to it, which enlarges areas by a factor;
        the boxes stay."""
        semantic = None if self.semantic is None else np.asarray(move(self.semantic, IGNORE_LABEL), dtype=np.uint8)
        masks = None if self.masks is None else self.masks.moved(lambda ids: move(ids, 0), area_scale)
        return replace(self, image=image, semantic=semantic, masks=masks)


def random_zoom(factors: tuple[float, float], rng: np.random.Generator) -> float:
    """Draw a factor from a range, on a logarithmic scale."""
    return math.exp(rng.uniform(math.log(factors[0]), math.log(factors[1])))


def random_zoom_matrix(factors: tuple[float, float], hw: tuple[int, int], rng: np.random.Generator) -> AffineMatrix:
    """Draw a zoom of an image of height and width ``hw`` (scale jitter, Chen et al. 2018): one that grows shows a
    random part of its own size, one that shrinks lies whole at a random place."""
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
    return np.array([[1.0 - 2 * horizontal, 0, hw[1] * horizontal], [0, 1.0 - 2 * vertical, hw[0] * vertical]])


def chained(first: AffineMatrix, then: AffineMatrix) -> AffineMatrix:
    """One affine map after another."""
    matrix: AffineMatrix = then[:, :2] @ first
    matrix[:, 2] += then[:, 2]
    return matrix


def random_displacements(config: ElasticConfig, hw: tuple[int, int], rng: np.random.Generator) -> Float32Array:
    """Draw an elastic deformation (Ronneberger, Fischer, Brox 2015, section 3.1): (H, W, 2) pixels, how far away along
    x and y the content of each pixel comes from; bicubic between normal vectors at the centres of `grid` x `grid`
    fields, whose standard deviation is `strength` times the shorter side."""
    control = rng.normal(0.0, config.strength * min(hw), size=(config.grid, config.grid, 2)).astype(np.float32)
    return np.asarray(cv2.resize(control, (hw[1], hw[0]), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Warp:
    """An affine map, which an elastic deformation may follow; an image that shrinks is halved before, by means of 2 x 2
    pixels, since interpolation alone would skip some."""

    matrix: AffineMatrix  # of images with sides of at most MAX_SIDE
    hw: tuple[int, int]  # height and width of the result, pixels
    # (H, W, 2) pixels; pixel p of the result shows what the affine map brings to p + displacement.
    displacements: Float32Array | None = None

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

    def boxes(self, boxes: BoxArray) -> BoxArray:
        """(N, 4) xyxy → (N, 4) float32 xyxy around the mapped corners, not clipped; not deformed elastically."""
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
    def _places(self) -> tuple[Float32Array, Float32Array]:
        """(H, W) each: x and y in the image of what each pixel shows, counted from the centre of the first pixel."""
        assert self.displacements is not None
        places = self.displacements.copy()
        places[..., 0] += np.arange(self.hw[1], dtype=np.float32)
        places[..., 1] += np.arange(self.hw[0], dtype=np.float32)[:, None]
        x, y = cv2.split(cv2.transform(places, cv2.invertAffineTransform(_between_centers(self.matrix))))
        return np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float32)


def _between_centers(matrix: AffineMatrix) -> AffineMatrix:  # as OpenCV takes it
    linear, offset = matrix[:, :2], matrix[:, 2]
    return np.column_stack([linear, linear @ (0.5, 0.5) + offset - 0.5])


def _halved(image: UInt8Array) -> UInt8Array:
    """(H, W, 3) → (⌈H/2⌉, ⌈W/2⌉, 3): the mean of 2 x 2 pixels; behind an odd last row or column lies grey."""
    below, right = image.shape[0] % 2, image.shape[1] % 2
    if below or right:
        image = np.pad(image, ((0, below), (0, right), (0, 0)), constant_values=PAD_VALUE)
    half = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return np.asarray(half, dtype=np.uint8)


class AxisPlacement(NamedTuple):
    """Along one axis: image pixels ``first`` to ``first + taken`` are resized to canvas pixels ``start`` to ``end``."""

    first: int
    taken: int
    start: int
    end: int
    mirrored: bool

    @classmethod
    def fit(cls, side: int, scale: float, offset: float, low: int, high: int) -> AxisPlacement:
        """Place an image of ``side`` pixels by position → scale · position + offset, rounded to whole pixels; mirrored
        where the scale is negative. It is seen between canvas pixels ``low`` and ``high`` only, maybe not at all."""
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


@dataclass(frozen=True, eq=False)
class Placement:
    """What a canvas of height and width ``hw`` shows of an image that is neither turned nor sheared, and where."""

    x: AxisPlacement
    y: AxisPlacement
    hw: tuple[int, int]
    resize: Callable[[UInt8Array, tuple[int, int]], UInt8Array]

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas."""
        return slice(self.y.start, self.y.end), slice(self.x.start, self.x.end)

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
        (scale_x, offset_x), (scale_y, offset_y) = self.x.scale_and_offset, self.y.scale_and_offset
        ends = boxes * np.array([scale_x, scale_y] * 2) + np.array([offset_x, offset_y] * 2)
        corners = np.minimum(ends[:, :2], ends[:, 2:]), np.maximum(ends[:, :2], ends[:, 2:])
        return np.asarray(np.concatenate(corners, axis=1), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Motion:
    """What happens to a letterboxed image or a mosaic of the input's size; drawn before there is an image."""

    matrix: AffineMatrix = field(default_factory=lambda: IDENTITY)  # flips, zoom and affine map, of the input
    displacements: Float32Array | None = None  # (H, W, 2) pixels of the elastic deformation, which comes last
    steps: tuple[tuple[str, AffineMatrix], ...] = ()  # what the matrix is made of, one after the other, by name

    @property
    def is_upright(self) -> bool:
        """Whether upright rectangles stay such."""
        return self.displacements is None and not (self.matrix[0, 1] or self.matrix[1, 0])


def moved(item: AugmentItem, motion: Motion, hw: tuple[int, int]) -> AugmentItem:
    """Letterbox an image of any size to height and width ``hw``, and move it; `keep_visible` clips the boxes after
    that. With ``Motion()`` it is the letterbox of evaluation."""
    if motion.displacements is not None and item.masks is None and (item.semantic is None or len(item.boxes)):
        raise ValueError("boxes cannot follow an elastic deformation; set data.augmentation.elastic.probability to 0")
    if not motion.is_upright and max(item.hw) > MAX_SIDE:
        item = moved(item, Motion(), hw)
    matrix = chained(Letterbox.fit(item.hw, hw).matrix, then=motion.matrix)
    move: Placement | Warp
    if motion.is_upright:
        (scale_x, _, offset_x), (_, scale_y, offset_y) = matrix.tolist()
        x = AxisPlacement.fit(item.hw[1], scale_x, offset_x, 0, hw[1])
        y = AxisPlacement.fit(item.hw[0], scale_y, offset_y, 0, hw[0])
        # What is only letterboxed is resized as in evaluation; for a zoom the faster way is good enough.
        zoomed = (np.abs(motion.matrix.diagonal()) != 1).any()
        move = Placement(x, y, hw, resize_smoothly if zoomed else resize)
    else:
        move = Warp(matrix, hw, motion.displacements)
    return replace(item.with_image(move.image(item.image), move.labels, move.area_scale), boxes=move.boxes(item.boxes))


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
    boxes: npt.NDArray[np.floating], window: tuple[float, float, float, float], min_visibility: float, min_size: float
) -> tuple[BoxArray, BoolArray]:
    """Clip (N, 4) xyxy boxes to a window, (x1, y1, x2, y2) pixels: the one rule of affine map and mosaic.

    Returns (N, 4) float32 boxes, and (N,) bool, where a box stays: at least `min_visibility` of its area, in [0, 1], is
    left, no side of that is shorter than `min_size` pixels, and it has an area. Other rows are no valid boxes.
    """
    exact = boxes.astype(np.float64).reshape(-1, 2, 2)  # N, two corners, x and y
    clipped = np.minimum(np.maximum(exact, window[:2]), window[2:])
    full_area = (exact[:, 1] - exact[:, 0]).prod(axis=1)
    sides = clipped[:, 1] - clipped[:, 0]
    rounded = clipped.astype(np.float32)
    keep = (rounded[:, 1] > rounded[:, 0]).all(axis=1)  # thin boxes can lose their area by rounding
    keep &= (sides.prod(axis=1) >= min_visibility * full_area) & (sides >= min_size).all(axis=1)
    return rounded.reshape(-1, 4), keep


def visible_masks(
    masks: InstanceLayers, min_visibility: float, min_size: float
) -> tuple[IntArray, BoxArray, BoolArray]:
    """Of N masks what is left: (N,) pixels, (N, 4) bounds, and (N,) bool, where an object stays by the rule of
    `visible_boxes`."""
    areas, boxes = masks.measure()
    keep = (areas > 0) & (areas >= min_visibility * masks.full_areas)
    keep &= (boxes[:, 2:] - boxes[:, :2] >= min_size).all(axis=1)
    return areas, boxes, keep


def keep_visible(item: AugmentItem, min_visibility: float, min_size: float) -> AugmentItem:
    """Clip the boxes to the image and drop objects by the rule of `visible_boxes`.

    For an object with a mask the area is that of the mask, and its box becomes the bounds of what is left.
    """
    if item.masks is None:
        boxes, keep = visible_boxes(item.boxes, (0, 0, item.hw[1], item.hw[0]), min_visibility, min_size)
    else:
        _, boxes, keep = visible_masks(item.masks, min_visibility, min_size)
    return replace(item, boxes=boxes).select(keep)
