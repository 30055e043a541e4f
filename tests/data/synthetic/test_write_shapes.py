"""The synthetic set on disk: both layouts hold the scenes, and a folder is never taken for what it is not."""

from __future__ import annotations

import contextlib
import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from detseg.data.synthetic import write as module
from detseg.data.synthetic.drawing import SHAPE_CLASSES
from detseg.data.synthetic.scenes import Scene, Split, render_scene
from detseg.data.synthetic.write import ensure_shapes, write_shapes
from detseg.errors import DataError


class Parameters(TypedDict):
    num_train: int
    num_val: int
    size: int
    max_objects: int
    seed: int


SMALL: Parameters = {"num_train": 3, "num_val": 2, "size": 64, "max_objects": 4, "seed": 5}
SPLITS: list[tuple[Split, int]] = [("train", 3), ("val", 2)]


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "deep" / "shapes"
    write_shapes(root, **SMALL)
    return root


def changed(**values: int) -> Parameters:
    return cast(Parameters, {**SMALL, **values})


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def scenes(split: Split, num: int) -> list[Scene]:
    return [render_scene(5, split, index, size=64, max_objects=4) for index in range(num)]


def test_voc_layout_holds_the_scenes(small_set: Path) -> None:
    for split, num in SPLITS:
        stems = (small_set / "voc/ImageSets/Main" / f"{split}.txt").read_text().split()
        for stem, scene in zip(stems, scenes(split, num), strict=True):
            root = ET.parse(small_set / "voc/Annotations" / f"{stem}.xml").getroot()
            boxes, names = [], []
            for entry in root.iter("object"):
                corners = [int(entry.findtext(f"bndbox/{tag}", "")) for tag in ("xmin", "ymin", "xmax", "ymax")]
                boxes.append([corners[0] - 1, corners[1] - 1, corners[2], corners[3]])
                names.append(entry.findtext("name"))
            assert boxes == scene.boxes.tolist()
            assert names == [SHAPE_CLASSES[label] for label in scene.labels]
            semantic = np.asarray(Image.open(small_set / "voc/SegmentationClass" / f"{stem}.png"))
            assert ((semantic > 0) == scene.masks.any(axis=0)).all()
            for label, mask in zip(scene.labels, scene.masks, strict=True):
                assert (semantic[mask] == label + 1).all()
            image = np.asarray(Image.open(small_set / "voc/JPEGImages" / f"{stem}.jpg"))
            assert np.abs(image.astype(float) - scene.image).mean() < 4  # JPEG of noise


def test_coco_layout_holds_the_scenes(small_set: Path) -> None:
    for split, num in SPLITS:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(small_set / "coco/annotations" / f"instances_{split}.json")
        assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(SHAPE_CLASSES)
        for image_id, scene in zip(sorted(coco.getImgIds()), scenes(split, num), strict=True):
            name = coco.loadImgs([image_id])[0]["file_name"]
            jpeg = (small_set / "coco" / split / name).read_bytes()
            assert jpeg == (small_set / "voc/JPEGImages" / name).read_bytes()
            annotations = coco.loadAnns(coco.getAnnIds(imgIds=[image_id]))
            for annotation, box, label, mask in zip(annotations, scene.boxes, scene.labels, scene.masks, strict=True):
                x, y, width, height = annotation["bbox"]
                assert [x, y, x + width, y + height] == box.tolist()
                assert annotation["category_id"] == label + 1
                assert annotation["area"] == mask.sum()
                assert (coco.annToMask(annotation).astype(bool) == mask).all()


def test_the_same_parameters_give_the_same_files(small_set: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "again", **SMALL)
    assert files(tmp_path / "again") == files(small_set)


def test_a_larger_set_begins_with_the_smaller_one(small_set: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "larger", **changed(num_train=5))
    small, large = files(small_set), files(tmp_path / "larger")
    images = [name for name in small if name.endswith((".jpg", ".png", ".xml"))]
    assert len(images) == 5 * 5  # of each of 5 scenes: two images, two maps, one annotation
    assert all(small[name] == large[name] for name in images)


def test_ensure_writes_once_and_reports_progress(tmp_path: Path) -> None:
    root = tmp_path / "shapes"
    root.mkdir()  # an empty folder is as good as none
    calls: list[tuple[int, int]] = []
    assert ensure_shapes(root, **SMALL, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert not ensure_shapes(root, **SMALL, progress=lambda done, total: calls.append((done, total)))
    assert len(calls) == 5
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


def test_write_does_not_overwrite_the_same_set(small_set: Path) -> None:
    with pytest.raises(DataError, match="holds this synthetic set already; delete the folder"):
        write_shapes(small_set, **SMALL)


def test_another_set_is_an_error_that_names_the_difference(small_set: Path) -> None:
    before = files(small_set)
    with pytest.raises(DataError) as error:
        ensure_shapes(small_set, **changed(size=96, seed=6))
    assert str(error.value) == (
        f"{small_set}: holds another synthetic set: seed is 5 there and 6 was asked for; "
        "size is 64 there and 96 was asked for; set data.root to another folder, or delete this one"
    )
    assert files(small_set) == before


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("d.jpg", "b.jpg", "c.jpg", "a.jpg"):
        (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(
        DataError, match=r"holds a.jpg, b.jpg, c.jpg, … but no shapes.json, so it is not a synthetic set"
    ):
        ensure_shapes(tmp_path, **SMALL)
    assert len(files(tmp_path)) == 4


def test_root_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "shapes").write_text("x")
    with pytest.raises(DataError, match="shapes: is a file, expected a folder"):
        ensure_shapes(tmp_path / "shapes", **SMALL)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_damaged_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "shapes.json").write_text(text)
    with pytest.raises(DataError, match=r"shapes\.json: .*delete this one to have it written anew"):
        ensure_shapes(tmp_path, **SMALL)


def test_parent_that_cannot_hold_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot write the synthetic set") as error:
        ensure_shapes(tmp_path / "file" / "shapes", **SMALL)
    assert "\n" not in str(error.value)


def test_an_interrupted_run_leaves_nothing_to_be_taken_for_the_set(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    root = tmp_path / "shapes"
    with pytest.raises(KeyboardInterrupt):
        ensure_shapes(root, **SMALL, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    assert ensure_shapes(root, **SMALL)


def test_leftovers_of_a_killed_run_do_not_matter(tmp_path: Path) -> None:
    leftover = tmp_path / ".shapes.partial-01234567" / "voc"
    leftover.mkdir(parents=True)
    assert ensure_shapes(tmp_path / "shapes", **SMALL)
    assert json.loads((tmp_path / "shapes/shapes.json").read_text())["num_train"] == 3
    assert leftover.is_dir()


def test_another_process_that_was_first_with_the_same_set(
    small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "shapes"
    write_layouts = module._write_layouts

    def slow(folder: Path, manifest: dict[str, Any], progress: Callable[[int, int], None] | None) -> None:
        monkeypatch.setattr(module, "_write_layouts", write_layouts)
        write_shapes(root, **SMALL)  # what the other process does meanwhile
        write_layouts(folder, manifest, progress)

    monkeypatch.setattr(module, "_write_layouts", slow)
    assert ensure_shapes(root, **SMALL)
    assert files(root) == files(small_set)
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


@pytest.mark.parametrize("split", ["num_train", "num_val"])
def test_an_empty_split_is_refused(tmp_path: Path, split: str) -> None:
    with pytest.raises(ValueError, match=f"{split}=0"):
        ensure_shapes(tmp_path / "shapes", **changed(**{split: 0}))
    assert list(tmp_path.iterdir()) == []
