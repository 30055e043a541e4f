"""The VOC reader for segmentation on tiny folders and on the real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.data.annotations.issues import DataIssue
from detseg.data.formats.voc import read_voc_masks
from detseg.errors import DataError
from detseg.structures import ClassTable
from tests.data.formats.mask_layouts import BINARY, write_voc_masks
from tests.shared_data import shared_data


def test_camvid_is_what_its_readme_says() -> None:
    root = shared_data("camvid_small")
    counts = np.zeros(256)
    for split, num in (("train", 367), ("val", 101)):
        dataset = read_voc_masks(root, split)
        assert len(dataset) == num
        assert dataset.classes.names == tuple((root / "classes.txt").read_text().split())
        assert dataset.report.count(DataIssue.ABSENT) == dataset.report.count(DataIssue.ALL_IGNORED) == 0
        for index in range(num):
            counts += np.bincount(dataset.semantic(index).ravel(), minlength=256)
    percent = (100 * counts / counts.sum()).round(1)
    assert percent[:11].tolist() == [15.3, 23.9, 0.9, 30.9, 5.4, 11.2, 1.1, 1.5, 5.0, 0.6, 0.7]
    assert percent[255] == 3.5
    sample = dataset[7]
    with Image.open(root / "SegmentationClass" / f"{Path(sample.path).stem}.png") as stored:
        assert np.array_equal(sample.semantic, np.asarray(stored))


def test_nuclei_have_their_images_in_another_folder() -> None:
    dataset = read_voc_masks(shared_data("dsb2018_nuclei"), "train", classes=("background", "nucleus"))
    assert len(dataset) == 90
    assert dataset.report.lines() == []
    assert dataset.path(0).parent.name == "images"
    sample = dataset[0]
    assert sample.image.shape == (*sample.hw, 3)  # the files are RGBA
    assert np.shape(sample.semantic) == sample.hw
    with pytest.raises(DataError, match=r"and 29 more: only .background. and ignored pixels occur.*is 1 the foregroun"):
        read_voc_masks(shared_data("dsb2018_nuclei"), "val", classes=BINARY, values=(0, 2), ignore_index=1)


def test_camvid_of_the_other_edition_says_what_11_is(tmp_path: Path) -> None:
    names = [f"class{k}" for k in range(11)]
    write_voc_masks(tmp_path, {"a": [list(range(12))]})
    with pytest.raises(DataError, match=r"values \{0, .* 11\} with 11 classes: is 11 void\? set data\.ignore_index=11"):
        read_voc_masks(tmp_path, "train", classes=names)
    dataset = read_voc_masks(tmp_path, "train", classes=names, ignore_index=11)
    assert dataset.semantic(0).tolist() == [[*range(11), 255]]
    with pytest.raises(DataError, match=r"with 11 classes: is 255 void\? set data\.ignore_index=255 \(found: 255 \("):
        read_voc_masks(shared_data("camvid_small"), "val", ignore_index=None)


def test_classes_come_from_the_setting_a_table_or_the_file(tmp_path: Path) -> None:
    write_voc_masks(tmp_path, {"a": [[0, 1]]})
    (tmp_path / "classes.txt").write_text("\ufeffground \n\n traffic light\n")
    assert read_voc_masks(tmp_path, "train").classes.names == ("ground", "traffic light")
    assert read_voc_masks(tmp_path, "train", classes=("x", "y")).classes == ClassTable(("x", "y"), (0, 1))
    table = ClassTable(("x", "y"), (5, 9))
    assert read_voc_masks(tmp_path, "train", classes=table).classes is table


def test_years_and_names(tmp_path: Path) -> None:
    for year, row in (("2007", [0, 1]), ("2012", [1, 0, 0])):
        write_voc_masks(tmp_path / "VOCdevkit" / f"VOC{year}", {"a": [row]}, {"train": "# all\n\na\na\n"})
    dataset = read_voc_masks(tmp_path, "train", ["2007", "2012"], BINARY)
    assert [dataset.semantic(index).tolist() for index in range(2)] == [[[0, 1]], [[1, 0, 0]]]
    assert [dataset.image_id(index) for index in range(2)] == [1, 2]
    assert dataset.report.count(DataIssue.LISTED_TWICE) == 2
    assert dataset.name == "voc 2007 2012 train"


def test_detection_data_has_no_segmentation_lists() -> None:
    with pytest.raises(DataError, match=r"there is no ImageSets/Segmentation in it; .* that holds SegmentationClass"):
        read_voc_masks(shared_data("bccd"), "train", classes=BINARY)
