"""The VOC reader on hand-written folders and on real ones, for both tasks; bad files are in bad_files.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.report import DataReport
from detseg.data.formats.voc import read_voc, read_voc_masks, read_voc_xml
from detseg.data.formats.voc_writer import VocAnnotation, write_voc_xml
from detseg.errors import DataError
from detseg.structures import ClassTable
from tests.data.formats.layouts import BINARY, annotation_xml, object_xml, simple_voc, write_voc, write_voc_masks
from tests.shared_data import shared_data

BCCD_COUNTS = {
    "train": (205, [209, 2382, 214], ["BloodImage_00343"]),
    "val": (87, [83, 968, 87], ["BloodImage_00338"]),
    "trainval": (292, [292, 3350, 301], ["BloodImage_00338", "BloodImage_00343"]),
    "test": (72, [69, 805, 71], []),
}
"""Images of each split; its platelets, red and white blood cells; images with a box whose corners are equal."""


@pytest.mark.parametrize("split", BCCD_COUNTS)
def test_bccd_counts_are_those_of_its_readme(split: str) -> None:
    dataset = read_voc(shared_data("bccd"), split)
    assert dataset.classes.names == ("Platelets", "RBC", "WBC")
    one_pixel = [Path(path).stem for path in dataset.report.examples(DataIssue.ONE_PIXEL)]
    assert (len(dataset), np.bincount(dataset.packed.labels).tolist(), one_pixel) == BCCD_COUNTS[split]
    assert len(dataset.report.lines()) == bool(one_pixel)


def test_a_sample(tmp_path: Path) -> None:
    hard = object_xml(("dog", 1, 1, 20, 10), "<difficult>1</difficult><truncated>1</truncated>")
    xml = annotation_xml(object_xml(("cat", 2, 3, 8, 9)) + hard, "b.jpg")
    dataset = read_voc(write_voc(tmp_path, {"train": "a"}, {"a": xml}), "train")
    sample, objects = dataset[0], dataset.annotations(0)
    assert repr(dataset) == "DetectionDataset(voc train: 1 image; cat, dog)"
    assert (sample.index, sample.image_id, sample.path) == (0, 1, str(tmp_path / "JPEGImages" / "a.jpg"))
    assert (sample.boxes.dtype, sample.boxes.tolist()) == (np.float32, [[1, 2, 8, 9], [0, 0, 20, 10]])
    assert (sample.labels.tolist(), sample.ignore.tolist()) == ([0, 1], [False, True])
    assert objects.truncated.tolist() == [False, True]
    assert objects.area.tolist() == [49, 200]  # 7 x 7 and 20 x 10 pixels
    assert dataset.report.lines() == [
        "annotation files whose <filename> is not their image (ignored; the list's name counts): 1 (a.xml)",
        "difficult objects (neither right nor wrong to find): 1 (JPEGImages/a.jpg)",
    ]


def test_lists_with_comments_blank_lines_and_a_second_column(tmp_path: Path) -> None:
    xmls = {stem: annotation_xml(object_xml(("cat", 1, 1, 2, 2))) for stem in ("a", "b", "my image", "c", "c 1", "c 0")}
    text = "\ufeff\n# comment\nb -1\n\n a  1 \nmy image\nb\nc 1\nc\n"  # "c 1" has an image, so it is a name
    write_voc(tmp_path, {"train": text, "val": "c 0\n"}, xmls)
    dataset = read_voc(tmp_path, "train")
    assert [dataset.path(i).stem for i in range(len(dataset))] == ["b", "a", "my image", "c 1", "c"]
    assert dataset.report.count(DataIssue.LISTED_TWICE) == 1
    (tmp_path / "Annotations" / "c 0.xml").unlink()  # the image alone makes it a name, too
    with pytest.raises(DataError, match=r"Annotations: 1 annotation of the list missing: c 0\.xml"):
        read_voc(tmp_path, "val")


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
    (devkit / "loop").symlink_to(devkit, target_is_directory=True)  # does not name the years twice
    with pytest.raises(DataError, match=r"the years 2007, 2012: set data\.years, or write the split as '2007:train'"):
        read_voc(devkit, "train")


def test_sizes_that_are_not_stated_and_corners_at_0(tmp_path: Path) -> None:
    objects = "".join(object_xml(box) for box in (("cat", 15, 5, 40, 9), ("cat", 0, 0, 5, 5), ("cat", 1, 1, 5, 5)))
    xml = annotation_xml(objects, size_wh=None)
    dataset = read_voc(write_voc(tmp_path, {"train": "a"}, {"a": xml}), "train")
    assert dataset.hw(0) == (10, 20)
    for issue in (DataIssue.SIZE_NOT_STATED, DataIssue.OUTSIDE, DataIssue.ZERO_BASED):
        assert dataset.report.count(issue) == 1
    assert dataset[0].boxes.tolist() == [[14, 4, 20, 9], [0, 0, 5, 5], [0, 0, 5, 5]]
    assert dataset.annotations(0).boxes.tolist() == [[14, 4, 40, 9], [-1, -1, 5, 5], [0, 0, 5, 5]]


def test_the_training_table_rules_the_other_splits(tmp_path: Path) -> None:
    boxes = {"a": [("ant", 1, 1, 2, 2), ("dog", 1, 1, 2, 2)], "b": [("dog", 1, 1, 2, 2)], "c": []}
    xmls = {stem: annotation_xml("".join(object_xml(box) for box in items)) for stem, items in boxes.items()}
    write_voc(tmp_path, {"train": "a", "val": "b\nc"}, xmls)
    table = read_voc(tmp_path, "train").classes
    val = read_voc(tmp_path, "val", classes=table)
    assert val.classes == table == ClassTable(("ant", "dog"))
    assert (val.packed.labels.tolist(), val[1].boxes.shape) == ([1], (0, 4))
    assert [val.report.examples(issue)[0] for issue in (DataIssue.UNSEEN, DataIssue.NO_OBJECTS)] == [
        "ant",
        "JPEGImages/c.jpg",
    ]
    assert read_voc(tmp_path, "val", classes=("dog", "cat")).packed.labels.tolist() == [0]


def test_folders_that_are_no_voc_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: there is no such folder; set data\.root"):
        read_voc(tmp_path / "nowhere", "train")
    for root in (tmp_path, shared_data("formats", "yolo_dataset", "labels")):
        with pytest.raises(DataError, match=rf"^{root}: there is no ImageSets/Main in it, .* nor are there XML files"):
            read_voc(root, "train")
    root = shared_data("formats", "labelme_dataset")
    with pytest.raises(DataError, match=r"its XML files lie in Annotations: name their folder as split, or \. for all"):
        read_voc(root, "train")
    with pytest.raises(DataError, match="expected <annotation> as the outermost element, got 'annotations'"):
        read_voc(shared_data("formats", "cvat_dataset", "for_images", "export_task"), ".")


def loose(root: Path, names: dict[str, str]) -> Path:
    """Files below ``root``: XML files with an object and the given <filename>, images and text files as given."""
    for name, text in names.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".xml"):
            (root / name).write_text(annotation_xml(object_xml(("cat", 2, 3, 8, 9)), text))
        elif name.endswith(".txt"):
            (root / name).write_text(text)
        else:
            Image.new("RGB", (20, 10)).save(root / name, "PNG")
    return root


def paths(root: Path, split: str, report: DataReport | None = None) -> list[str]:
    dataset = read_voc(root, split, report=report)
    return [dataset.packed.path(index) for index in range(len(dataset))]


def test_roboflow() -> None:
    root = shared_data("formats", "roboflow_dataset", "voc")
    train = read_voc(root, "train")
    assert [train.packed.path(index) for index in range(2)] == ["train/train_001.jpg", "train/train_002.jpg"]
    assert train.classes.names == ("label_0", "label_1")
    assert train.packed.boxes.tolist() == [[1, 0, 5, 2], [-1, -1, 2, 4]]
    assert len(read_voc(root, "val", classes=train.classes)) == 1
    assert len(read_voc(root, ".")) == 3
    assert len(read_voc(root, "train+val")) == 3


LOOSE = {
    "labelImg": ({"a.jpg": "", "a.xml": "", "b.png": "", "b.xml": "other.jpg"}, ".", ["a.jpg", "b.png"]),
    "Label Studio": ({"Annotations/a.xml": "a", "images/a.jpg": ""}, ".", ["images/a.jpg"]),
    "folders in both": (
        {f"{d}/{k}/1.{s}": "" for d, s in (("Annotations", "xml"), ("JPEGImages", "jpg")) for k in "xy"},
        ".",
        ["JPEGImages/x/1.jpg", "JPEGImages/y/1.jpg"],
    ),
    "one folder of annotations": (
        {"Annotations/train/a.xml": "", "pics/a.jpg": ""},
        "Annotations/train",
        ["pics/a.jpg"],
    ),
    "by file name": ({"1.xml": "C:\\pics\\b.png", "b.png": ""}, ".", ["b.png"]),
    "valid for val": ({"valid/a.xml": "", "valid/a.jpg": "", "train/b.xml": ""}, "val", ["valid/a.jpg"]),
    "list of images": (
        {"all/a.xml": "", "all/a.jpg": "", "all/b.xml": "", "all/b.jpg": "", "train.txt": "all/b.jpg\n"},
        "train",
        ["all/b.jpg"],
    ),
    "list of XML files": (
        {"x/a.xml": "", "i/a.jpg": "", "x/b.xml": "", "t.txt": "# c\nx/a.xml\n"},
        "t.txt",
        ["i/a.jpg"],
    ),
    "list of stems": ({"x/#1.xml": "", "i/#1.jpg": "", "x/b.xml": "", "t.txt": "#1\n"}, "t", ["i/#1.jpg"]),
}
"""Files and their <filename> or text, the split, its images."""


@pytest.mark.parametrize(("files", "split", "expected"), LOOSE.values(), ids=list(LOOSE))
def test_layouts_without_lists(files: dict[str, str], split: str, expected: list[str], tmp_path: Path) -> None:
    assert paths(loose(tmp_path, files), split) == expected


NOT_CLEAR = {
    "two images": ({"a.xml": "", "x/a.jpg": "", "y/a.jpg": ""}, ".", r"several files with one name: .*x/a\.jpg, .*y/a"),
    "two annotations": (
        {"x/a.xml": "", "y/a.xml": "", "a.jpg": ""},
        ".",
        r"y/a\.xml: its image a\.jpg is that of x/a\.xml, too",
    ),
    "no image": (
        {"a.xml": "", "a.jpg": "", "b.xml": ""},
        ".",
        r"1 of 2 images missing: that of b\.xml; add .*data\.on_missing=skip",
    ),
    "an image of a phone": (
        {"a.xml": "", "a.jpg": "", "b.xml": "", "b.HEIC": ""},
        ".",
        r"1 of 2 images \(b\.HEIC\) are HEIF images, which need the package pi-heif",
    ),
    "an empty list": ({"a.xml": "", "t.txt": "#\n"}, "t", r"t\.txt: it lists no images"),
    "a list of others": ({"a.xml": "", "t.txt": "a\nb.jpg"}, "t", r"t\.txt: 1 of its files missing, or without an XML"),
    "a path outside": ({"a.xml": "", "t.txt": "../a.jpg"}, "t", r"t\.txt:1: expected a path below .*, got '\.\./a"),
    "a split outside": ({"a.xml": ""}, "..", r"split '\.\.': expected a folder or list in it"),
}


@pytest.mark.parametrize(("files", "split", "message"), NOT_CLEAR.values(), ids=list(NOT_CLEAR))
def test_what_is_not_clear_is_an_error(files: dict[str, str], split: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        paths(loose(tmp_path, files), split)


def test_a_tolerant_report_counts_what_is_wrong_and_leaves_it_out(tmp_path: Path) -> None:
    names = {f"{stem}.{suffix}": "" for stem in "abcde" for suffix in ("xml", "jpg")}
    root = loose(tmp_path, names | {"f.xml": "", "g.jpg": "", "h.xml": "", "h.heic": ""})
    (root / "b.xml").write_text("<annotation>")
    no_number = object_xml(("cat", 1, 1, 2, 2)).replace("<xmax>2<", "<xmax>x<")
    wrong = "<object><name>cat</name></object>" + no_number + object_xml(("dog", 1, 1, 2, 2))
    (root / "c.xml").write_text(annotation_xml(wrong))
    (root / "d.xml").write_text(annotation_xml("", size_wh=None))
    (root / "d.jpg").write_bytes(b"no image")
    report = DataReport(True)
    assert paths(root, ".", report) == ["a.jpg", "c.jpg", "e.jpg"]
    counts = {finding.issue.name: finding.count for finding in report.findings()}
    assert counts == {
        "WRONG_FILE": 1,
        "WRONG_OBJECT": 2,
        "UNREADABLE": 1,
        "SIZE_NOT_STATED": 1,
        "MISSING_IMAGE": 1,
        "NEEDS_PACKAGE": 1,
        "UNLABELLED": 2,  # b.jpg, whose annotation cannot be read, and g.jpg
    }
    skip = DataReport([DataIssue.MISSING_IMAGE])
    for name in ("b.xml", "c.xml", "d.xml", "h.xml"):
        (root / name).unlink()
    assert paths(root, ".", skip) == ["a.jpg", "e.jpg"]
    lists = write_voc(
        tmp_path / "lists", {"train": "a\n#b\n#c"}, {"a": annotation_xml(object_xml(("cat", 1, 1, 2, 2)))}
    )
    (lists / "Annotations" / "#b.xml").write_text(annotation_xml(object_xml(("cat", 1, 1, 2, 2))))
    skip = DataReport([DataIssue.MISSING_IMAGE])
    assert (paths(lists, "train", skip), skip.count(DataIssue.MISSING_IMAGE)) == (["JPEGImages/a.jpg"], 1)


def parse(tmp_path: Path, text: str) -> VocAnnotation:
    (tmp_path / "a.xml").write_text(text)
    return read_voc_xml(tmp_path / "a.xml")


def test_corners_become_zero_based_and_half_open(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>"
    boxes = object_xml(("cat", 1, 1, 20, 10)) + object_xml(("dog", 5.5, 6, 5.5, 6), part)
    found = parse(tmp_path, annotation_xml(boxes))
    # A box over the whole 20 x 10 image, and one of a single pixel; parts of an object are no objects.
    assert found.boxes.tolist() == [[0, 0, 20, 10], [4.5, 5, 5.5, 6]]
    assert (found.names, found.hw) == (("cat", "dog"), (10, 20))


def test_flags(tmp_path: Path) -> None:
    flags = ["<difficult>1</difficult><truncated>0</truncated>", "<difficult>0</difficult><truncated>1</truncated>"]
    flags += ["<difficult/><truncated>Unspecified</truncated>", ""]
    found = parse(tmp_path, annotation_xml("".join(object_xml(("cat", 1, 1, 2, 2), extra) for extra in flags)))
    assert found.difficult.tolist() == [True, False, False, False]
    assert found.truncated.tolist() == [False, True, False, False]


@pytest.mark.parametrize("size", ["", "<size/>", "<size><width>0</width><height>40</height></size>"])
def test_missing_or_zero_sizes_are_not_stated(tmp_path: Path, size: str) -> None:
    assert parse(tmp_path, f"<annotation>{size}</annotation>").hw is None


def test_a_box_thinner_than_a_pixel_is_written_one_pixel_wide(tmp_path: Path) -> None:
    boxes = [[4.0, 2, 4.5, 7], [0, 0.2, 20, 0.4], [19.9, 9.5, 20, 10], [3.3, 3, 3.3, 4]]
    flags = np.zeros(4, dtype=np.bool_)
    write_voc_xml(tmp_path / "a.xml", VocAnnotation("a.jpg", (10, 20), ("cat",) * 4, np.array(boxes), flags, flags))
    # A pixel about the centre, 4.25 +- 0.5; at the border the first and the last pixel of the image.
    expected = [[3.75, 2, 4.75, 7], [0, 0, 20, 1], [19, 9, 20, 10], [2.8, 3, 3.8, 4]]
    np.testing.assert_allclose(read_voc_xml(tmp_path / "a.xml").boxes, expected, atol=1e-9)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    flag = np.zeros(1, dtype=np.bool_)
    with pytest.raises(ValueError, match="written with the size of its image"):
        write_voc_xml(tmp_path / "a.xml", VocAnnotation("a.jpg", None, ("cat",), np.ones((1, 4)), flag, flag))
    annotation = VocAnnotation("a", (1, 1), ("cat",), np.ones((1, 4)), flag, flag)
    with pytest.raises(ValueError, match="a score for each of 1 objects, got 2"):
        write_voc_xml(tmp_path / "a.xml", annotation, scores=[0.1, 0.2])
    assert not (tmp_path / "a.xml").exists()


def test_nuclei_have_their_images_in_another_folder() -> None:
    dataset = read_voc_masks(shared_data("dsb2018_nuclei"), "train", classes=("background", "nucleus"))
    assert (len(dataset), dataset.report.lines(), dataset.path(0).parent.name) == (90, [], "images")
    assert dataset[0].image.shape == (*dataset[0].hw, 3)  # the files are RGBA
    with pytest.raises(DataError, match=r"and 29 more: only .background. and ignored pixels occur.*is 1 the foregroun"):
        read_voc_masks(shared_data("dsb2018_nuclei"), "val", classes=BINARY, values=(0, 2), ignore_index=1)


def test_camvid_of_the_other_edition_says_what_11_is(tmp_path: Path) -> None:
    names = [f"class{k}" for k in range(11)]
    write_voc_masks(tmp_path, {"a": [list(range(12))]})
    with pytest.raises(
        DataError,
        match=r"values \{0, .* 11\} with 11 classes: is a class .* is 11 void\? set data\.ignore_index=11",
    ):
        read_voc_masks(tmp_path, "train", classes=names)
    dataset = read_voc_masks(tmp_path, "train", classes=names, ignore_index=11)
    assert dataset.semantic(0).tolist() == [[*range(11), 255]]
    with pytest.raises(DataError, match=r"with 11 classes: is 255 void\? set data\.ignore_index=255 \(expected: 0, "):
        read_voc_masks(shared_data("camvid_small"), "val", ignore_index=None)


def test_classes_come_from_the_setting_a_table_or_the_file(tmp_path: Path) -> None:
    write_voc_masks(tmp_path, {"a": [[0, 1]]})
    (tmp_path / "classes.txt").write_text("\ufeffground \n\n traffic light\n")
    table = ClassTable(("x", "y"), (5, 9))
    found = [
        read_voc_masks(tmp_path, "train", classes=classes).classes
        for classes in (None, [{"x": ["ground"]}, {"y": ["traffic light"]}], table)
    ]
    assert found == [ClassTable(("ground", "traffic light"), (0, 1)), ClassTable(("x", "y"), (0, 1)), table]
    with pytest.raises(
        DataError, match=r"classes\.txt: the class 'grund' is not among .*did you mean 'ground'\?.*: correct data\.cl"
    ):
        read_voc_masks(tmp_path, "train", classes=["grund", "traffic light"])
