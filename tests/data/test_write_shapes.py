"""The shapes set on disk: both layouts hold the scenes, and other folders are left alone."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from detseg.data.formats.coco import read_coco
from detseg.data.formats.voc import read_voc
from detseg.data.shapes import FORMAT, SHAPE_CLASSES, Split, render_scene, write_shapes
from detseg.errors import DataError

SMALL = {"num_train": 3, "num_val": 2, "size": 64, "max_objects": 4, "seed": 5}
MANIFEST = {"format": FORMAT, **SMALL, "classes": SHAPE_CLASSES}
SPLITS: list[Split] = ["train", "val"]
NUM = 45  # enough for an image without objects, and for every class in both splits


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "deep" / "shapes"
    assert write_shapes(root, num_train=NUM, num_val=NUM, size=64, max_objects=2, seed=1)
    return root


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("split", SPLITS)
def test_readers_give_the_scenes_back_from_both_layouts(shapes: Path, split: Split) -> None:
    voc = read_voc(shapes / "voc", split)
    coco = read_coco(shapes / "coco" / split, shapes / "coco/annotations" / f"instances_{split}.json", masks=True)
    nums = set()
    for dataset in (voc, coco):
        assert dataset.classes.names == SHAPE_CLASSES
        assert len(dataset) == NUM
        for index in range(NUM):
            scene = render_scene(1, split, index, size=64, max_objects=2)
            sample, truth = dataset[index], dataset.annotations(index)
            assert truth.boxes.tolist() == sample.boxes.tolist() == scene.boxes.tolist()
            assert truth.labels.tolist() == scene.labels.tolist()
            assert not truth.ignore.any()
            assert np.abs(sample.image.astype(float) - scene.image).mean() < 4  # JPEG of noise
            assert dataset.path(index).name == f"{split}_{index:06d}.jpg"
            if truth.masks is None:
                assert dataset is voc
                assert (truth.truncated == scene.truncated).all()
            else:
                assert (truth.masks.dense() == scene.masks).all()
                assert truth.area.tolist() == scene.masks.sum(axis=(1, 2)).tolist()
            nums.add(len(scene.labels))
    assert nums == {0, 1, 2}


def test_the_same_parameters_give_the_same_files_and_a_larger_set_begins_with_the_smaller_one(tmp_path: Path) -> None:
    for name, num_train in (("one", 3), ("same", 3), ("larger", 5)):
        write_shapes(tmp_path / name, **SMALL | {"num_train": num_train})
    small, larger = files(tmp_path / "one"), files(tmp_path / "larger")
    assert small == files(tmp_path / "same")
    images = {name: data for name, data in small.items() if name.endswith((".jpg", ".png", ".xml"))}
    assert len(images) == 5 * 5  # of each of 5 scenes: two images, two maps, one annotation
    assert images.items() <= larger.items()


def test_a_set_is_written_once(tmp_path: Path) -> None:
    root = tmp_path / "shapes"
    root.mkdir()  # an empty folder is as good as none
    leftover = tmp_path / ".shapes.partial-01234567" / "voc"  # of a process that was killed
    leftover.mkdir(parents=True)
    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(lambda _: write_shapes(root, **SMALL), range(3))) == 1
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert not write_shapes(root, **SMALL)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert json.loads((root / "shapes.json").read_text()) == {**MANIFEST, "classes": list(SHAPE_CLASSES)}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".shapes.partial-01234567", "shapes"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.jpg",
            "mine",
            "holds a.jpg but no shapes.json, so it is not a shapes set; set data.root to another",
        ),
        ("shapes.json", "{", r"shapes\.json: cannot be read .*delete this one"),
        ("shapes.json", "[1]", r"shapes\.json: cannot be read .*delete this one"),
        (
            "shapes.json",
            json.dumps(MANIFEST),
            "another shapes set: size is 64 there, not 96; seed is 5 there, not 6",
        ),
    ],
)
def test_folders_that_hold_something_else_are_left_alone(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        write_shapes(tmp_path, **SMALL | {"size": 96, "seed": 6})
    assert files(tmp_path) == {name: text.encode()}


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for root in (tmp_path / "file", tmp_path / "file" / "shapes"):
        with pytest.raises(DataError, match=f"^{root}: cannot write the shapes set .Not a directory.; [^\n]*$"):
            write_shapes(root, **SMALL)


@pytest.mark.parametrize(
    ("key", "value"), [("num_train", 0), ("num_val", 0), ("max_objects", 0), ("size", 63), ("seed", -1)]
)
def test_arguments_out_of_range(tmp_path: Path, key: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{key}={value}"):
        write_shapes(tmp_path / "shapes", **SMALL | {key: value})
    assert list(tmp_path.iterdir()) == []
