"""Whole sets: what the writers write reads back the same, as far as the layout can hold it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.data.annotations.model import StatedObject
from detseg.data.annotations.report import DataReport
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.coco import read_coco
from detseg.data.formats.coco_writer import write_coco_set
from detseg.data.formats.cvat import write_cvat
from detseg.data.formats.labelme import write_labelme
from detseg.data.formats.voc import read_voc
from detseg.data.formats.voc_writer import write_voc_set
from detseg.data.formats.yolo import write_yolo
from detseg.errors import DataError
from tests.data.formats.layouts import annotation_xml, object_xml, save_image, write_voc

SIDE = 40
coordinate = st.floats(-5, SIDE + 5, allow_nan=False).map(lambda value: round(value, 6))
stems = st.text("ab 1.#é漢_-", min_size=1, max_size=6).filter(lambda text: text.strip(". ") == text)
names = st.text("ab 1é漢_-,'&<", min_size=1, max_size=6).filter(lambda text: bool(text.strip()))
polygon = st.lists(coordinate, min_size=6, max_size=10).filter(lambda numbers: len(numbers) % 2 == 0)
rows = st.lists(st.integers(0, SIDE), min_size=1, max_size=6).map(lambda r: [*r, SIDE * SIDE - sum(r)])
region = st.none() | st.lists(polygon, min_size=1, max_size=3) | rows.map(lambda r: {"size": [SIDE, SIDE], "counts": r})


@st.composite
def contents(draw: st.DrawFn) -> dict[str, Any]:
    """A COCO file of up to three images, with ids, flags, classes and segmentations of all kinds."""
    ids = st.integers(-(10**12), 10**12)
    images = draw(st.lists(stems, min_size=1, max_size=3, unique_by=str.casefold))
    image_ids = draw(st.lists(ids, min_size=len(images), max_size=len(images), unique=True))
    classes = draw(st.lists(names, min_size=1, max_size=3, unique_by=str.strip))
    category_ids = sorted(draw(st.lists(ids, min_size=len(classes), max_size=len(classes), unique=True)))
    flag = st.sampled_from([0, 1])
    entry = st.fixed_dictionaries(
        {
            "image_id": st.sampled_from(image_ids),
            "category_id": st.sampled_from(category_ids),
            "bbox": st.lists(coordinate, min_size=4, max_size=4),
            "area": st.floats(0, 2000),
            **dict.fromkeys(("iscrowd", "ignore", "truncated"), flag),
        },
        optional={"segmentation": region},
    )
    entries = draw(st.lists(entry, max_size=5))
    return {
        "images": [
            {"id": i, "file_name": f"{draw(st.sampled_from(['', 'sub/']))}{stem}.png", "width": SIDE, "height": SIDE}
            for i, stem in zip(image_ids, images, strict=True)
        ],
        "categories": [{"id": i, "name": name} for i, name in zip(category_ids, classes, strict=True)],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(entries)],
    }


def read(root: Path, content: dict[str, Any]) -> DetectionDataset:
    for image in content["images"]:
        save_image(root / "images" / image["file_name"], (SIDE, SIDE))
    (root / "x.json").write_text(json.dumps(content))
    return read_coco(root / "images", root / "x.json", report=DataReport(True))


@given(contents())
@settings(max_examples=60, deadline=None)
def test_voc_keeps_boxes_and_flags(content: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = read(Path(folder), content)
        write_voc_set({"train": source}, Path(folder) / "voc", link=True)
        classes = [name.strip() for name in source.classes.names]
        found = read_voc(Path(folder) / "voc", "train", classes=classes, report=DataReport(True))
        before, after = all_stated(source), all_stated(found)
    assert found.packed.offsets.tolist() == source.packed.offsets.tolist()
    assert found.packed.sizes_hw.tolist() == [[SIDE, SIDE]] * len(source)
    for one, other in zip(before, after, strict=True):
        assert (other.label, other.truncated) == (one.label, one.truncated)
        assert other.difficult == (one.difficult or one.crowd)
        for axis in (slice(0, 4, 2), slice(1, 4, 2)):
            low, high = one.box[axis]
            if high - low >= 1:
                np.testing.assert_allclose(other.box[axis], (low, high), atol=0.001)
            else:
                assert other.box[axis][1] - other.box[axis][0] == pytest.approx(1)


@given(contents())
@settings(max_examples=60, deadline=None)
def test_coco_keeps_everything(content: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source = read(root, content)
        assert write_coco_set({"train": source}, root / "coco", link=True) == []
        file = root / "coco" / "annotations" / "instances_train.json"
        found = read_coco(root / "coco" / "train", file, report=DataReport(True))
        before, after = all_stated(source), all_stated(found)
        written = {entry["id"]: entry for entry in json.loads(file.read_text())["annotations"]}
    assert found.classes == source.classes
    assert [found.packed.path(k) for k in range(len(found))] == [source.packed.path(k) for k in range(len(source))]
    for name in ("image_ids", "sizes_hw", "offsets", "labels", "crowd", "difficult", "truncated", "area"):
        np.testing.assert_array_equal(getattr(found.packed, name), getattr(source.packed, name))
    np.testing.assert_allclose(found.packed.boxes, source.packed.boxes, rtol=0, atol=1e-12)
    kept = {entry["id"]: entry.get("segmentation") for entry in content["annotations"]}
    assert sorted(map(repr, kept.values())) == sorted(repr(entry.get("segmentation")) for entry in written.values())
    for one, other in zip(before, after, strict=True):
        assert other.segmentation == one.segmentation


def all_stated(dataset: DetectionDataset) -> list[StatedObject]:
    return [item for index in range(len(dataset)) for item in dataset.packed.stated(index)]


def test_voc_says_what_it_cannot_hold(tmp_path: Path) -> None:
    box = {"image_id": 4, "category_id": 9, "bbox": [1, 1, 5, 5], "area": 25}
    content = {
        "images": [
            {"id": 4, "file_name": "x/a.png"},
            {"id": 7, "file_name": "y/a.png"},
            {"id": 5, "file_name": "a.png.png"},
        ],
        "categories": [{"id": 9, "name": "zebra"}, {"id": 11, "name": "ant"}],
        "annotations": [
            box | {"id": 1, "segmentation": [[1, 1, 6, 1, 6, 6]], "area": 12.5},
            box | {"id": 2, "iscrowd": 1},
            box | {"id": 3, "bbox": [1, 1, 0.5, 9], "area": 4.5},
            box | {"id": 4, "area": 7, "image_id": 7},
            box | {"id": 5, "bbox": [1.00004, 1, 5, 5], "image_id": 7},
        ],
    }
    source = read(tmp_path, content)
    assert write_voc_set({"train": source}, tmp_path / "voc") == [
        "masks of 1 objects: the boxes are written; VOC's XML has no masks of objects",
        "crowd regions of 1 objects: written as difficult objects; VOC has none",
        "areas of 2 objects: those of the boxes count; VOC states none",
        "boxes of 1 objects: thinner than a pixel or inverted, written one pixel wide or high; VOC's corners are "
        "inclusive",
        "corners of 1 objects: rounded to a thousandth of a pixel",
        "names of 2 images: changed, since all lie in one folder and are listed without suffix",
        "the order of the classes, and classes without objects in the first split: VOC lists no classes; read it with "
        "data.classes: ['zebra', 'ant']",
        "ids of classes: 2; VOC has none, they are numbered when they are read",
        "ids of images: 3; VOC has none, they are numbered when they are read",
    ]
    found = read_voc(tmp_path / "voc", "train")
    assert [Path(found[index].path).name for index in range(3)] == ["a.png", "y_a.png", "a_png.png"]
    with pytest.raises(DataError, match="voc: expected an empty or a new folder, but it holds files"):
        write_voc_set({"train": source}, tmp_path / "voc")


@pytest.mark.parametrize("write", [write_labelme, write_cvat, write_yolo])
def test_areas_that_are_those_of_nothing_written_are_counted(tmp_path: Path, write: Callable[..., list[str]]) -> None:
    box = {"image_id": 1, "category_id": 9, "bbox": [1, 1, 5, 5], "segmentation": [[1, 1, 6, 1, 6, 6]]}
    areas = [12.5, 12.9, 20, 25]  # that of the outline, a pixel of tolerance, none, that of the box
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 9, "name": "cat"}],
        "annotations": [box | {"id": number, "area": area} for number, area in enumerate(areas)],
    }
    lines = write({"train": read(tmp_path, content)}, tmp_path / "out")
    (line,) = [line for line in lines if "areas" in line]
    assert line.startswith("areas of 2 objects, which differ from their outlines: ")


def test_splits_of_voc_stay_apart(tmp_path: Path) -> None:
    xml = annotation_xml(object_xml(("cat", 1, 1, 2, 2)))
    write_voc(tmp_path / "a", {"train": "a\n#12", "val": "b c"}, {"a": xml, "#12": xml, "b c": xml})
    sets = {split: read_voc(tmp_path / "a", split, report=DataReport(True)) for split in ("train", "val")}
    assert write_voc_set(sets, tmp_path / "b") == []
    for name in ("ImageSets/Main/train.txt", "ImageSets/Main/val.txt"):
        assert (tmp_path / "a" / name).read_text().splitlines() == (tmp_path / "b" / name).read_text().splitlines()
    assert len(read_voc(tmp_path / "b", "train")) == 2
