"""What may become of a file of the real, odd collections: the tables of test_malformed and test_formats are made of
these checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from detseg.data.formats.coco import read_coco
from detseg.data.formats.voc import read_voc
from detseg.data.formats.voc_xml import read_voc_xml
from detseg.data.images.read import read_image, read_image_hw
from detseg.errors import DataError
from detseg.structures import UInt8Array

Check = Callable[[Path], None]
Object = tuple[str, float, float, float, float]
"""Class and corners, 0-based and half-open."""


def listed(folder: str, names: str) -> list[str]:
    """Paths of the files of a folder, from their names in one text."""
    return [f"{folder}/{name}" for name in names.split()]


def files_below(folder: Path) -> set[str]:
    """The paths of all files, relative to the folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def pillow_pixels(path: Path) -> UInt8Array:
    """(H, W, 3) uint8 as Pillow alone reads them, upright; of 16 bits the upper 8."""
    with Image.open(path) as stored:
        upright = ImageOps.exif_transpose(stored)
        if upright.mode.startswith("I"):
            return np.stack([(np.asarray(upright).astype(np.int64) // 256).astype(np.uint8)] * 3, axis=2)
        return np.asarray(upright.convert("RGB"))


def pixels(path: Path) -> None:
    """The image is read, to the pixels that Pillow gives."""
    image, expected = read_image(path), pillow_pixels(path)
    assert image.shape == expected.shape
    assert np.array_equal(image, expected)
    assert read_image_hw(path) == image.shape[:2]


def error_of(call: Callable[[], object], path: Path) -> str:
    """The message of the DataError that a call raises: one line that names the file."""
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def no_image(words: str) -> Check:
    """Reading the image is an error that says so."""

    def check(path: Path) -> None:
        assert words in error_of(lambda: read_image(path), path)

    return check


def nothing_of_ours(path: Path) -> None:
    """No reader takes the file for its own."""
    readers: tuple[Callable[[Path], object], ...] = (read_image, read_voc_xml)
    for read in readers:
        error_of(partial(read, path), path)
    error_of(lambda: read_coco(path.parent, path), path)


def voc_xml(*objects: Object, hw: tuple[int, int] | None = None) -> Check:
    """An annotation file of VOC with these objects, and the size that it states."""

    def check(path: Path) -> None:
        found = read_voc_xml(path)
        assert found.hw == hw
        assert [(name, *box) for name, box in zip(found.names, found.boxes.tolist(), strict=True)] == list(objects)

    return check


def no_voc_xml(words: str) -> Check:
    """An XML file that is no annotation of VOC."""

    def check(path: Path) -> None:
        assert words in error_of(lambda: read_voc_xml(path), path)

    return check


def voc_list(*images: str, classes: Iterable[str] | None = None) -> Check:
    """A list in ``ROOT/ImageSets/Main`` of these images, which are decoded."""

    def check(path: Path) -> None:
        dataset = read_voc(path.parents[2], path.stem, classes=classes if classes is None else tuple(classes))
        assert [Path(dataset[i].path).name for i in range(len(dataset))] == list(images)

    return check


def no_voc_list(words: str) -> Check:
    """A list in ``ROOT/ImageSets/Main`` that cannot be read; the message names the folder of the data."""

    def check(path: Path) -> None:
        assert words in error_of(lambda: read_voc(path.parents[2], path.stem), path.parents[2])

    return check


def coco_file(images: str, *objects: tuple[str, Object], crowd: int = 0, masks: Check | None = None) -> Check:
    """A file of COCO: the objects with the names of their images, in the order of the images, and how many are crowds.

    Args:
        images: the image folder, relative to the file's.
        objects: image and object.
        crowd: how many are regions of many objects.
        masks: what else the file must satisfy when masks are read.
    """

    def check(path: Path) -> None:
        dataset = read_coco(path.parent / images, path)
        found: list[tuple[str, Object]] = []
        for index in range(len(dataset)):
            truth = dataset.annotations(index)
            for label, (x1, y1, x2, y2) in zip(truth.labels.tolist(), truth.boxes.tolist(), strict=True):
                found.append((dataset.path(index).name, (dataset.classes.names[label], x1, y1, x2, y2)))
            assert dataset[index].hw == dataset.hw(index)  # the image is decoded, and of the stated size
        assert found == list(objects)
        assert int(dataset.packed.crowd.sum()) == crowd
        if masks is not None:
            masks(path)

    return check


def no_coco_file(images: str, words: str, masks: bool = False) -> Check:
    """A JSON file that is none of COCO's instances, or (``masks``) has objects without masks."""

    def check(path: Path) -> None:
        folder = path.parent / images
        assert words in error_of(lambda: read_coco(folder, path, masks=masks), path)

    return check


def mask_bounds(images: str, *boxes: tuple[float, float, float, float]) -> Check:
    """A file of COCO whose only image has masks with these bounds."""

    def check(path: Path) -> None:
        assert read_coco(path.parent / images, path, masks=True)[0].boxes.tolist() == [list(box) for box in boxes]

    return check
