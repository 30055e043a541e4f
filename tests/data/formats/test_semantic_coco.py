"""Semantic maps from COCO instances: what covers what, classes, and a second composition with pycocotools."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from detseg.data.formats.coco import read_coco_masks
from detseg.errors import ClassTableError
from detseg.structures import ClassTable
from tests.data.formats.mask_layouts import rectangle, write_coco_masks
from tests.shared_data import shared_data


def area(category_id: int, *corners: int, **more: object) -> dict[str, Any]:
    """An annotation that is a rectangle; its stated area is wrong, since nobody may go by it."""
    return {"category_id": category_id, "segmentation": rectangle(*corners), "area": 1, "bbox": [0, 0, 1, 1], **more}


def test_small_objects_cover_large_ones_and_all_cover_crowds(tmp_path: Path) -> None:
    entries = [
        area(4, 2, 2, 4, 4),  # the smallest, though first in the file
        area(3, 1, 1, 6, 5),
        area(4, 0, 0, 4, 2, iscrowd=1),  # smaller than the one before, but a crowd
    ]
    dataset = read_coco_masks(*write_coco_masks(tmp_path, entries))
    expected = np.zeros((6, 8), dtype=np.uint8)
    expected[0:2, 0:4] = 255
    expected[1:5, 1:6] = 1
    expected[2:4, 2:4] = 2
    assert dataset.semantic(0).tolist() == expected.tolist()
    assert (dataset.image_id(0), dataset[0].hw) == (7, (6, 8))
    equal = [area(4, 0, 0, 3, 3), area(3, 1, 0, 4, 3)]  # objects of equal size cover in the order of the file
    for order, expected in ((equal, [[2, 1, 1, 1, 0]]), (equal[::-1], [[2, 2, 2, 1, 0]])):
        assert read_coco_masks(*write_coco_masks(tmp_path, order)).semantic(0)[:1, :5].tolist() == expected


def test_classes(tmp_path: Path) -> None:
    folders = write_coco_masks(tmp_path, [area(3, 0, 0, 2, 2), area(4, 4, 4, 8, 6)])
    assert read_coco_masks(*folders).classes == ClassTable(("background", "a", "b"), (0, 3, 4))
    given = read_coco_masks(*folders, ["ground", "b"])
    assert given.classes == ClassTable(("ground", "b"), (0, 4))
    assert np.bincount(given.semantic(0).ravel()).tolist() == [40, 8]  # a is background now
    assert given.report.lines() == ["annotations of categories that the given classes leave out: 1 (a)"]
    table = ClassTable(("ground", "b", "a"), (0, 9, 3))
    other = read_coco_masks(*folders, table)
    assert other.classes is table
    assert np.bincount(other.semantic(0).ravel()).tolist() == [36, 8, 4]


def test_classes_that_do_not_fit(tmp_path: Path) -> None:
    folders = write_coco_masks(tmp_path, [area(3, 0, 0, 2, 2)])
    taken = write_coco_masks(tmp_path / "taken", [area(3, 0, 0, 2, 2)], names=("background", "a"))
    many = write_coco_masks(tmp_path / "many", [area(3, 0, 0, 2, 2)], names=[f"c{k}" for k in range(255)])
    for paths, classes, message in (
        (folders, ["a", "b"], r"label 0 is the background, but 'a' is the name of a category; begin"),
        (folders, ["background", "c"], r"the class 'c' is not among its categories"),
        (folders, ["background"], "each class once and at least one"),
        (taken, None, r"has: \[ground, background, a\]"),
        (many, None, "255 categories and a background are more than the 255 classes"),
    ):
        with pytest.raises(ClassTableError, match=message):
            read_coco_masks(*paths, classes)
    assert len(read_coco_masks(*taken, ["ground", "background", "a"])) == 1
    file = folders[1]
    file.write_text(file.read_text().replace('"id": 3', '"id": 0').replace('"category_id": 3', '"category_id": 0'))
    assert read_coco_masks(*folders).classes.source_ids == (-1, 0, 4)


def test_coco_mini_is_composed_as_pycocotools_would() -> None:
    root = shared_data("coco_mini")
    file = root / "annotations" / "instances_all.json"
    dataset = read_coco_masks(root / "images", file)
    assert len(dataset) == 33
    assert len(dataset.classes) == 81
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO(file)
    for index in range(len(dataset)):
        entries = api.loadAnns(api.getAnnIds(imgIds=[dataset.image_id(index)]))
        masks = [api.annToMask(entry) for entry in entries]
        expected = np.zeros(dataset[index].hw, dtype=np.uint8)
        # Of the objects that cover a pixel the smallest wins, of equal ones the later: asked pixel by pixel.
        best = np.full(expected.shape, np.inf)
        for entry, mask in zip(entries, masks, strict=True):
            crowd = bool(entry["iscrowd"])
            size = np.inf if crowd else float(mask.sum())
            wins = (mask == 1) & (size <= best) & ((expected == 0) | (not crowd))
            expected[wins] = 255 if crowd else dataset.classes.source_ids.index(entry["category_id"])
            best[wins] = size
        assert np.array_equal(dataset.semantic(index), expected)
