"""The data set that every reader of masks returns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detseg.data.datasets.contract import EvalSource
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.data.formats.voc import read_voc_masks
from detseg.errors import DataError
from tests.data.formats.mask_layouts import BINARY, save_image, write_voc_masks
from tests.data.images.painted import save_turned

MASKS = {"a": [[0, 1, 255]], "b": [[1, 1], [0, 0]], "c": [[255, 255]]}


@pytest.fixture
def dataset(tmp_path: Path) -> SegmentationDataset:
    return read_voc_masks(write_voc_masks(tmp_path, MASKS), "train", classes=BINARY)


def test_a_sample(dataset: SegmentationDataset) -> None:
    sample = dataset[1]
    assert (sample.index, sample.image_id, sample.hw) == (1, 2, (2, 2))
    assert sample.path == str(dataset.root / "JPEGImages" / "b.jpg")
    assert sample.image.shape == (2, 2, 3)
    assert sample.semantic is not None
    assert sample.semantic.dtype == np.uint8
    assert sample.semantic.tolist() == MASKS["b"]
    columns = [(column.shape, column.dtype.name) for column in (sample.boxes, sample.labels, sample.ignore)]
    assert columns == [((0, 4), "float32"), ((0,), "int64"), ((0,), "bool")]
    assert dataset.classes.source_ids == (0, 1)
    assert dataset.report.lines() == [
        "ignored pixels of the masks: 33.3 %",
        "images of which no pixel counts (the whole mask is ignored): 1 (JPEGImages/c.jpg)",
    ]


def test_positions_subset_and_what_evaluation_asks(dataset: SegmentationDataset) -> None:
    source: EvalSource = dataset
    assert [dataset[index].index for index in range(3)] == [0, 1, 2]
    assert [dataset[index].hw for index in range(3)] == [(1, 3), (2, 2), (1, 2)]
    assert dataset.semantic(-1).tolist() == [[255, 255]]
    assert len(source.annotations(2)) == 0
    assert source.image_id(2) == 3
    for ask in (dataset.__getitem__, dataset.semantic, dataset.annotations, dataset.path):
        with pytest.raises(IndexError, match="image 3 of 3 in voc train"):
            ask(3)
    part = dataset.subset([2, 0])
    assert [(part.image_id(index), part.semantic(index).tolist()) for index in range(2)] == [
        (3, MASKS["c"]),
        (1, MASKS["a"]),
    ]
    assert (part[1].index, part.path(1).name, len(dataset.subset([]))) == (1, "a.jpg", 0)


def test_a_mask_of_another_size(dataset: SegmentationDataset) -> None:
    mask, image = dataset.root / "SegmentationClass" / "b.png", save_image(dataset.path(1), (5, 4))
    expected = f"{mask}: the mask is 2 x 2 pixels (width x height), but its image {image} is 4 x 5; "
    for use in (lambda: dataset[1], lambda: read_voc_masks(dataset.root, "train", classes=BINARY)):
        with pytest.raises(DataError) as caught:
            use()
        assert str(caught.value) == expected + "restore the image that the mask was made for, or correct the mask"
    save_turned(dataset.path(0), np.zeros((3, 1, 3), dtype=np.uint8), 6)
    with pytest.raises(DataError, match=r"a\.png: the mask is 3 x 1 .* is 1 x 3; the sides are swapped: the mask was"):
        dataset[0]
