"""YOLO text as real tools write it: layouts, boxes and polygons by hand, and what is reported."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.report import DataReport
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.yolo import read_yolo
from detseg.data.formats.yolo_writer import write_yolo
from detseg.errors import ClassTableError, DataError
from tests.data.formats.layouts import YOLO_LINE, save_image
from tests.shared_data import shared_data


def boxes(dataset: DetectionDataset) -> list[list[list[float]]]:
    return [dataset.annotations(index).boxes.tolist() for index in range(len(dataset))]


def write(root: Path, **files: str) -> Path:
    """Text files by name, with `__` for a slash and the last `_` for the dot; a 20 x 10 image for each .png."""
    for name, content in files.items():
        path = root / ".".join(name.replace("__", "/").rsplit("_", 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            save_image(path, (10, 20))
        else:
            path.write_text(content)
    return root


def test_roboflow() -> None:
    """`../train/images` and `../valid/images` in data.yaml, which lie in train/ and val/; images of 10 x 5 pixels."""
    root = shared_data("formats", "roboflow_dataset", "yolo")
    train = read_yolo(root)
    assert train.classes.names == ("label_0", "label_1")
    assert [train.packed.path(k) for k in (0, 1)] == ["train/images/train_001.jpg", "train/images/train_002.jpg"]
    # 0.35 0.3 0.3 0.2: centre (3.5, 1.5), 3 wide, 1 high. 0.1 0.4 0.2 0.8: centre (1, 2), 2 wide, 4 high.
    assert boxes(train) == [[[2, 1, 5, 2]], [[0, 0, 2, 4]]]
    assert [train[k].labels.tolist() for k in (0, 1)] == [[0], [1]]
    assert train.report.lines() == []
    for split in ("val", "valid", "validation"):
        val = read_yolo(root, split, train.classes)
        assert boxes(val) == [[[0, 0, 1, 2], [0, 0, 9, 1]]]
        assert val.report.examples(DataIssue.OTHER_PLACE) == ["../valid/images is val/images"]


@pytest.mark.parametrize(
    ("names", "lines", "warned"),
    [("", 2, True), ("task: segment\n", 2, False), ("", 3, False)],
)
def test_lines_of_four_corners_alone_may_be_oriented_boxes(
    tmp_path: Path, names: str, lines: int, warned: bool
) -> None:
    text = ["0 0 0 1 0 1 1 0 1\n", "0 .1 .1 .5 .2 .4 .6 .0 .5\n", "0 .5 .5 .2 .2\n"]
    write(
        tmp_path, data_yaml=f"{names}train: images\nnames: [a]\n", images__1_png="", images__1_txt="".join(text[:lines])
    )
    found = read_yolo(tmp_path, report=DataReport(True))
    assert found.report.count(DataIssue.FOUR_CORNERS) == 2 * warned
    write_yolo({"train": found}, tmp_path / "copy")
    again = read_yolo(tmp_path / "copy").report
    assert again.count(DataIssue.FOUR_CORNERS) == 0


@pytest.mark.parametrize(
    ("folder", "split", "image"),
    [
        ("strict", "train", "obj_train_data/1.jpg"),  # darknet: obj.data, obj.names, train.txt
        ("labels", "train", "images/train/1.jpg"),
        ("labels", "val", "images/val/1.jpg"),
        ("annotations", ".", "Images/1.jpg"),
        ("annotations", "Images", "Images/1.jpg"),
    ],
)
def test_darknet_and_folders(folder: str, split: str, image: str) -> None:
    """The lines are cut to six digits; the image has 15 x 10 pixels."""
    dataset = read_yolo(shared_data("formats", "yolo_dataset", folder), split)
    assert [dataset.packed.path(k) for k in range(len(dataset))] == [image]
    assert dataset.classes.names == tuple(f"label_{k}" for k in range(10))
    # (0.133333 - 0.133333_5) · 15 = -7.5e-6; the others in the same way.
    assert boxes(dataset) == [[[-7.5e-06, 2.0, 3.9999975, 4.0], [3.0000075, 3.0, 5.0000025, 6.0]]]
    assert dataset.annotations(0).labels.tolist() == [2, 4]


def test_boxes_and_polygons_by_hand(tmp_path: Path) -> None:
    """Mixed lines: a box, a triangle and a quadrilateral, whose corners are 0.1 · 20 = 2, 0.7 · 10 = 7, ..."""
    lines = "1 0.275 0.4 0.35 0.6\n0 0.1 0.1 0.45 0.1 0.45 0.7\n0 0 0 1 0 1 1 0 1\n"
    write(tmp_path, data_yaml="names: {0: cat, 1: dog}\ntrain: images\n", images__a_png="", labels__a_txt=lines)
    dataset = read_yolo(tmp_path, report=DataReport(True))
    assert boxes_of(dataset) == [(2, 1, 9, 7), (2, 1, 9, 7), (0, 0, 20, 10)]
    stated = dataset.packed.stated(0)
    assert [item.label for item in stated] == [1, 0, 0]
    assert [item.segmentation for item in stated] == [None, [[2, 1, 9, 1, 9, 7]], [[0, 0, 20, 0, 20, 10, 0, 10]]]
    assert [item.area for item in stated] == [42, 21, 200]  # 7 · 6, half of it, the image
    with pytest.raises(DataError, match=r"1 of 3 objects have a box and no outline; draw their polygons"):
        read_yolo(tmp_path, masks=True)
    (tmp_path / "labels" / "a.txt").write_text(lines.partition("\n")[2])
    masks = read_yolo(tmp_path, masks=True).annotations(0).masks
    assert masks is not None
    assert masks.areas.tolist()[1] == 200


def boxes_of(dataset: DetectionDataset) -> list[tuple[float, ...]]:
    return [item.box for item in dataset.packed.stated(0)]


def test_label_files_beside_images_without_their_image(tmp_path: Path) -> None:
    texts = {"a_txt": YOLO_LINE, "gone_txt": YOLO_LINE, "README_txt": "of 2026", "classes_txt": "cat\n"}
    dataset = read_yolo(write(tmp_path, a_png="", **texts), ".")
    assert dataset.report.examples(DataIssue.NO_IMAGE) == ["gone.txt"]


def test_images_without_objects_and_without_files_are_background(tmp_path: Path) -> None:
    images = {f"images__{name}_png": "" for name in "abc"}
    labels = {
        "labels__a_txt": "0 0.5 0.5 0.5 0.5",
        "labels__b_txt": "\n",
        "labels__gone_txt": "",
        "labels__classes_txt": "",
    }
    dataset = read_yolo(write(tmp_path, classes_txt="cat\n", **images, **labels), ".")
    assert [len(found) for found in boxes(dataset)] == [1, 0, 0]
    report = dataset.report
    assert report.examples(DataIssue.NO_OBJECTS) == ["images/b.png", "images/c.png"]
    assert report.examples(DataIssue.NO_LABEL_FILE) == ["images/c.png"]
    assert report.examples(DataIssue.NO_IMAGE) == ["labels/gone.txt"]
    (tmp_path / "images" / "c.png").rename(tmp_path / "images" / "a.bmp")
    shared = read_yolo(tmp_path, ".")
    assert [len(found) for found in boxes(shared)] == [1, 1, 0]
    assert shared.report.examples(DataIssue.SHARED_LABELS) == ["labels/a.txt"]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images__train__a_png", "labels__train__a_txt"),
        ("train__images__a_png", "train__labels__a_txt"),
        ("set__images__train__x__images__a_png", "set__images__train__x__labels__a_txt"),  # the last folder counts
        ("train__a_png", "train__a_txt"),
        ("train__a_png", "labels__train__a_txt"),
        ("train__a_png", "train__labels__a_txt"),
        ("train__Images__a_png", "train__Annotations__a_txt"),
    ],
)
def test_where_labels_lie(image: str, label: str, tmp_path: Path) -> None:
    write(tmp_path, classes_txt="cat\n", **{image: "", label: "0 0.5 0.5 0.5 0.5"})
    split = "train" if "set" not in image else "set"
    assert boxes(read_yolo(tmp_path, split)) == [[[5, 2.5, 15, 7.5]]]


def test_lists_of_images(tmp_path: Path) -> None:
    """Several places for one split, absolute paths of another machine, names that look like comments, repetitions."""
    names = ["images__a_png", "images__b_png", "more__c_png", "images__#1_png"]
    root = write(tmp_path, data_yaml="names: [cat]\ntrain: [lists/a.txt, more]\n", **dict.fromkeys(names, ""))
    write(root, labels__a_txt="0 0.5 0.5 0.5 0.5")
    write(root, lists__a_txt="/home/me/x/images/b.png\n/home/me/x/images/#1.png\n\n/home/me/x/images/b.png\n")
    with pytest.raises(DataError, match="none of 3 images has a label file"):
        read_yolo(root)
    (root / "lists" / "a.txt").write_text("../images/a.png\r\n../images/#1.png\r\n../images/a.png")
    dataset = read_yolo(root)
    assert [dataset.packed.path(k) for k in range(len(dataset))] == ["images/a.png", "images/#1.png", "more/c.png"]
    assert dataset.report.count(DataIssue.LISTED_TWICE) == 1


def test_everything_wrong_is_counted_for_a_tolerant_report(tmp_path: Path) -> None:
    lines = ["0 0.5 0.5 0.5 0.5", "0 5 5 5 5", "0 100 40 300 200", "1 2", "x", "5 0.5 0.5 0.1 0.1", "0 0.1 0.1 0.1 1.2"]
    root = write(tmp_path, classes_txt="cat\n", images__a_png="", images__b_png="", images__c_png="")
    write(root, labels__a_txt="\n".join(lines), labels__b_txt="")
    (root / "labels" / "b.txt").write_bytes(b"\xff\xfe")
    (root / "images" / "c.png").write_bytes(b"no image")
    dataset = read_yolo(root, ".", report=DataReport(True))
    report = dataset.report
    assert boxes(dataset) == [[[5, 2.5, 15, 7.5]]]
    assert report.examples(DataIssue.WRONG_OBJECT) == [
        "labels/a.txt:2",
        "labels/a.txt:3",
        "labels/a.txt:4",
        "labels/a.txt:5",
        "labels/a.txt:7",
    ]
    assert report.examples(DataIssue.UNKNOWN_CLASS) == ["5"]
    assert report.examples(DataIssue.WRONG_FILE) == ["labels/b.txt"]
    assert report.examples(DataIssue.UNREADABLE) == ["images/c.png"]


def test_classes_are_selected_and_merged(tmp_path: Path) -> None:
    lines = "0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5 0.5\n2 0.5 0.5 0.5 0.5\n"
    root = write(tmp_path, data_yaml="names: [lorry, van, cat]\ntrain: images", images__a_png="", labels__a_txt=lines)
    dataset = read_yolo(root, classes=["bus", {"truck": ["van", "lorry"]}][1:])
    assert (dataset.classes.names, dataset.annotations(0).labels.tolist()) == (("truck",), [0, 0])
    assert dataset.report.examples(DataIssue.LEFT_OUT) == ["cat"]
    with pytest.raises(ClassTableError, match="the class 'vann' is not among its classes"):
        read_yolo(root, classes=["vann"])


def test_thousands_of_images_open_in_seconds(tmp_path: Path) -> None:
    """500 links to one image; 20 000 take forty times as long."""
    root = write(tmp_path, classes_txt="cat\n", image_png="")
    for name in ("images", "labels"):
        (root / name).mkdir()
    for number in range(500):
        (root / "images" / f"{number}.png").symlink_to(root / "image.png")
        (root / "labels" / f"{number}.txt").write_text("0 0.5 0.5 0.5 0.5\n" * 5)
    start = time.process_time()
    assert len(read_yolo(root, "images").packed.boxes) == 2_500
    assert time.process_time() - start < 2
