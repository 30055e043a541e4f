"""Data sets of images with semantic label maps, and the sources of the maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from detseg.data.annotations.issues import DataReport
from detseg.data.annotations.model import PackedImages, no_objects
from detseg.data.datasets.detection import ImageDataset, check_same_size
from detseg.data.images.label_maps import read_mask
from detseg.data.images.mask_encoding import MaskEncoding
from detseg.data.images.read import read_image, read_image_hw
from detseg.structures import ClassTable, ImageAnnotations, Sample, UInt8Array


class MaskSource(Protocol):
    """Label maps by position."""

    def read(self, index: int) -> UInt8Array:
        """(H, W) uint8 labels, ``IGNORE_LABEL`` where a pixel is ignored."""

    def where(self, index: int) -> str:
        """The mask's name in messages: its file, and the place in it."""

    def stated_hw(self, index: int) -> tuple[int, int] | None:
        """Height and width of the image in pixels if the mask's file states them; nothing is decoded."""

    def select(self, indices: Sequence[int]) -> MaskSource:
        """The maps at some positions, in this order."""


@dataclass(frozen=True, eq=False)
class PictureMasks:
    """A ``MaskSource`` of mask images, one file for each image.

    Attributes:
        files: the masks' paths, relative to ``root``, in the order of the images.
        encoding: the meaning of their values or colours.
    """

    files: PackedImages
    root: Path
    encoding: MaskEncoding

    def read(self, index: int) -> UInt8Array:
        """See ``MaskSource``."""
        return read_mask(self.where(index), self.encoding)

    def where(self, index: int) -> str:
        """See ``MaskSource``."""
        return str(self.root / self.files.path(index))

    def stated_hw(self, index: int) -> None:
        """See ``MaskSource``; the header of the image is as fast to read."""
        return

    def select(self, indices: Sequence[int]) -> PictureMasks:
        """See ``MaskSource``."""
        return PictureMasks(self.files.select(indices), self.root, self.encoding)


class SegmentationDataset(ImageDataset):
    """Images with label maps, ``masks``, in the order of the images; ``dataset[i]`` decodes image i and its mask."""

    def __init__(
        self, packed: PackedImages, masks: MaskSource, root: Path, classes: ClassTable, report: DataReport, name: str
    ) -> None:
        super().__init__(packed, root, classes, report, name)
        self.masks = masks

    def __getitem__(self, index: int) -> Sample:
        """Image ``index`` with its label map and without boxes.

        Raises:
            DataError: the image or its mask is missing or damaged, or their sizes differ.
            IndexError: there is no such image.
        """
        index = self._position(index)
        path = self.path(index)
        image, semantic = read_image(path), self.masks.read(index)
        self.check_size(index, (image.shape[0], image.shape[1]), semantic.shape)
        return Sample(
            index=index,
            image_id=self.image_id(index),
            path=str(path),
            image=image,
            boxes=np.zeros((0, 4), dtype=np.float32),
            labels=np.zeros(0, dtype=np.int64),
            ignore=np.zeros(0, dtype=np.bool_),
            semantic=semantic,
        )

    def semantic(self, index: int) -> UInt8Array:
        """The label map of an image, see ``MaskSource.read``; the image is not decoded."""
        return self.masks.read(self._position(index))

    def annotations(self, index: int) -> ImageAnnotations:
        """No objects; evaluation asks every data set for them."""
        self._position(index)
        return no_objects()

    def hw(self, index: int) -> tuple[int, int]:
        """Height and width of an image in pixels; nothing is decoded."""
        index = self._position(index)
        return self.masks.stated_hw(index) or read_image_hw(self.path(index))

    def subset(self, indices: Sequence[int]) -> SegmentationDataset:
        """The images at some positions, each at most once, in this order; ids and report stay those of the whole."""
        positions = [self._position(index) for index in indices]
        packed, masks = self.packed.select(positions), self.masks.select(positions)
        return SegmentationDataset(packed, masks, self.root, self.classes, self.report, self.name)

    def check_size(self, index: int, image_hw: tuple[int, int], mask_hw: tuple[int, ...]) -> None:
        """Raise a DataError if a mask does not have the size of its image."""
        where, image = self.masks.where(index), self.path(index)
        check_same_size(f"{where}: the mask", mask_hw, f"its image {image} is", image_hw, made="mask")
