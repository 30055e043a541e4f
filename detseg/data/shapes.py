"""The shapes set: coloured, textured, rotated shapes that overlap on a textured background, with noise.

Every scene is a function of (seed, split, index) alone. Coordinates are continuous: pixel i covers [i, i + 1).
"""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from detseg.data.formats.coco_writer import CocoWriter
from detseg.data.formats.voc_writer import VocWriter
from detseg.errors import DataError
from detseg.messages import listed, one_line, shown
from detseg.structures import BoolArray, FloatArray, InstanceMasks, IntArray, UInt8Array

Float32Array = npt.NDArray[np.float32]
SUPERSAMPLING = 4  # outlines are filled at this multiple of the resolution, for soft edges


def _polygon(num_vertices: int, radius: float = 1.0) -> Float32Array:
    """(V, 2) vertices evenly spaced on a circle, the first one at the top."""
    angles = np.arange(num_vertices) * (2 * math.pi / num_vertices)
    return (radius * np.stack([np.sin(angles), -np.cos(angles)], axis=1)).astype(np.float32)


# Closed contours, (V, 2) x and y, of each shape in the square from (-1, -1) to (1, 1); points inside an odd number of
# them belong to the shape. In the order of the names, since a VOC reader sorts those it finds.
_CONTOURS: dict[str, list[Float32Array]] = {
    "ellipse": [_polygon(64)],
    "rectangle": [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float32)],
    "ring": [_polygon(64), _polygon(64, radius=0.55)],
    "star": [_polygon(10) * np.array([[1], [0.42]] * 5, dtype=np.float32)],
    "triangle": [np.array([[0, -1], [1, 1], [-1, 1]], dtype=np.float32)],
}
SHAPE_CLASSES = tuple(_CONTOURS)


