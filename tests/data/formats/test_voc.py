"""The VOC reader on hand-written folders and on the real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.data.annotations.issues import DataIssue
from detseg.data.formats.voc import read_voc
from detseg.errors import DataError
from detseg.structures import ClassTable
from tests.data.formats.voc_layout import annotation_xml, object_xml, simple_voc, write_voc
from tests.shared_data import shared_data

BCCD_COUNTS = {
    "train": (205, {"RBC": 2382, "WBC": 214, "Platelets": 209}),
    "val": (87, {"RBC": 968, "WBC": 87, "Platelets": 83}),
    "trainval": (292, {"RBC": 3350, "WBC": 301, "Platelets": 292}),
    "test": (72, {"RBC": 805, "WBC": 71, "Platelets": 69}),
}


@pytest.mark.parametrize("split", BCCD_COUNTS)
def test_bccd_counts_are_those_of_its_readme(split: str) -> None:
    images, boxes = BCCD_COUNTS[split]
    dataset = read_voc(shared_data("bccd"), split)
    assert dataset.classes.names == ("Platelets", "RBC", "WBC")
    assert len(dataset) == images
    counts = np.bincount(dataset.packed.labels, minlength=3).tolist()
    assert dict(zip(dataset.classes.names, counts, strict=True)) == boxes


def test_bccd_zero_area_box_becomes_one_pixel_and_is_reported() -> None:
    dataset = read_voc(shared_data("bccd"), "train")
    assert dataset.report.count(DataIssue.ONE_PIXEL) == 1
    assert dataset.report.examples(DataIssue.ONE_PIXEL) == ["JPEGImages/BloodImage_00343.jpg"]
    assert len(dataset.report.lines()) == 1
    index = [dataset.path(i).name for i in range(len(dataset))].index("BloodImage_00343.jpg")
    sample = dataset[index]
    assert sample.image.shape == (480, 640, 3)
    assert [180, 328, 181, 329] in sample.boxes.tolist()
    assert read_voc(shared_data("bccd"), "test").report.lines() == []


def test_a_sample(tmp_path: Path) -> None:
    hard = object_xml(("dog", 1, 1, 20, 10), "<difficult>1</difficult><truncated>1</truncated>")
    xml = annotation_xml(object_xml(("cat", 2, 3, 8, 9)) + hard, "a.jpg")
    dataset = read_voc(write_voc(tmp_path, {"train": "a"}, {"a": xml}), "train")
    sample = dataset[0]
    assert (sample.index, sample.image_id) == (0, 1)
    assert sample.path == str(tmp_path / "JPEGImages" / "a.jpg")
    assert sample.boxes.dtype == np.float32
    assert sample.boxes.tolist() == [[1, 2, 8, 9], [0, 0, 20, 10]]
    assert sample.labels.tolist() == [0, 1]
    assert sample.ignore.tolist() == [False, True]
    objects = dataset.annotations(0)
    assert objects.truncated.tolist() == [False, True]
    assert objects.area.tolist() == [49, 200]  # 7 x 7 and 20 x 10 pixels
    assert dataset.report.lines() == ["difficult objects (neither right nor wrong to find): 1 (JPEGImages/a.jpg)"]


def test_lists_with_comments_blank_lines_and_a_second_column(tmp_path: Path) -> None:
    xmls = {stem: annotation_xml(object_xml(("cat", 1, 1, 2, 2))) for stem in ("a", "b", "my image", "c")}
    write_voc(tmp_path, {"train": "\ufeff\n# comment\nb -1\n\n a  1 \nmy image\nb\n"}, xmls)
    dataset = read_voc(tmp_path, "train")
    assert [dataset.path(i).stem for i in range(len(dataset))] == ["b", "a", "my image"]
    assert dataset.report.count(DataIssue.LISTED_TWICE) == 1


def test_a_name_that_looks_like_a_second_column_is_a_name(tmp_path: Path) -> None:
    xmls = {stem: annotation_xml(object_xml(("cat", 1, 1, 2, 2))) for stem in ("cell 1", "cell", "cell 0", "b")}
    write_voc(tmp_path, {"train": "cell 1\ncell\nb 1\n", "val": "cell 0\n"}, xmls)
    (tmp_path / "Annotations" / "cell 0.xml").unlink()  # the image alone makes it a name, too
    dataset = read_voc(tmp_path, "train")
    assert [dataset.path(i).name for i in range(len(dataset))] == ["cell 1.jpg", "cell.jpg", "b.jpg"]
    assert dataset.report.lines() == []
    with pytest.raises(DataError, match=r"Annotations: 1 annotation\(s\) of the list missing: cell 0\.xml"):
        read_voc(tmp_path, "val")


def test_real_list_with_comment_and_blank_line() -> None:
    dataset = read_voc(shared_data("formats", "voc_dataset", "voc_dataset3"), "train")
    assert [dataset.path(i).name for i in range(len(dataset))] == ["2007_000001.jpg"]


def test_year_folders_are_merged_from_every_kind_of_root(tmp_path: Path) -> None:
    devkit = tmp_path / "data" / "VOCdevkit"
    simple_voc(devkit / "VOC2007", [("cat", 1, 1, 2, 2)])
    simple_voc(devkit / "VOC2012", [("dog", 3, 3, 4, 4), ("ant", 1, 1, 9, 9)])
    for root in (devkit, devkit.parent):
        by_years = read_voc(root, "train", years=["2007", "2012"])
        by_split = read_voc(root, "2007:train + 2012:train")
        for dataset in (by_years, by_split):
            assert [dataset.path(i).parent.parent.name for i in range(2)] == ["VOC2007", "VOC2012"]
            assert dataset.classes.names == ("ant", "cat", "dog")
            assert dataset.packed.labels.tolist() == [1, 2, 0]
            assert dataset.packed.image_ids.tolist() == [1, 2]  # both images are called a.jpg
            assert dataset[1].boxes.tolist() == [[2, 2, 4, 4], [0, 0, 9, 9]]
    assert len(read_voc(devkit / "VOC2007", "2007:train")) == 1
    assert len(read_voc(devkit, "2012:train", years=["2007"])) == 1  # a split's own year wins


def test_the_same_list_joined_twice_counts_once(tmp_path: Path) -> None:
    simple_voc(tmp_path)
    dataset = read_voc(tmp_path, "train+train")
    assert len(dataset) == 1
    assert dataset.report.count(DataIssue.LISTED_TWICE) == 1


def test_real_devkit_with_a_wrong_filename() -> None:
    dataset = read_voc(shared_data("malformed", "annotations", "mmdet_VOCdevkit"), "trainval", years=["2007", "2012"])
    assert dataset.classes.names == ("dog", "person", "train")
    assert dataset.packed.labels.tolist() == [0, 1, 2]
    assert dataset.report.examples(DataIssue.WRONG_FILENAME) == ["000001.xml"]
    assert dataset.path(1).name == "000001.jpg"


def test_a_size_that_is_not_stated_comes_from_the_image(tmp_path: Path) -> None:
    xml = annotation_xml(object_xml(("cat", 15, 5, 40, 9)), size_wh=None)
    dataset = read_voc(write_voc(tmp_path, {"train": "a"}, {"a": xml}), "train")
    assert dataset.hw(0) == (10, 20)
    assert dataset.report.count(DataIssue.SIZE_NOT_STATED) == 1
    assert dataset.report.count(DataIssue.OUTSIDE) == 1
    assert dataset[0].boxes.tolist() == [[14, 4, 20, 9]]
    assert dataset.annotations(0).boxes.tolist() == [[14, 4, 40, 9]]


def test_zero_based_corners_are_reported_and_clipped(tmp_path: Path) -> None:
    dataset = read_voc(simple_voc(tmp_path, [("cat", 0, 0, 5, 5), ("cat", 1, 1, 5, 5)]), "train")
    assert dataset.report.count(DataIssue.ZERO_BASED) == 1
    assert dataset[0].boxes.tolist() == [[0, 0, 5, 5], [0, 0, 5, 5]]


def test_the_training_table_rules_the_other_splits(tmp_path: Path) -> None:
    boxes = {"a": [("ant", 1, 1, 2, 2), ("dog", 1, 1, 2, 2)], "b": [("dog", 1, 1, 2, 2)]}
    xmls = {stem: annotation_xml("".join(object_xml(box) for box in items)) for stem, items in boxes.items()}
    write_voc(tmp_path, {"train": "a", "val": "b"}, xmls)
    train = read_voc(tmp_path, "train")
    val = read_voc(tmp_path, "val", classes=train.classes)
    assert val.classes == train.classes == ClassTable(("ant", "dog"))
    assert val.packed.labels.tolist() == [1]
    assert val.report.examples(DataIssue.UNSEEN) == ["ant"]
    assert read_voc(tmp_path, "val", classes=("dog", "cat")).packed.labels.tolist() == [0]


def test_an_unknown_class_names_file_class_and_neighbour(tmp_path: Path) -> None:
    simple_voc(tmp_path, [("persn", 1, 1, 2, 2)])
    with pytest.raises(DataError, match=r"a\.xml: unknown class 'persn' \(did you mean 'person'\?\)"):
        read_voc(tmp_path, "train", classes=("cat", "person"))


def test_a_split_without_any_object_needs_given_classes(tmp_path: Path) -> None:
    write_voc(tmp_path, {"train": "a"}, {"a": annotation_xml("")})
    with pytest.raises(DataError, match=r"no image of the split 'train' has an object.*data\.classes"):
        read_voc(tmp_path, "train")
    dataset = read_voc(tmp_path, "train", classes=["cat"])
    assert dataset[0].boxes.shape == (0, 4)
    assert dataset.report.count(DataIssue.NO_OBJECTS) == 1


def test_a_contradicted_size_is_an_error_with_a_hint(tmp_path: Path) -> None:
    xml = annotation_xml(object_xml(("cat", 1, 1, 2, 2)), size_wh=(10, 20))
    dataset = read_voc(write_voc(tmp_path, {"train": "a"}, {"a": xml}), "train")
    with pytest.raises(DataError, match=r"a\.jpg: the image is 20 x 10 .* says 10 x 20; the sides are swapped.*EXIF"):
        dataset[0]


def test_other_suffixes_and_ambiguous_images(tmp_path: Path) -> None:
    simple_voc(tmp_path)
    images = tmp_path / "JPEGImages"
    Image.new("RGB", (20, 10), (9, 9, 9)).save(images / "a.PNG")
    assert read_voc(tmp_path, "train").path(0).name == "a.jpg"  # <filename> decides
    (images / "a.jpg").unlink()
    dataset = read_voc(tmp_path, "train")
    assert dataset.path(0).name == "a.PNG"
    assert dataset.report.count(DataIssue.WRONG_FILENAME) == 1
    Image.new("RGB", (20, 10)).save(images / "a.bmp")
    with pytest.raises(DataError, match=r"which image is 'a': a\.PNG, a\.bmp\?"):
        read_voc(tmp_path, "train")


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: there is no such folder; set data\.root"):
        read_voc(tmp_path / "nowhere", "train")
    with pytest.raises(DataError, match="there is no ImageSets/Main"):
        read_voc(tmp_path, "train")
    stems = [f"{number:02}" for number in range(12)]
    xmls = {stem: annotation_xml(object_xml(("cat", 1, 1, 2, 2))) for stem in stems}
    devkit = write_voc(tmp_path / "VOC2007", {"train": "\n".join(stems), "empty": "\n"}, xmls).parent
    with pytest.raises(DataError, match=r"holds the years 2007: set data\.years, or write the split as '2007:train'"):
        read_voc(devkit, "train")
    with pytest.raises(DataError, match="expected VOC2012/ImageSets/Main"):
        read_voc(devkit, "2012:train")
    with pytest.raises(DataError, match=r"tarin\.txt: there is no such list \(did you mean 'train'\?\)"):
        read_voc(devkit, "2007:tarin")
    with pytest.raises(DataError, match="lists no images"):
        read_voc(devkit, "2007:empty")
    for stem in stems[:11]:
        (devkit / "VOC2007" / "JPEGImages" / f"{stem}.jpg").unlink()
    with pytest.raises(DataError, match=r"11 image\(s\) of the list missing: 00, 01.*09, and 1 more"):
        read_voc(devkit, "2007:train")
    (devkit / "VOC2007" / "Annotations" / "11.xml").unlink()
    (devkit / "VOC2007" / "ImageSets" / "Main" / "train.txt").write_text("11")
    with pytest.raises(DataError, match=r"1 annotation\(s\) of the list missing: 11\.xml"):
        read_voc(devkit, "2007:train")


@pytest.mark.parametrize("split", ["", "+train", "2007:", ":train", "../train"])
def test_splits_that_mean_nothing(tmp_path: Path, split: str) -> None:
    simple_voc(tmp_path)
    with pytest.raises(DataError, match="expected a list like 'train'"):
        read_voc(tmp_path, split)


@pytest.mark.parametrize("line", ["sub/a", "a.jpg", "..\\a"])
def test_list_entries_that_are_no_plain_names(tmp_path: Path, line: str) -> None:
    simple_voc(tmp_path)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text(f"a\n{line}\n")
    with pytest.raises(DataError, match=r"train\.txt:2: expected the name of an image without folder and suffix"):
        read_voc(tmp_path, "train")
