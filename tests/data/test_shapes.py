"""The shapes set: scenes whose truth fits the pixels; other folders are left alone."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from detseg.data.shapes import FORMAT, MIN_SIDE, SHAPE_CLASSES, Scene, Split, render_scene, shape_coverage, write_shapes
from detseg.errors import DataError

SCENES = [render_scene(7, "train", index, size=160, max_objects=6) for index in range(120)]


def content(scene: Scene) -> list[bytes]:
    return [array.tobytes() for array in (scene.image, scene.masks, scene.labels, scene.boxes, scene.truncated)]


def test_a_scene_is_a_function_of_seed_split_and_index() -> None:
    for index in (119, 3, 50, 0):
        assert content(render_scene(7, "train", index, size=160, max_objects=6)) == content(SCENES[index])
    keys: list[tuple[int, Split, int]] = [(7, "train", 0), (8, "train", 0), (7, "val", 0), (7, "train", 1)]
    assert len({render_scene(*key, size=96, max_objects=3).image.tobytes() for key in keys}) == 4


def test_arrays_fit_each_other_and_objects_the_pixels() -> None:
    for scene in SCENES:
        hw, num = scene.image.shape[:2], len(scene.labels)
        assert (scene.image.dtype, scene.image.shape, max(hw)) == (np.uint8, (*hw, 3), 160)
        assert min(hw) >= 96
        assert num <= 6
        assert (scene.masks.dtype, scene.masks.shape) == (np.bool_, (num, *hw))
        assert (scene.boxes.dtype, scene.boxes.shape) == (np.float64, (num, 4))
        assert (scene.labels.dtype, scene.labels.shape) == (np.int64, (num,))
        assert (scene.truncated.dtype, scene.truncated.shape) == (np.bool_, (num,))
        assert (scene.masks.sum(axis=0) <= 1).all()
        background = scene.image[~scene.masks.any(axis=0)].mean(axis=0)
        for box, mask in zip(scene.boxes, scene.masks, strict=True):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert min(box[2:] - box[:2]) >= MIN_SIDE
            assert np.linalg.norm(scene.image[mask].mean(axis=0) - background) > 45
        if num == 1 and scene.boxes.min() > 0 and (scene.boxes[0, 2:] < hw[::-1]).all():  # alone and inside
            assert not scene.truncated[0]


def test_the_set_is_varied() -> None:
    boxes = np.concatenate([scene.boxes for scene in SCENES])
    longest = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert longest.max() / longest.min() > 4
    assert np.bincount(np.concatenate([scene.labels for scene in SCENES]), minlength=5).min() >= 40
    assert 0.2 < np.concatenate([scene.truncated for scene in SCENES]).mean() < 0.8
    assert {len(scene.labels) for scene in SCENES} == set(range(7))
    assert {np.sign(scene.image.shape[0] - scene.image.shape[1]) for scene in SCENES} >= {-1, 1}


@pytest.mark.parametrize(
    ("name", "fraction"),
    [
        ("ellipse", math.pi / 4),
        ("rectangle", 1.0),
        ("triangle", 0.5),
        ("ring", math.pi / 4 * (1 - 0.55**2)),
        ("star", 5 * 0.42 * math.sin(math.pi / 5) / 4),  # ten triangles with sides 1, 0.42 and 36 degrees between
    ],
)
def test_area_of_a_shape_is_that_of_geometry(name: str, fraction: float) -> None:
    coverage, _ = shape_coverage(name, length=60, width=40, angle=0.7, offset=(50.3, 20.9))
    # OpenCV fills the outline itself too: an eighth of a pixel more all round, which the long outline of a star shows.
    assert coverage.sum() == pytest.approx(fraction * 60 * 40, rel=0.04 if name == "star" else 0.02)


SMALL = {"num_train": 3, "num_val": 2, "size": 64, "max_objects": 4, "seed": 5}
MANIFEST = {"format": FORMAT, **SMALL, "classes": SHAPE_CLASSES}


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_same_parameters_give_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "same"):
        write_shapes(tmp_path / name, **SMALL)
    assert files(tmp_path / "one") == files(tmp_path / "same")


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
        ("a.jpg", "mine", "holds a.jpg but no shapes.json, so it is not a shapes set; set data.root to another"),
        ("shapes.json", "{", r"shapes\.json: cannot be read .*delete this one"),
        ("shapes.json", "[1]", r"shapes\.json: cannot be read .*delete this one"),
        ("shapes.json", json.dumps(MANIFEST), "another shapes set: size is 64 there, not 96; seed is 5 there, not 6"),
    ],
)
def test_folders_that_hold_something_else_are_left_alone(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        write_shapes(tmp_path, **SMALL | {"size": 96, "seed": 6})
    assert files(tmp_path) == {name: text.encode()}


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"file: cannot write the shapes set .Not a directory.; [^\n]*$"):
        write_shapes(tmp_path / "file", **SMALL)
