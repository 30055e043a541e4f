"""`detseg convert`: real sets to every format and back, what is lost, and the encodings that state one set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.cli import main
from detseg.cli.convert import convert
from detseg.cli.tool import run_tool
from detseg.config.schema.data import AutoConfig
from detseg.data.annotations.report import DataReport
from detseg.data.build import open_split, resolve_layout
from detseg.data.datasets.detection import DetectionDataset
from tests.data.formats.layouts import cvat_content, save_image
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


@pytest.mark.parametrize("layout", ["coco", "labelme", "cvat"])
def test_outlines_and_flags_stay_where_they_can(layout: str, tmp_path: Path) -> None:
    there = tmp_path / layout
    assert run_tool(convert, [str(shared_data("coco_mini")), str(there), "--to", layout, "--images", "link"]) == 0
    before, after = opened(shared_data("coco_mini"), "val"), opened(there, "val")
    assert len(before) == len(after) == 8  # one of them without objects
    if layout == "coco":
        assert contents(before) == contents(after)
        assert before.classes == after.classes  # ids, too
    kinds = [sorted((n, flag, parts) for n, _, flag, parts in objects) for objects in contents(before).values()]
    assert kinds == [
        sorted((n, flag, parts) for n, _, flag, parts in objects)
        for _, objects in sorted(contents(after).items(), key=lambda pair: list(contents(before)).index(pair[0]))
    ]


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
    assert "objects with a box and no outline, which label maps cannot show (left out): " in capsys.readouterr().out
    assert main([*argv, "--skip-bad"]) == 0
    assert "not held by mask_folder: objects: 1; masks hold the class of each pixel" in capsys.readouterr().out


def test_three_exports_of_one_set_agree() -> None:
    """Roboflow's COCO, VOC and YOLO of the same three images. Its VOC counts pixels from 0, which VOC does not."""
    root = shared_data("formats/roboflow_dataset")
    for split in ("train", "val"):
        found = [contents(opened(root / layout, split)) for layout in ("coco", "voc", "yolo")]
        for name, objects in found[0].items():
            for other, shift in ((found[1], (1, 1, 0, 0)), (found[2], (0, 0, 0, 0))):
                assert [item[0] for item in objects] == [item[0] for item in other[name]]
                boxes = [np.array([item[1] for item in one]) for one in (objects, other[name])]
                assert np.abs(boxes[0] - boxes[1] - shift).max() < 0.001


def test_json_and_xml_of_one_set_agree(tmp_path: Path) -> None:
    """Ten images of VOC as XML and as COCO JSON, which has taken the corners over without subtracting 1. The texts
    beside them state boxes that differ from each other by up to 0.6 pixels, so they cannot be compared."""
    toy = shared_data("oracles/voc_toyexample")
    truth = json.loads((toy / "gts_coco_format" / "toy_example_coco.JSON").read_text())
    for image in truth["images"]:
        for name in ("coco", "voc"):
            path = tmp_path / name / "images" / image["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((image["height"], image["width"], 3), np.uint8)).save(path)
    shutil.copy(toy / "gts_coco_format" / "toy_example_coco.JSON", tmp_path / "coco" / "train.json")
    shutil.copytree(toy / "gts_vocpascal_format", tmp_path / "voc" / "Annotations")
    first, second = contents(opened(tmp_path / "coco")), contents(opened(tmp_path / "voc"))
    assert first.keys() == second.keys()
    assert sum(map(len, first.values())) == 12
    for name in first:
        pairs = zip(first[name], second[name], strict=True)
        assert all(np.abs(np.subtract(a[1], b[1]) - (1, 1, 0, 0)).max() < 0.001 for a, b in pairs), name
