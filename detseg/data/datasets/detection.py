"""Data sets of images with boxes and instance masks: image files plus packed annotations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detseg.data.annotations.model import PackedAnnotations, PackedImages, training_boxes
from detseg.data.annotations.report import DataReport
from detseg.data.images.read import read_reduced
from detseg.data.images.values import ValueRange
from detseg.errors import DataError
from detseg.messages import counted, listed
from detseg.ops.letterbox import Letterbox
from detseg.structures import ClassTable, ImageAnnotations, Sample


class ImageDataset:
    """Images with ids, paths relative to ``root``, and the ``report`` of the reader; messages call the set ``name``.

    Torch's loaders take it as it is; its ``Dataset`` would load torch, which what writes annotations does without.
    """

    packed: PackedImages
    value_range: ValueRange = None  # how images of more than 8 bits are read, see `detseg.data.images.values`

    def __init__(self, packed: PackedImages, root: Path, classes: ClassTable, report: DataReport, name: str) -> None:
        self.packed, self.root, self.classes, self.report, self.name = packed, root, classes, report, name

    def __len__(self) -> int:
        return len(self.packed)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}: {counted(len(self), 'image')}; {listed(self.classes.names)})"

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
    """Images with boxes, or with boxes and masks; ``dataset[i]`` decodes image i and returns it with its targets."""

    packed: PackedAnnotations

    def __getitem__(self, index: int) -> Sample:
        """Image ``index`` with the boxes to train on; or with the masks that are not empty, and their bounds. A
        DataError if the image is missing, damaged, or not of the size that its annotation states."""
        return self._sample(index, 1)

    def reduced(self, index: int, input_hw: tuple[int, int]) -> Sample:
        """``dataset[index]``, where JPEGs are decoded at 1/2, 1/4 or 1/8 if the letterbox to ``input_hw`` (height,
        width) shrinks them at least as much; boxes are in pixels of the smaller image. Images with masks stay whole."""
        scale = max(Letterbox.fit(self.hw(index), input_hw).scale_xy)
        divisors = (1,) if self.packed.regions is not None else (1, 2, 4, 8)
        return self._sample(index, max(k for k in divisors if k == 1 or k * scale <= 1))

    def _sample(self, index: int, divisor: int) -> Sample:
        index = self._position(index)
        path = self.path(index)
        image, hw = read_reduced(path, divisor, self.value_range)
        check_same_size(f"{path}: the image", hw, "its annotation says", self.packed.hw(index), made="annotation")
        objects = self.packed.image(index)
        boxes, keep = training_boxes(objects.boxes, hw)
        if objects.masks is not None:  # whatever boxes are stated
            boxes = objects.masks.boxes.astype(np.float32)
            keep = boxes[:, 2] > boxes[:, 0]
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
            masks=None if objects.masks is None else objects.masks.select(np.flatnonzero(keep)),
        )

    def annotations(self, index: int) -> ImageAnnotations:
        """The ground truth of an image exactly as its file states it; the image is not decoded."""
        return self.packed.image(self._position(index))

    def hw(self, index: int) -> tuple[int, int]:
        """Height and width of an image in pixels, as its annotation states them."""
        return self.packed.hw(self._position(index))

    def subset(self, indices: Sequence[int]) -> DetectionDataset:
        """The images at some positions, each at most once, in this order; ids and report stay those of the whole."""
        positions = [self._position(index) for index in indices]
        part = DetectionDataset(self.packed.select(positions), self.root, self.classes, self.report, self.name)
        part.value_range = self.value_range
        return part


def inverse_sqrt_frequency_weights(dataset: DetectionDataset) -> tuple[float, ...]:
    """Class weights for losses in inverse proportion to the square root of the objects to train on of each class.

    Gupta et al. 2019 ("LVIS") repeat images of rare classes by the same root; by the inverse itself one object of a
    rare class would outweigh hundreds. The mean over all objects is 1, so that losses keep their size. A class without
    objects has 1.
    """
    packed = dataset.packed
    counts = np.bincount(packed.labels[~(packed.crowd | packed.difficult)], minlength=len(dataset.classes))
    roots = np.sqrt(counts)
    weights = np.divide(counts.sum() / max(roots.sum(), 1), roots, out=np.ones(len(roots)), where=counts > 0)
    return tuple(weights.tolist())


def check_same_size(what: str, hw: tuple[int, ...], other: str, other_hw: tuple[int, int], made: str) -> None:
    """Raise a DataError if an image and what was ``made`` for it, "annotation" or "mask", differ in (height, width)."""
    if hw == other_hw:
        return
    fix = f"restore the image that the {made} was made for, or correct the {made}"
    if hw == other_hw[::-1]:
        fix = (
            f"the sides are swapped: the {made} was probably made before the image was rotated by its EXIF "
            f"orientation; remove that tag from the image, or rotate the {made}"
        )
    raise DataError(
        f"{what} is {hw[1]} x {hw[0]} pixels (width x height), but {other} {other_hw[1]} x {other_hw[0]}; {fix}"
    )
