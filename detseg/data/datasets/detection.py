"""Data sets of images with boxes and instance masks: image files plus packed annotations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from detseg.data.annotations.issues import DataReport
from detseg.data.annotations.model import PackedAnnotations, PackedImages, trainable
from detseg.data.images.read import read_reduced
from detseg.errors import DataError
from detseg.ops.letterbox import Letterbox
from detseg.structures import ClassTable, ImageAnnotations, Sample


class ImageDataset(Dataset[Sample]):
    """Images with ids: the part that detection and segmentation share.

    Attributes:
        packed: ids and paths of all images.
        root: the folder that the paths are relative to.
        classes: names of the labels.
        report: the issues that the reader found.
        name: the name of this data set in messages.
    """

    packed: PackedImages

    def __init__(self, packed: PackedImages, root: Path, classes: ClassTable, report: DataReport, name: str) -> None:
        self.packed = packed
        self.root = root
        self.classes = classes
        self.report = report
        self.name = name

    def __len__(self) -> int:
        return len(self.packed)

    def image_id(self, index: int) -> int:
        """The id of an image in evaluation files."""
        return int(self.packed.image_ids[self._position(index)])

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.root / self.packed.path(self._position(index))

    def _position(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)} in {self.name}")
        return int(index) % len(self)


class DetectionDataset(ImageDataset):
    """Images with boxes, or with boxes and masks; ``dataset[i]`` decodes image i and returns it with its targets.

    Attributes:
        packed: the images and the annotations of all of them.
    """

    packed: PackedAnnotations

    def __init__(
        self, packed: PackedAnnotations, root: Path, classes: ClassTable, report: DataReport, name: str
    ) -> None:
        super().__init__(packed, root, classes, report, name)

    def __getitem__(self, index: int) -> Sample:
        """Image ``index`` with the boxes to train on, and their masks if the data set has masks.

        With masks, the boxes are the bounds of the masks, and objects with an empty mask are left out.

        Raises:
            DataError: the image is missing, damaged, or not of the size that its annotation states.
            IndexError: there is no such image.
        """
        return self._sample(index, 1)

    def reduced(self, index: int, input_hw: tuple[int, int]) -> Sample:
        """``dataset[index]``, where JPEGs are decoded at 1/2, 1/4 or 1/8 if the letterbox shrinks them at least as
        much; the boxes are in pixels of the smaller image. Images with masks are not reduced.

        Args:
            index: of the image.
            input_hw: height and width of the network input, pixels.
        """
        scale = max(Letterbox.fit(self.hw(index), input_hw).scale_xy)
        divisors = (1,) if self.packed.regions is not None else (1, 2, 4, 8)
        return self._sample(index, max(k for k in divisors if k == 1 or k * scale <= 1))

    def _sample(self, index: int, divisor: int) -> Sample:
        index = self._position(index)
        path = self.path(index)
        image, hw = read_reduced(path, divisor)
        self._check_size(index, hw)
        objects = self.packed.image(index)
        boxes, keep = trainable(objects, hw)
        if image.shape[:2] != hw:
            boxes = boxes / np.float32(divisor)
        return Sample(
            index=index,
            image_id=self.image_id(index),
            path=str(path),
            image=image,
            boxes=boxes[keep],
            labels=objects.labels[keep],
            ignore=objects.ignore[keep],
            masks=None if objects.masks is None else objects.masks.picked(np.flatnonzero(keep)),
        )

    def annotations(self, index: int) -> ImageAnnotations:
        """The ground truth of an image exactly as its file states it, with masks where they were asked for; the image
        is not decoded.

        Raises:
            DataError: a segmentation is wrong.
        """
        return self.packed.image(self._position(index))

    def hw(self, index: int) -> tuple[int, int]:
        """Height and width of an image in pixels, as its annotation states them."""
        return self.packed.hw(self._position(index))

    def subset(self, indices: Sequence[int]) -> DetectionDataset:
        """The images at some positions, each at most once, in this order; ids and report stay those of the whole."""
        positions = [self._position(index) for index in indices]
        return DetectionDataset(self.packed.select(positions), self.root, self.classes, self.report, self.name)

    def _check_size(self, index: int, hw: tuple[int, int]) -> None:
        stated = self.packed.hw(index)
        if stated == hw:
            return
        fix = "correct the annotation or restore the image that it was made for"
        if stated == hw[::-1]:
            fix = swapped_sides("boxes were")
        raise DataError(
            f"{self.path(index)}: the image is {hw[1]} x {hw[0]} pixels (width x height), but its annotation says "
            f"{stated[1]} x {stated[0]}; {fix}"
        )


def swapped_sides(drawn: str) -> str:
    """The probable reason for swapped height and width; ``drawn``: "boxes were" or "mask was"."""
    return (
        f"the sides are swapped: the {drawn} probably drawn before the image was rotated by its EXIF orientation; "
        f"remove that tag from the image, or rotate the {drawn.split()[0]}"
    )
