"""What every reader returns: samples, and a data set that worker processes can use."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.voc import read_voc
from detseg.errors import DataError
from detseg.structures import Sample
from tests.data.formats.voc_layout import annotation_xml, object_xml, write_voc
from tests.shared_data import shared_data


@pytest.fixture
def dataset(tmp_path: Path) -> DetectionDataset:
    xmls = {stem: annotation_xml(object_xml((name, 1, 1, 5, 6))) for stem, name in (("a", "x"), ("b", "y"), ("c", "z"))}
    return read_voc(write_voc(tmp_path, {"train": "a\nb\nc"}, xmls), "train")


def same(one: Sample, other: Sample) -> bool:
    return one.path == other.path and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("image", "boxes", "labels", "ignore")
    )


def test_positions(dataset: DetectionDataset) -> None:
    assert len(dataset) == 3
    assert [sample.index for sample in dataset] == [0, 1, 2]
    assert dataset[-1].index == 2
    assert dataset.name == "voc train"
    for wrong in (3, -4):
        with pytest.raises(IndexError, match="of 3 in voc train"):
            dataset[wrong]


def test_subset(dataset: DetectionDataset) -> None:
    part = dataset.subset([2, 0])
    assert len(part) == 2
    assert [part.image_id(i) for i in range(2)] == [3, 1]
    assert part[0].labels.tolist() == [2]
    assert part[0].index == 0
    assert part.classes == dataset.classes
    assert part.path(1).name == "a.jpg"
    assert len(dataset.subset([])) == 0


def test_boxes_can_be_written_into_without_touching_the_ground_truth(dataset: DetectionDataset) -> None:
    sample = dataset[0]
    sample.boxes[:] = 0
    sample.image[:] = 0
    sample.labels[:] = 7
    sample.ignore[:] = True
    assert dataset.annotations(0).boxes.tolist() == [[0, 0, 5, 6]]
    assert dataset.annotations(0).labels.tolist() == [0]
    torch.from_numpy(sample.image)


def test_a_decoded_size_that_contradicts_the_annotation(dataset: DetectionDataset) -> None:
    Image.new("RGB", (21, 10)).save(dataset.path(1))
    with pytest.raises(DataError, match=r"b\.jpg: the image is 21 x 10 .*annotation says 20 x 10; correct"):
        dataset[1]


def test_a_turned_image_has_its_annotation_checked_upright(dataset: DetectionDataset) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(dataset.path(0), exif=exif)
    with pytest.raises(DataError, match=r"the image is 10 x 20 .*says 20 x 10; the sides are swapped"):
        dataset[0]


def test_a_damaged_image_is_an_error_that_names_it(dataset: DetectionDataset) -> None:
    dataset.path(2).write_bytes(shared_data("malformed", "images", "truncated_jpeg.jpg").read_bytes())
    with pytest.raises(DataError, match=r"c\.jpg: cannot read the image: image file is truncated"):
        dataset[2]


def test_pickling(dataset: DetectionDataset) -> None:
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301 - what a spawned worker receives
    assert same(copy[1], dataset[1])
    assert copy.report.lines() == dataset.report.lines()


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_what_the_parent_reads(dataset: DetectionDataset, start: str) -> None:
    loader = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context=start)
    samples = list(loader)
    assert len(samples) == 3
    for sample, expected in zip(samples, dataset, strict=True):
        # Without a collate function the loader turns the arrays into tensors.
        assert sample.path == expected.path
        assert np.array_equal(np.asarray(sample.image), expected.image)
        assert np.array_equal(np.asarray(sample.boxes), expected.boxes)