def shape_coverage(
    name: str, length: float, width: float, angle: float, offset: tuple[float, float]
) -> tuple[Float32Array, tuple[int, int]]:
    """The coverage of pixels by one of ``SHAPE_CLASSES``, (H, W) in [0, 1], and x and y of the patch's first pixel.

    Sides before rotation and the centre, ``offset``, are in pixels, the angle in radians.
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


def _random_texture(rng: np.random.Generator, height: int, width: int) -> Float32Array:
    """(height, width) values in [0, 1]: a random gradient, or random stripes, checks or smooth blobs."""
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    along = xs * math.cos(angle) + ys * math.sin(angle)
    across = ys * math.cos(angle) - xs * math.sin(angle)
    kind = rng.integers(4)
    period = rng.uniform(5, 16) if kind else 0.0
    texture: npt.NDArray[np.floating]
    if kind == 0:
        texture = (along - along.min()) / max(float(np.ptp(along)), 1.0)
    elif kind == 1:
        texture = 0.5 + 0.5 * np.sin(along * (2 * math.pi / period))
    elif kind == 2:
        texture = np.mod(np.floor(along / period) + np.floor(across / period), 2)
    else:
        grid = rng.random((math.ceil(height / period) + 2, math.ceil(width / period) + 2), dtype=np.float32)
        texture = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    return texture.astype(np.float32)


def _paint(rng: np.random.Generator, texture: Float32Array, color: Float32Array, contrast: float) -> Float32Array:
    """(H, W, 3) RGB in [0, 255]: a texture between a darker and a lighter variant of a colour."""
    tint = rng.uniform(0.4, 1.0, 3).astype(np.float32) * contrast
    return (color + (texture[..., None] - 0.5) * tint).clip(0, 255).astype(np.float32)


def _farthest_color(rng: np.random.Generator, others: Sequence[Float32Array]) -> Float32Array:
    """(3,) RGB in [0, 255]: the one of six random colours that is farthest from all ``others``."""
    candidates = rng.uniform(10, 245, (6, 3)).astype(np.float32)
    distances = np.linalg.norm(candidates[:, None] - np.stack(others)[None], axis=2)
    return np.asarray(candidates[distances.min(axis=1).argmax()])


Split = Literal["train", "val"]
SPLIT_NUMBERS: dict[Split, int] = {"train": 0, "val": 1}
EMPTY_FRACTION = 0.03  # of the images have no objects, as in real sets
MIN_VISIBLE = 0.6  # smallest visible fraction of an object's pixels: half a triangle could be half a rectangle
MIN_SIDE = 12  # of the box of the visible part of an object, pixels
MIN_WIDTH = 16  # of a whole object before rotation, pixels: smaller shapes look alike under the noise
MAX_TRIES = 20  # places that are tried for an object before it is left out


@dataclass(frozen=True, eq=False)
class Scene:
    """One synthetic image with its N objects."""

    image: UInt8Array  # (H, W, 3) RGB
    masks: BoolArray  # (N, H, W), the visible part of each object; no two overlap
    labels: IntArray  # (N,) int64, positions in SHAPE_CLASSES
    boxes: FloatArray  # (N, 4) float64 xyxy, 0-based and half-open, tight around the masks
    truncated: BoolArray  # (N,), part of the object is hidden by another one or outside the image


def render_scene(seed: int, split: Split, index: int, size: int, max_objects: int) -> Scene:
    """Draw scene ``index`` of a split: of ``size`` pixels, at least 64, at the longest side, 0.6 to 1 times that at the
    other, with at most ``max_objects`` objects."""
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
        boxes=InstanceMasks.from_dense(masks).boxes.astype(np.float64),
        truncated=masks.sum(axis=(1, 2)) < np.array(canvas.areas, dtype=np.int64),
    )


class _Canvas:  # a scene while objects are added
    def __init__(self, rng: np.random.Generator, size: int) -> None:
        other = round(size * rng.uniform(0.6, 1))
        hw = (size, other) if rng.random() < 0.5 else (other, size)
        color = rng.uniform(30, 225, 3).astype(np.float32)
        self.colors: list[Float32Array] = [color.mean() + 0.3 * (color - color.mean())]  # muted background, objects
        coarse = _paint(rng, _random_texture(rng, *hw), self.colors[0], contrast=50)
        self.image = _paint(rng, _random_texture(rng, *hw), coarse, contrast=30)
        self.owner: IntArray = np.full(hw, -1, dtype=np.int64)  # the object that each pixel shows; -1: none
        self.labels: list[int] = []
        self.areas: list[int] = []  # visible and hidden pixels of each object


def _add_object(rng: np.random.Generator, canvas: _Canvas, size: int) -> None:
    label = int(rng.integers(len(SHAPE_CLASSES)))
    color = _farthest_color(rng, canvas.colors)
    height, width = canvas.owner.shape
    for _ in range(MAX_TRIES):
        length = max(MIN_WIDTH, math.exp(rng.uniform(math.log(size / 8), math.log(size / 2))))
        across = max(MIN_WIDTH, length / rng.uniform(1, 1.7))
        offset = rng.uniform(0, width), rng.uniform(0, height)
        angle = rng.uniform(0, 2 * math.pi)
        coverage, (left, top) = shape_coverage(SHAPE_CLASSES[label], length, across, angle, offset)
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
    filling = _paint(rng, _random_texture(rng, *part.shape), color, contrast=rng.uniform(10, 70))
    ground = canvas.image[window]
    canvas.image[window] = ground + part[..., None] * (filling - ground)
    canvas.owner = owner
    canvas.labels.append(label)
    canvas.areas.append(area)
    canvas.colors.append(color)


def _all_visible(owner: IntArray, areas: list[int]) -> bool:
    for number, area in enumerate(areas):
        mask = owner == number
        if mask.sum() < MIN_VISIBLE * area:
            return False
        if min(np.ptp(np.flatnonzero(mask.any(axis=k))) + 1 for k in (0, 1)) < MIN_SIDE:
            return False
    return True


MANIFEST = "shapes.json"  # the parameters of the set; the folder is renamed into place when all is written
FORMAT = 2  # raised whenever the same parameters give other files
_FIX = "set data.root to another folder, or delete this one"


def write_shapes(root: Path, num_train: int, num_val: int, size: int, max_objects: int, seed: int) -> bool:
    """Write the shapes set, in VOC layout (``voc/``) and in COCO layout (``coco/``), unless ``root`` holds it already.

    The arguments are those of `render_scene`; the same ones give the same files. Returns whether the set was written
    now; a DataError if ``root`` holds another set or other files, or cannot be written.
    """
    splits: dict[Split, int] = {"train": num_train, "val": num_val}
    manifest: dict[str, Any] = {"format": FORMAT, "num_train": num_train, "num_val": num_val, "size": size}
    manifest |= {"max_objects": max_objects, "seed": seed, "classes": list(SHAPE_CLASSES)}
    target = root.resolve()
    partial = target.with_name(f".{target.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        if _holds(root, manifest):
            return False
        partial.mkdir(parents=True)
        voc, coco = VocWriter(partial / "voc", SHAPE_CLASSES), CocoWriter(partial / "coco", SHAPE_CLASSES)
        for split, num_images in splits.items():
            for index in range(num_images):
                scene = render_scene(seed, split, index, size, max_objects)
                stem = f"{split}_{index:06d}"
                voc.add(split, stem, scene.image, scene.boxes, scene.labels, scene.masks, scene.truncated)
                coco.add(split, stem, scene.image, scene.boxes, scene.labels, scene.masks)
        voc.finish()
        coco.finish()
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        with suppress(OSError):  # it holds something, or is not there
            target.rmdir()  # not every system renames onto an empty folder
        try:
            partial.rename(target)
        except OSError:
            if not _holds(target, manifest):
                raise
            return False  # another process was first with the same set
        return True
    except OSError as error:
        raise DataError(f"{root}: cannot write the shapes set ({error.strerror or error}); {_FIX}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _holds(root: Path, wanted: dict[str, Any]) -> bool:
    """Whether the folder holds the wanted set; False: it is absent or empty. Anything else in it is a DataError."""
    names, path = sorted(os.listdir(root)) if root.exists() else [], root / MANIFEST
    if not names:
        return False
    if MANIFEST not in names:
        raise DataError(f"{root}: holds {listed(names)} but no {MANIFEST}, so it is not a shapes set; {_FIX}")
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)}); {_FIX}") from error
    if keys := [key for key in wanted if found.get(key) != wanted[key]]:
        differences = "; ".join(f"{key} is {shown(found.get(key))} there, not {shown(wanted[key])}" for key in keys)
        raise DataError(f"{root}: holds another shapes set: {differences}; {_FIX}")
    return True
