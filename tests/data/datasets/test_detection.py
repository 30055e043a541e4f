"""The data set that the readers of boxes return."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.voc import read_voc
from detseg.errors import DataError
from tests.data.formats.voc_layout import annotation_xml, object_xml, write_voc
from tests.data.images.painted import save_turned
from tests.shared_data import shared_data


@pytest.fixture
def dataset(tmp_path: Path) -> DetectionDataset:
    xmls = {stem: annotation_xml(object_xml((name, 1, 1, 5, 6))) for stem, name in (("a", "x"), ("b", "y"), ("c", "z"))}
    return read_voc(write_voc(tmp_path, {"train": "a\nb\nc"}, xmls), "train")


def test_positions_and_subset(dataset: DetectionDataset) -> None:
    assert [sample.index for sample in dataset] == [0, 1, 2]
    assert dataset[-1].index == 2
    for wrong in (3, -4):
        with pytest.raises(IndexError, match=f"image {wrong} of 3 in voc train"):
            dataset[wrong]
    part = dataset.subset([2, 0])
    assert [part.image_id(i) for i in range(len(part))] == [3, 1]
    assert (part[0].index, part[0].labels.tolist()) == (0, [2])
    assert part.classes == dataset.classes
    assert part.path(1).name == "a.jpg"
    assert len(dataset.subset([])) == 0


def test_samples_may_be_changed_without_changing_the_ground_truth(dataset: DetectionDataset) -> None:
    sample = dataset[0]
    sample.boxes[:], sample.image[:], sample.labels[:], sample.ignore[:] = 0, 0, 7, True
    assert dataset.annotations(0).boxes.tolist() == [[0, 0, 5, 6]]
    assert dataset.annotations(0).labels.tolist() == [0]
    torch.from_numpy(sample.image)


def test_images_that_contradict_their_annotation_or_are_damaged(dataset: DetectionDataset) -> None:
    save_turned(dataset.path(0), np.zeros((20, 10, 3), dtype=np.uint8), 6)
    Image.new("RGB", (21, 10)).save(dataset.path(1))
    dataset.path(2).write_bytes(shared_data("malformed", "images", "truncated_jpeg.jpg").read_bytes())
    for index, message in enumerate((
        r"a\.jpg: the image is 10 x 20 .*says 20 x 10; the sides are swapped: the annotation was probably made before",
        r"b\.jpg: the image is 21 x 10 .*annotation says 20 x 10; restore the image that the annotation was made",
        r"c\.jpg: ",
    )):  # fmt: skip
        with pytest.raises(DataError, match=message):
            dataset[index]
