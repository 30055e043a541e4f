"""Images whose pixels show where a box or a label must be, and data sets of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from detseg.data.augment.geometry import AugmentItem, BoxArray, InstanceLayers
from detseg.errors import DataError
from detseg.ops.letterbox import PAD_VALUE, Letterbox
from detseg.structures import IGNORE_LABEL, BoolArray, ClassTable, ImageAnnotations, InstanceMasks, Sample, UInt8Array

WHITE = (255, 255, 255)

LABEL_COLORS = {0: (0, 0, 0), 1: (255, 0, 0), 2: (0, 255, 0), 3: (0, 0, 255), IGNORE_LABEL: (PAD_VALUE,) * 3}
"""The colour of each label; none is a mixture of others, so where one is seen pure, nothing else was mixed in."""


def letterboxed_labels(labels: UInt8Array, letterbox: Letterbox) -> UInt8Array:
    """The map in the network's input by hand: each pixel has the label under its centre, the padding is ignored."""
    sizes = zip(labels.shape, letterbox.resized_hw, strict=True)
    rows, columns = ([(2 * k + 1) * side // (2 * length) for k in range(length)] for side, length in sizes)
    canvas = np.full(letterbox.input_hw, IGNORE_LABEL, dtype=np.uint8)
    canvas[letterbox.top :, letterbox.left :][: len(rows), : len(columns)] = labels[np.ix_(rows, columns)]
    return canvas


STORED_AS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
"""Orientation → the inverse of its turn, a member of ``Image.Transpose``."""


def save_turned(path: Path, upright: UInt8Array, orientation: int, **options: Any) -> Path:
    """Save an image as a camera does that was turned: the EXIF orientation makes it upright again."""
    stored = Image.fromarray(upright)
    if orientation in STORED_AS:
        stored = stored.transpose(Image.Transpose(STORED_AS[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(path, exif=exif, **options)
    return path


def painted(
    hw: tuple[int, int], *boxes: tuple[int, int, int, int], color: tuple[int, int, int] = WHITE, label: int = 0
) -> AugmentItem:
    image = np.zeros((*hw, 3), dtype=np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = color
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return AugmentItem(image, array, np.full(len(boxes), label, dtype=np.int64), np.zeros(len(boxes), dtype=bool))


def bounds(image: UInt8Array, color: tuple[int, int, int] = WHITE) -> list[int]:
    """Edges (x1, y1, x2, y2) of the pixels nearer to a colour of 0 and 255 than to black or grey; [] without any."""
    return edges((np.abs(image.astype(int) - np.array(color)) < 128).all(axis=2))


def edges(mask: BoolArray) -> list[int]:
    """Edges (x1, y1, x2, y2) of the pixels of an (H, W) mask; [] without any."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1] if len(rows) else []


def blobs(hw: tuple[int, int], seed: int, fields: int = 4) -> AugmentItem:
    """An image of fields × fields rectangles in `LABEL_COLORS` with its semantic map, without boxes."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array(list(LABEL_COLORS), dtype=np.uint8), (fields, fields))
    rows, columns = (np.arange(side) * fields // side for side in hw)
    return colored(labels[rows[:, None], columns])


def colored(semantic: UInt8Array) -> AugmentItem:
    """The image in which the labels of a semantic map have their colours, without boxes."""
    colors = np.zeros((256, 3), dtype=np.uint8)
    colors[list(LABEL_COLORS)] = list(LABEL_COLORS.values())
    return replace(painted(semantic.shape), image=colors[semantic], semantic=semantic)


OBJECT_COLORS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)], np.uint8)


def ellipses(hw: tuple[int, int], seed: int, base: int = 0) -> AugmentItem:
    """Three ellipses with masks in three of the six colours; labels say which. One covers parts of those before."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(hw) + 0.5
    image = np.zeros((*hw, 3), dtype=np.uint8)
    masks = np.zeros((3, *hw), dtype=np.bool_)
    for k in range(3):
        center, radii = rng.uniform(0.2, 0.8, 2) * hw, rng.uniform(0.1, 0.3, 2) * hw
        inside = ((rows - center[0]) / radii[0]) ** 2 + ((columns - center[1]) / radii[1]) ** 2 < 1
        masks[:k, inside] = False
        masks[k] = inside
        image[inside] = OBJECT_COLORS[base + k]
    ignore = np.array([False, True, False])
    item = AugmentItem(image, np.zeros((3, 4), dtype=np.float32), np.arange(base, base + 3), ignore)
    return with_masks(item, masks)


def with_masks(item: AugmentItem, masks: BoolArray) -> AugmentItem:
    layers = InstanceLayers.from_run_lengths(InstanceMasks.from_dense(masks))
    areas, boxes = layers.measure()
    return replace(item, boxes=boxes, masks=layers).select(areas > 0)


def dense_masks(item: AugmentItem) -> BoolArray:
    assert item.masks is not None
    masks = [item.masks.mask(row) for row in range(len(item.masks))]
    return np.array(masks, dtype=np.bool_).reshape(-1, *item.hw)


def assert_bounds_of_masks(item: AugmentItem) -> BoolArray:
    dense = dense_masks(item)
    assert item.boxes.tolist() == [edges(mask) for mask in dense]
    return dense


def is_pure(image: UInt8Array, color: npt.ArrayLike) -> BoolArray:
    """(H, W) bool: pixels of a colour, into which no other one was mixed; within 2 of 255 levels."""
    same: BoolArray = (np.abs(image.astype(int) - np.asarray(color)) <= 2).all(axis=2)
    return same


def assert_labels_on_pixels(item: AugmentItem, min_pure: float) -> None:
    """Where the image shows the colour of a label pure, the semantic map has that label."""
    assert item.semantic is not None
    pure = {label: is_pure(item.image, color) for label, color in LABEL_COLORS.items()}
    assert np.mean(sum(pure.values())) > min_pure
    for label, here in pure.items():
        assert (item.semantic[here] == label).all()


def assert_masks_on_pixels(item: AugmentItem, reach: int) -> None:
    """Pixels of an object's pure colour are in its mask, which is pure further than ``reach`` from its border."""
    around = np.ones((2 * reach + 1, 2 * reach + 1), dtype=np.uint8)
    for mask, label in zip(assert_bounds_of_masks(item), item.labels.tolist(), strict=True):
        pure = is_pure(item.image, OBJECT_COLORS[label])
        assert not (pure & ~mask).any()
        inner = cv2.erode(mask.view(np.uint8), around, borderValue=0) != 0  # its border may lie just outside
        assert (pure | ~inner).all()


def assert_valid(item: AugmentItem, hw: tuple[int, int]) -> None:
    """Everything that the contract of training targets asks."""
    num = len(item.boxes)
    assert (item.image.shape, item.image.dtype) == ((*hw, 3), np.uint8)
    assert item.boxes.shape == (num, 4)
    assert item.labels.shape == item.ignore.shape == (num,)
    assert (item.boxes.dtype, item.labels.dtype, item.ignore.dtype) == (np.float32, np.int64, np.bool_)
    x1, y1, x2, y2 = item.boxes.T
    assert ((x1 >= 0) & (x1 < x2) & (x2 <= hw[1]) & (y1 >= 0) & (y1 < y2) & (y2 <= hw[0])).all()


class PaintedSource:
    """Random images; every object of image i has label i, every third image has none, image `broken` cannot be read."""

    def __init__(self, num: int, broken: int | None = None) -> None:
        self.classes = ClassTable(tuple(f"class{i}" for i in range(num)))
        self.num, self.broken = num, broken

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> Sample:
        if index == self.broken:
            raise DataError(f"{index}.jpg: the image cannot be read")
        rng = np.random.default_rng(index)
        hw = (int(rng.integers(40, 80)), int(rng.integers(40, 80)))
        num = 0 if index % 3 == 0 else 4
        corner, size = rng.uniform(0, 30, (num, 2)), rng.uniform(4, 10, (num, 2))
        boxes: BoxArray = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
        image, labels = rng.integers(0, 256, (*hw, 3), dtype=np.uint8), np.full(num, index, dtype=np.int64)
        return Sample(index, self.image_id(index), f"{index}.jpg", image, boxes, labels, rng.random(num) < 0.5)

    def image_id(self, index: int) -> int:
        return 1000 + index

    def annotations(self, index: int) -> ImageAnnotations:
        sample, no = self[index], np.zeros(len(self[index].labels), dtype=bool)
        boxes = sample.boxes.astype(np.float64)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        return ImageAnnotations(boxes, sample.labels, crowd=sample.ignore, difficult=no, truncated=no, area=area)


class LabeledSource(PaintedSource):
    """The same images with semantic maps instead of boxes; every third map has a part without labels."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        semantic = np.random.default_rng(index).integers(0, self.num, sample.hw, dtype=np.uint8)
        semantic[: 10 if index % 3 == 0 else 0] = IGNORE_LABEL
        return replace(
            sample, boxes=sample.boxes[:0], labels=sample.labels[:0], ignore=sample.ignore[:0], semantic=semantic
        )
