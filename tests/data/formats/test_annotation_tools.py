"""LabelMe's JSON and CVAT's XML: every shape by hand, flags, groups, layouts, and what is reported."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.model import StatedObject, region_counts
from detseg.data.annotations.report import DataReport
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.cvat import read_cvat
from detseg.data.formats.labelme import read_labelme
from detseg.errors import DataError
from detseg.ops.masks import decode_mask
from tests.data.formats.layouts import HW, cvat_content, labelme_content, save_image
from tests.shared_data import shared_data

SHARP = np.array([[1, 0, 1], [1, 1, 0]], dtype=bool)


def png(mask: Any) -> str:
    file = io.BytesIO()
    Image.fromarray(np.asarray(mask, dtype=np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def shape(kind: str, *points: tuple[float, float], label: str = "cat", **more: Any) -> dict[str, Any]:
    return {"label": label, "shape_type": kind, "points": [list(point) for point in points], "flags": {}} | more


def read_shapes(folder: Path, *shapes: dict[str, Any]) -> tuple[list[StatedObject], DataReport]:
    save_image(folder / "a.png", HW)
    (folder / "a.json").write_text(json.dumps(labelme_content(*shapes)))
    dataset = read_labelme(folder, ".", report=DataReport(True))
    return dataset.packed.stated(0), dataset.report


def read_xml(folder: Path, shapes: str, **options: Any) -> tuple[list[StatedObject], DataReport]:
    save_image(folder / "images" / "a.png", HW)
    (folder / "annotations.xml").write_text(cvat_content(shapes, **options))
    dataset = read_cvat(folder, "train", report=DataReport(True))
    return dataset.packed.stated(0), dataset.report


def pixels(stated: StatedObject) -> list[list[int]]:
    """(row, column) of each pixel of a mask."""
    return np.argwhere(decode_mask(region_counts(stated.segmentation, HW), HW)).tolist()


PLACED = [[2, 4], [2, 6], [3, 4], [3, 5]]  # SHARP at row 2, column 4


def check_circle(stated: StatedObject) -> None:
    """A circle of radius 3 about (8, 5)."""
    corners = np.reshape(stated.segmentation[0], (-1, 2))
    assert corners.shape == (64, 2)
    np.testing.assert_allclose(np.hypot(*(corners - [8, 5]).T), 3, atol=1e-8)
    assert stated.box == (5, 2, 11, 8)
    assert stated.area == pytest.approx(32 * 9 * math.sin(2 * math.pi / 64))  # n/2 · r² · sin(2π/n)


def test_shapes_of_labelme(tmp_path: Path) -> None:
    found, report = read_shapes(
        tmp_path,
        shape("rectangle", (9.5, 1), (2, 7.25)),
        shape("polygon", (2, 1), (9, 1), (9, 7)),
        shape("circle", (8, 5), (8, 2)),
        shape("mask", (4, 2), (6, 3), mask=png(SHARP)),
        shape("rectangle", (2, 1), (9, 1), (9, 7), (2, 7)),  # as X-AnyLabeling writes it
        *(shape(kind, (1, 1), (2, 2)) for kind in ("point", "line", "linestrip", "points")),
    )
    assert [item.box for item in found[:2]] == [(2, 1, 9.5, 7.25), (2, 1, 9, 7)]
    assert [item.segmentation for item in found[:2]] == [None, [[2, 1, 9, 1, 9, 7]]]
    check_circle(found[2])
    assert (pixels(found[3]), found[3].box, found[3].area) == (PLACED, (4, 2, 7, 4), 4)
    assert (found[4].box, found[4].segmentation) == ((2, 1, 9, 7), None)
    assert (len(found), report.count(DataIssue.OTHER_SHAPE)) == (5, 4)


def test_shapes_of_cvat(tmp_path: Path) -> None:
    found, report = read_xml(
        tmp_path,
        '<box label="cat" occluded="1" xtl="2.50" ytl="1" xbr="9" ybr="7.25" z_order="0"/>'
        '<polygon label="cat" points="2,1;9.5,1;9,7"/>'
        '<ellipse label="cat" cx="8" cy="5" rx="3" ry="3"/>'
        '<mask label="cat" rle="0, 1, 1, 3, 1" left="4" top="2" width="3" height="2"/>'
        '<polyline label="cat" points="1,2;3,4"/><points label="cat" points="1,2"/><tag label="cat"/>'
        '<cuboid label="cat"/><skeleton label="cat"><points label="x" points="1,2"/></skeleton>'
        '<ellipse label="cat" cx="8" cy="5" rx="4" ry="2" rotation="90"/>',
    )
    assert [item.box for item in found[:2]] == [(2.5, 1, 9, 7.25), (2, 1, 9.5, 7)]
    assert [item.segmentation for item in found[:2]] == [None, [[2, 1, 9.5, 1, 9, 7]]]
    check_circle(found[2])
    # Rows of 3: inside 1, outside 1, inside 3, outside 1.
    assert (pixels(found[3]), found[3].box, found[3].area) == (PLACED, (4, 2, 7, 4), 4)
    assert found[4].box == pytest.approx((6, 1, 10, 9))  # a quarter turn swaps the radii
    assert (len(found), report.count(DataIssue.OTHER_SHAPE)) == (5, 5)
    assert not any(item.truncated or item.difficult or item.crowd for item in found)  # occluded is none of these


def flags_of(found: list[StatedObject]) -> list[tuple[bool, bool, bool]]:
    return [(item.crowd, item.difficult, item.truncated) for item in found]


FLAGS = [(True, False, False), (False, True, False), (False, True, False), (False, False, True), (False, False, False)]
FLAG_NAMES = ("crowd", "difficult", "ignore", "truncated", "blurred")


def test_flags(tmp_path: Path) -> None:
    corners = (2, 1), (9, 7)
    shapes = [shape("rectangle", *corners, flags={name: True, "truncated": name == "truncated"}) for name in FLAG_NAMES]
    found, _ = read_shapes(tmp_path / "labelme", *shapes)
    assert flags_of(found) == FLAGS
    box = '<box label="cat" xtl="2" ytl="1" xbr="9" ybr="7"><attribute name="{}">{}</attribute></box>'
    found, _ = read_xml(tmp_path / "cvat", "".join(box.format(name, "true") for name in FLAG_NAMES))
    assert flags_of(found) == FLAGS
    found, _ = read_xml(tmp_path / "cvat", "".join(box.format(name, "false") for name in FLAG_NAMES))
    assert flags_of(found) == FLAGS[4:] * 5


TRIANGLES = [[1, 1, 3, 1, 3, 3], [5, 5, 8, 5, 8, 8]]


def test_groups_are_objects_of_several_parts(tmp_path: Path) -> None:
    """Outlines of one label and one group; boxes, other labels and other groups are objects of their own."""
    first, second = (list(zip(line[::2], line[1::2], strict=True)) for line in TRIANGLES)
    found, _ = read_shapes(
        tmp_path / "labelme",
        shape("polygon", *first, group_id=0),
        shape("polygon", *second, group_id=0, flags={"difficult": True}),
        shape("polygon", *second, group_id=0, label="dog"),
        shape("polygon", *second, group_id=None),
        shape("polygon", *second, group_id=None),
        shape("rectangle", (1, 1), (2, 2), group_id=0),
        shape("mask", (4, 2), (6, 3), mask=png(SHARP), group_id=3),
        shape("polygon", (1, 1), (2, 1), (2, 2), (1, 2), group_id=3),
    )
    assert [item.segmentation for item in found[:2]] == [TRIANGLES, TRIANGLES[1:]]
    assert [item.box for item in found[:2]] == [(1, 1, 8, 8), (5, 5, 8, 8)]
    assert [item.difficult for item in found] == [True, False, False, False, False, False]
    assert pixels(found[5]) == [[1, 1], *PLACED]
    assert found[5].box == (1, 1, 7, 4)
    points = [";".join(f"{x},{y}" for x, y in line) for line in (first, second)]
    one = '<polygon label="cat" points="{}" group_id="{}"/>'
    found, _ = read_xml(
        tmp_path / "cvat", "".join(one.format(p, g) for p, g in zip(points * 2, (1, 1, 0, 0), strict=True))
    )
    assert [item.segmentation for item in found] == [TRIANGLES, TRIANGLES[:1], TRIANGLES[1:]]


def paths(dataset: DetectionDataset) -> list[str]:
    return [dataset.packed.path(index) for index in range(len(dataset))]


def test_folders_of_labelme(tmp_path: Path) -> None:
    """JSON files at any depth and apart from their images; images that nobody has labelled are left out."""
    files = {"train/a": "a.png", "train/x/b": "..\\a2.png", "train/json/c": "../img/c.png", "valid/d": "d.png"}
    for name, image in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.json").write_text(json.dumps(labelme_content(imagePath=image)))
    for name in ("train/a", "train/a2", "train/img/c", "train/img/new", "valid/d"):
        save_image(tmp_path / f"{name}.png", HW)
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ndog\ncat\n")
    train = read_labelme(tmp_path, "train")
    assert paths(train) == ["train/a.png", "train/img/c.png", "train/a2.png"]
    assert train.classes.names == ("dog", "cat")
    assert train.annotations(0).labels.tolist() == [1]
    assert train.report.examples(DataIssue.UNLABELLED) == ["train/img/new.png"]
    assert paths(read_labelme(tmp_path, "val", train.classes)) == ["valid/d.png"]
    (tmp_path / "some.txt").write_text("train/a.png\ntrain/a2.png\n")
    some = read_labelme(tmp_path, "some")
    assert (paths(some), some.report.examples(DataIssue.UNLABELLED)) == (["train/a.png"], ["train/a2.png"])


def test_what_is_wrong_is_counted_for_a_tolerant_report(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(labelme_content(shape("polygon", (1, 1)))))
    save_image(tmp_path / "a.png", HW)
    with pytest.raises(DataError, match=r"a\.json: shape 0: expected a rectangle, polygon, circle or mask, got 'poly"):
        read_labelme(tmp_path, ".")
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "c.json").write_text(json.dumps(labelme_content(imagePath="c.png", imageData="AA==")))
    (tmp_path / "d.json").write_text(json.dumps(labelme_content(imagePath="gone.png")))
    (tmp_path / "labels.txt").write_text("dog\n")
    report = read_labelme(tmp_path, ".", report=DataReport(True)).report
    kinds = DataIssue.WRONG_FILE, DataIssue.WRONG_OBJECT, DataIssue.EMBEDDED_IMAGE, DataIssue.MISSING_IMAGE
    assert [report.count(kind) for kind in kinds] == [1, 1, 1, 1]
    box = '<box label="{}" xtl="{}" ytl="1" xbr="9" ybr="7" rotation="{}"/>'
    shapes = [box.format("dog", 1, 0), box.format("cat", 1, 0), box.format("dog", "x", 0), box.format("dog", 1, 45.5)]
    found, report = read_xml(tmp_path / "cvat", "".join(shapes), labels=["dog"])
    wrong = DataIssue.UNKNOWN_CLASS, DataIssue.WRONG_OBJECT, DataIssue.ROTATED
    assert [len(found), *(report.count(kind) for kind in wrong)] == [1, 1, 1, 1]


@pytest.mark.parametrize(("split", "folder"), [("train", "Train"), ("VAL", "Validation"), ("Test", "Test")])
def test_a_project_of_cvat(split: str, folder: str) -> None:
    """Images of one name in several subsets; one box and one polygon each, besides a line and points."""
    root = shared_data("formats", "cvat_dataset", "for_images", "export_project")
    dataset = read_cvat(root, split)
    assert paths(dataset) == [f"images/{folder}/img0.jpg", f"images/{folder}/img1.jpg"]
    assert dataset.classes.names == ("label1", "label2")
    assert [dataset.annotations(k).boxes.tolist() for k in (0, 1)] == [[[0, 2, 4, 4]], [[1, 2, 6, 5]]]
    assert [dataset.hw(k) for k in (0, 1)] == [(8, 8), (10, 10)]
    assert dataset.report.count(DataIssue.OTHER_SHAPE) == 2


def test_a_task_of_cvat() -> None:
    """The file train.xml is the split; its polygon has an empty label."""
    root = shared_data("formats", "cvat_dataset", "for_images", "export_task")
    with pytest.raises(DataError, match=r"image 'img1.jpg': shape 0: unknown class ''; <labels> has label1"):
        read_cvat(root)
    dataset = read_cvat(root, report=DataReport(True))
    assert paths(dataset) == ["images/img0.jpg", "images/img1.jpg"]
    assert [dataset.packed.stated(0)[0].box, dataset.packed.stated(1)] == [(0, 2, 4, 4), []]


def test_files_of_cvat_in_a_folder_of_their_own(tmp_path: Path) -> None:
    for split in ("train", "val"):
        save_image(tmp_path / "images" / f"{split}.png", HW)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"{split}.xml").write_text(cvat_content(name=f"{split}.png"))
    assert paths(read_cvat(tmp_path, "annotations/val.xml")) == ["images/val.png"]
    assert paths(read_cvat(tmp_path, "annotations/train")) == ["images/train.png"]


def test_the_old_xml_of_labelme_is_refused() -> None:
    with pytest.raises(
        DataError, match="1 XML files, but no JSON of LabelMe; its old XML is not supported; export JSON"
    ):
        read_labelme(shared_data("formats", "labelme_dataset"), ".")
