"""What holds of everything that a reader accepts, however odd the file was."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from detseg.data.datasets.contract import check_sample
from detseg.data.datasets.detection import DetectionDataset, ImageDataset
from detseg.data.datasets.segmentation import MaskFiles, SegmentationDataset
from detseg.data.images.read import pending_orientation, read_image, read_image_hw
from detseg.errors import DataError
from detseg.structures import IGNORE_LABEL, is_plain_text
from tests.fuzz.mutator import PNG_SIGNATURE, put_together, take_apart


def check_detection(dataset: DetectionDataset) -> None:
    """Boxes, labels, areas and masks are finite and fit together; samples can be trained on."""
    packed = dataset.packed
    check_names(dataset)
    check_lines(dataset.report.lines())
    assert len(dataset) > 0
    assert np.isfinite(packed.boxes).all()
    assert not np.isinf(packed.area).any()
    assert ((packed.labels >= 0) & (packed.labels < len(dataset.classes))).all()
    for index in range(len(dataset)):
        truth = dataset.annotations(index)
        num = len(truth.labels)
        assert truth.boxes.shape == (num, 4)
        if truth.masks is not None:
            assert truth.masks.hw == dataset.hw(index)
            assert len(truth.masks) == num
            assert (truth.masks.areas >= 0).all()
            assert (truth.masks.areas <= np.prod(truth.masks.hw)).all()
        sample = dataset[index]  # DataError where the image is not of the size that the file states
        check_sample(sample, dataset.classes)
        if sample.masks is not None:
            assert (sample.masks.areas > 0).all()
            np.testing.assert_array_equal(sample.masks.boxes.astype(np.float32), sample.boxes)
        else:  # every object that lies in the image with an area is there, clipped by hand
            kept = [row for row in truth.boxes.tolist() if clipped(row, sample.hw)]
            np.testing.assert_array_equal(
                sample.boxes, np.array([clipped(row, sample.hw) for row in kept], dtype=np.float32).reshape(-1, 4)
            )


def clipped(box: list[float], hw: tuple[int, int]) -> list[float]:
    x1, x2 = (float(np.float32(min(max(x, 0.0), float(hw[1])))) for x in box[::2])
    y1, y2 = (float(np.float32(min(max(y, 0.0), float(hw[0])))) for y in box[1::2])
    return [x1, y1, x2, y2] if x1 < x2 and y1 < y2 else []


def check_semantic(dataset: SegmentationDataset) -> None:
    """Maps have the size of their image and hold labels of the table or the ignore label."""
    check_names(dataset)
    check_lines(dataset.report.lines())
    assert len(dataset) > 0
    for index in range(len(dataset)):
        if isinstance(dataset.masks, MaskFiles):
            assert is_inside(Path(dataset.masks.where(index)), dataset.masks.root)
        sample = dataset[index]
        assert sample.semantic is not None
        assert sample.semantic.dtype == np.uint8
        assert sample.semantic.shape == sample.hw
        assert set(np.unique(sample.semantic).tolist()) <= {*range(len(dataset.classes)), IGNORE_LABEL}


def check_names(dataset: ImageDataset) -> None:
    assert all(is_plain_text(name) for name in dataset.classes.names), dataset.classes.names
    for index in range(len(dataset)):
        assert is_inside(dataset.path(index), dataset.root), dataset.path(index)


def is_inside(path: Path, folder: Path) -> bool:
    return os.path.normpath(path).startswith(os.path.normpath(folder) + os.sep)


def check_lines(lines: list[str]) -> None:
    assert all(line.isprintable() for line in lines), lines


def check_image(path: Path) -> None:
    """Pixels are RGB bytes of the size that the header says; those of a PNG are Pillow's."""
    try:
        hw: tuple[int, int] | None = read_image_hw(path)
    except DataError:
        hw = None
    image = read_image(path)
    assert (image.dtype, image.ndim, image.shape[2], image.flags.c_contiguous) == (np.uint8, 3, 3, True)
    assert hw == image.shape[:2]
    content = path.read_bytes()
    if content.startswith(PNG_SIGNATURE):
        with Image.open(path) as header:
            if pending_orientation(header) != 1:
                return
        wanted = [(name, data) for name, data in take_apart(content) if name in {b"IHDR", b"PLTE", b"IDAT", b"IEND"}]
        with Image.open(io.BytesIO(put_together(wanted))) as stored:
            stored.load()  # pixels that Pillow refuses are not to be guessed at
            if stored.mode in {"L", "RGB"}:
                assert np.array_equal(image, np.asarray(stored.convert("RGB")))  # without copies: some are large
