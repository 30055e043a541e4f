"""The annotations of a whole data set in a few arrays: I images with T objects in all, N of one image.

Loader processes share large arrays. A small Python object is copied into the memory of every process that touches it,
because its reference count changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.data.annotations.regions import Segmentations
from detseg.data.annotations.shared import SharedArrays
from detseg.structures import BoolArray, FloatArray, ImageAnnotations, IntArray

_ANY_NAME = "surrogatepass"
"""Encodes file names that are not UTF-8, too: `os.fsdecode` makes single surrogates of their bytes."""


@dataclass(frozen=True, eq=False)
class PackedImages(SharedArrays):
    """Ids and paths of I images.

    Attributes:
        image_ids: (I,) int64, all different.
        path_bytes: the images' paths, relative to the data set's root, one after the other in UTF-8.
        path_offsets: (I + 1,) int64; path i is ``path_bytes[path_offsets[i]:path_offsets[i + 1]]``.
    """

    image_ids: IntArray
    path_bytes: bytes
    path_offsets: IntArray

    def __post_init__(self) -> None:
        if len(np.unique(self.image_ids)) != len(self.image_ids):
            raise ValueError("image ids must differ")

    def __len__(self) -> int:
        return len(self.image_ids)

    def path(self, index: int) -> str:
        """The path of one image relative to the data set's root, with forward slashes."""
        begin, end = int(self.path_offsets[index]), int(self.path_offsets[index + 1])
        return self.path_bytes[begin:end].decode("utf-8", _ANY_NAME)

    def select(self, indices: Sequence[int]) -> PackedImages:
        """Some of the images, in the given order, without repetition."""
        return pack_images([self.path(index) for index in indices], self.image_ids[list(indices)])


def pack_images(paths: Sequence[str], image_ids: Sequence[int] | IntArray | None = None) -> PackedImages:
    """Images by their paths; without ids they are counted from 1."""
    ids = np.arange(1, len(paths) + 1) if image_ids is None else np.asarray(image_ids)
    encoded = [path.encode("utf-8", _ANY_NAME) for path in paths]
    return PackedImages(ids.astype(np.int64), b"".join(encoded), running_total([len(path) for path in encoded]))


def running_total(counts: Sequence[int] | IntArray) -> IntArray:
    """(I,) counts → (I + 1,) int64 offsets, from 0 to the sum."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


_OBJECT_COLUMNS = ("boxes", "labels", "crowd", "difficult", "truncated", "area")


@dataclass(frozen=True, eq=False)
class PackedAnnotations(PackedImages):
    """The ground truth of I images with T objects in all.

    Attributes:
        sizes_hw: (I, 2) int64, height and width in pixels, from the annotation file, else from the image.
        offsets: (I + 1,) int64; the objects of image i are the rows ``offsets[i]`` to ``offsets[i + 1]``.
        boxes: (T, 4) float64 xyxy in pixels, exactly as the file states them.
        labels: (T,) int64.
        crowd: (T,) bool.
        difficult: (T,) bool.
        truncated: (T,) bool.
        area: (T,) float64, square pixels; NaN for that of the mask, where there are masks.
        regions: where the segmentations of all T objects lie; None where only boxes were read.
    """

    sizes_hw: IntArray
    offsets: IntArray
    boxes: FloatArray
    labels: IntArray
    crowd: BoolArray
    difficult: BoolArray
    truncated: BoolArray
    area: FloatArray
    regions: Segmentations | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        assert len(self.sizes_hw) == len(self.offsets) - 1 == len(self)
        assert all(len(getattr(self, name)) == self.offsets[-1] for name in _OBJECT_COLUMNS)

    def image(self, index: int) -> ImageAnnotations:
        """The objects of one image, as views of the arrays; their masks are decoded now.

        Raises:
            DataError: a segmentation is wrong.
        """
        rows = range(int(self.offsets[index]), int(self.offsets[index + 1]))
        objects = ImageAnnotations(**self._columns(slice(rows.start, rows.stop)))
        if self.regions is None:
            return objects
        masks, area = self.regions.masks(rows, self.hw(index)), objects.area
        if np.isnan(area).any():
            area = np.where(np.isnan(area), masks.areas, area)
        return replace(objects, masks=masks, area=area)

    def _columns(self, rows: slice | IntArray) -> dict[str, Any]:
        return {name: getattr(self, name)[rows] for name in _OBJECT_COLUMNS}

    def hw(self, index: int) -> tuple[int, int]:
        """Height and width of one image in pixels."""
        return int(self.sizes_hw[index, 0]), int(self.sizes_hw[index, 1])

    def select(self, indices: Sequence[int]) -> PackedAnnotations:
        """The annotations of some images, in the given order, without repetition."""
        selected = np.asarray(indices, dtype=np.int64)
        begins, counts = self.offsets[selected], np.diff(self.offsets)[selected]
        offsets = running_total(counts)
        rows = np.repeat(begins - offsets[:-1], counts) + np.arange(offsets[-1])
        return PackedAnnotations(
            **vars(super().select(indices)),
            sizes_hw=self.sizes_hw[selected],
            offsets=offsets,
            **self._columns(rows),
            regions=None if self.regions is None else self.regions.select(rows),
        )


def pack_annotations(
    images: PackedImages, sizes_hw: Sequence[tuple[int, int]], objects: Sequence[ImageAnnotations]
) -> PackedAnnotations:
    """Images with height and width in pixels, and the objects of each."""
    rows = [no_objects(), *objects]
    columns: dict[str, Any] = {name: np.concatenate([getattr(item, name) for item in rows]) for name in _OBJECT_COLUMNS}
    sizes, offsets = np.array(sizes_hw, np.int64).reshape(-1, 2), running_total([len(item) for item in objects])
    return PackedAnnotations(**vars(images), sizes_hw=sizes, offsets=offsets, **columns)


def no_objects() -> ImageAnnotations:
    """The annotations of an image without objects."""
    flags = np.zeros(0, dtype=np.bool_)
    return ImageAnnotations(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), flags, flags, flags, np.zeros(0))


def trainable(objects: ImageAnnotations, hw: tuple[int, int]) -> tuple[npt.NDArray[np.float32], BoolArray]:
    """The boxes of an image's N objects, and of its height and width, for training, and which can be trained on.

    Returns:
        (N, 4) float32 xyxy, the bounds of the masks where there are any, else the boxes clipped to the image; and (N,)
        bool: whether the stated box has an area in the image, and the mask a pixel.
    """
    boxes, keep = training_boxes(objects.boxes, hw)
    if objects.masks is None:
        return boxes, keep
    bounds = objects.masks.boxes
    return bounds.astype(np.float32), keep & (bounds[:, 2] > bounds[:, 0])


def training_boxes(boxes: FloatArray, hw: IntArray | tuple[int, int]) -> tuple[npt.NDArray[np.float32], BoolArray]:
    """Boxes for training, (N, 4) float32 xyxy clipped to their image, and (N,) bool: whether they have an area then.

    Args:
        boxes: (N, 4) float64 xyxy pixels.
        hw: height and width of the image; or (N, 2), one pair for each box.
    """
    limit = np.asarray(hw)[..., [1, 0, 1, 0]]
    clipped = np.clip(boxes, 0, limit).astype(np.float32)
    return clipped, (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
