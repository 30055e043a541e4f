"""`detseg convert`: a real set to every format and back, and what is lost and wrong; see test_round_trips.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from detseg.cli import main
from detseg.cli.data.convert import convert
from detseg.cli.tool import run_tool
from detseg.config.schema.data import AutoConfig
from detseg.data.annotations.report import DataReport
from detseg.data.build import open_split, resolve_layout
from detseg.data.datasets.detection import DetectionDataset
from tests.data.checks.test_checks import coco_split
from tests.data.formats.layouts import (
    CVAT_BOX,
    annotation_xml,
    coco_content,
    cvat_content,
    labelme_content,
    object_xml,
    save_image,
)
from tests.shared_data import shared_data

FORMATS = ("voc", "coco", "yolo", "labelme", "cvat")


def opened(root: Path, split: str = "train", classes: tuple[str, ...] | None = None) -> DetectionDataset:
    """A split of a folder, whatever its layout."""
    config = resolve_layout(AutoConfig(name="auto", root=root, classes=classes), "boxes")
    config, report = config.model_copy(update={"val_fraction": None}), DataReport(True)
    return open_split(config, "train" if split == "train" else "val", None, report=report)


def contents(dataset: DetectionDataset) -> dict[str, list[tuple[str, tuple[float, ...], bool, int]]]:
    """The objects of each image: class, box to a ten thousandth, difficult or crowd, polygons."""
    found = {}
    for index in range(len(dataset)):
        objects = [
            (
                dataset.classes.names[item.label],
                tuple(round(value, 3) for value in item.box),
                item.difficult or item.crowd,
                len(item.segmentation or ()),
            )
            for item in dataset.packed.stated(index)
        ]
        found[Path(dataset.path(index)).stem] = sorted(objects)
    return found


@pytest.mark.parametrize("layout", FORMATS)
def test_blood_cells_to_every_format_and_back(layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    for name in ("Annotations", "JPEGImages"):
        (source / "train" / name).mkdir(parents=True)
        (source / "val" / name).mkdir(parents=True)
    for number in range(20, 40):
        for path in shared_data("bccd").glob(f"*/BloodImage_000{number}.*"):
            (source / ("val" if number % 5 == 0 else "train") / path.parent.name / path.name).symlink_to(path)
    there, back = tmp_path / layout, tmp_path / "back"
    assert run_tool(convert, [str(source), str(there), "--to", layout, "--images", "link"]) == 0
    assert "next: detseg config new" in capsys.readouterr().out
    assert run_tool(convert, [str(there), str(back), "--to", "voc"]) == 0
    assert contents(opened(there)) == contents(opened(source)) == contents(opened(back))
    assert contents(opened(there, "val")) == contents(opened(source, "val")) == contents(opened(back, "val"))
    assert not any(path.is_symlink() for path in back.rglob("*"))


def test_what_is_lost_and_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = shared_data("coco_mini")
    assert main(["convert", str(coco), str(tmp_path / "yolo"), "--to", "yolo", "--images", "link"]) == 0
    out = capsys.readouterr().out
    assert "not held by yolo: crowd regions of 3 objects: YOLO has none; left out\n" in out
    written = sum(len(path.read_text().splitlines()) for path in tmp_path.glob("yolo/*/labels/*.txt"))
    assert f", of {written} objects\n" in out
    assert main(["convert", str(coco), str(tmp_path / "yolo"), "--to", "coco"]) == 2
    assert "yolo: expected a new or an empty folder, but it holds files; choose another" in capsys.readouterr().err
    broken = tmp_path / "broken"
    shutil.copytree(tmp_path / "yolo", broken, symlinks=True)
    labels = sorted(path for path in broken.rglob("*.txt") if "labels" in path.parts and "train" in path.parts)
    labels[0].write_text("999 0.5 0.5 0.1 0.1\n")
    assert main(["convert", str(broken), str(tmp_path / "new"), "--to", "voc", "--images", "link"]) == 2
    told = capsys.readouterr()
    assert "objects of classes that the training set lacks (left out): 1 (999)" in told.out
    assert told.err == (
        "error: 1 error in the annotations, listed above; correct them, or leave out what is wrong with --skip-bad\n"
    )
    assert not (tmp_path / "new").exists()
    argv = ["convert", str(broken), str(tmp_path / "new"), "--to", "voc", "--images", "link", "--skip-bad"]
    assert main(argv) == 0


def _cvat(root: Path) -> None:
    box = CVAT_BOX.replace('occluded="0"', 'occluded="1"').replace("/>", ">{}</box>")
    values = '<attribute name="color">red</attribute><attribute name="difficult">true</attribute>'
    (root / "annotations.xml").write_text(cvat_content(box.format(values)))


def _labelme(root: Path) -> None:
    shape = {"label": "cat", "points": [[2, 1], [9, 7]], "shape_type": "rectangle", "description": "old"}
    shape["flags"] = {"blurred": True, "crowd": True, "cut": False}
    (root / "a.json").write_text(json.dumps(labelme_content(shape, flags={"night": True, "day": False})))


def _voc(root: Path) -> None:
    more = "<pose>Left</pose><occluded>1</occluded><part><name>ear</name></part><truncated>1</truncated>"
    content = "<source><database>Unknown</database></source>" + object_xml(("cat", 2, 3, 8, 9), more)
    (root / "a.xml").write_text(annotation_xml(content, "a.png"))


def _coco(root: Path) -> None:
    content: dict[str, Any] = coco_content(category={"supercategory": "animal"}) | {"info": {}, "licenses": [1]}
    content["annotations"].append(content["annotations"][0] | {"id": 2, "bbox": [1, 1, 2, 2], "attributes": {"a": 1}})
    (root / "a.json").write_text(json.dumps(content))


UNREAD = {
    "cvat": (_cvat, "2 (shape: occluded, shape: attribute color)"),
    "labelme": (_labelme, "3 (file: flag night, shape: description, shape: flag blurred)"),
    "voc": (_voc, "3 (object: pose, object: occluded, object: part)"),
    "coco": (_coco, "3 (licenses, annotations: attributes, categories: supercategory)"),
}


@pytest.mark.parametrize(("layout", "to"), [*((name, name) for name in UNREAD), ("coco", "yolo"), ("cvat", "voc")])
def test_values_that_are_not_read_are_said(
    layout: str, to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, line = UNREAD[layout]
    save_image(tmp_path / "a set" / "a.png", (10, 20))
    write(tmp_path / "a set")
    assert main(["convert", str(tmp_path / "a set"), str(tmp_path / "a copy"), "--to", to]) == 0
    out = capsys.readouterr().out
    assert f"not held by {to}: values that are not read: {line}\n" in out
    assert out.endswith(f"next: detseg config new '{tmp_path}/a copy' > 'a copy.yaml'\n")


def test_images_that_are_missing_are_left_out_as_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = coco_content()
    content["images"].append(content["images"][0] | {"id": 2, "file_name": "gone.png"})
    save_image(tmp_path / "set" / "a.png", (10, 20))
    (tmp_path / "set" / "a.json").write_text(json.dumps(content))
    argv = ["convert", str(tmp_path / "set"), str(tmp_path / "new"), "--to", "voc"]
    assert main(argv) == 2
    assert "or leave them out with data.on_missing=skip" in capsys.readouterr().out
    assert main([*argv, "data.on_missing=skip"]) == 0


def test_what_is_left_out_is_said_though_it_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box, outline = '<box label="cat" xtl="1" ytl="1" xbr="4" ybr="5"/>', "1,1;4,1;4,5;1,5"
    shapes = f'{box}<polygon label="cat" points="{outline}"/><tag label="cat"/>'
    save_image(tmp_path / "cvat" / "images" / "a.png", (10, 20))
    (tmp_path / "cvat" / "annotations.xml").write_text(cvat_content(shapes))
    assert main(["convert", str(tmp_path / "cvat"), str(tmp_path / "coco"), "--to", "coco"]) == 0
    out = capsys.readouterr().out
    assert "points, lines, tags and the like, which are neither boxes nor outlines (left out): 1" in out
    argv = ["convert", str(tmp_path / "cvat"), str(tmp_path / "maps"), "--to", "mask_folder"]
    assert main(argv) == 2
    assert "objects with a box and no outline, of which masks cannot be learned: " in capsys.readouterr().out
    assert main([*argv, "--skip-bad"]) == 0
    assert "not held by mask_folder: objects: 1; masks hold the class of each pixel" in capsys.readouterr().out


def test_settings_of_a_folder_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boxes = {f"{k}.png": [(0, (1.0, 1, 20, 20))] for k in range(10)}
    coco_split(tmp_path / "set", "train", boxes, ("cat",))
    argv = ["convert", str(tmp_path / "set"), str(tmp_path / "out"), "--to", "yolo", "data.val_fraction=0.3"]
    assert main([*argv, "data.fraction=0.5"]) == 0
    assert "train 4 images, val 3 images" in capsys.readouterr().out


def test_skip_bad_leaves_wrong_boxes_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boxes = [(0, (60.0, 50, -20, -10)), *((0, (5.0 + k, 5, 20, 20)) for k in range(9))]
    coco_split(tmp_path / "set", "train", {"a.png": boxes}, ("cat",))
    argv = ["convert", str(tmp_path / "set"), str(tmp_path / "out"), "--to", "yolo", "--skip-bad"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "objects left out, as their boxes are wrong: 1\n" in out
    assert len((tmp_path / "out" / "train" / "labels" / "a.txt").read_text().splitlines()) == 9
