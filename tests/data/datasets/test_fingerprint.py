"""Fingerprints: what changes them, and what does not."""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detseg.data.datasets.fingerprint import VERSION, Fingerprint, fingerprint
from detseg.data.formats.coco import read_coco
from detseg.data.formats.mask_folder import read_mask_folder
from detseg.data.formats.voc import read_voc
from tests.data.formats.layouts import BINARY, annotation_xml, object_xml, save_image, save_mask, write_pairs, write_voc

Change = Callable[[dict[str, Any]], None]


def write_coco(root: Path, change: Change = lambda content: None) -> Path:
    """Three images with an object each; polygons, run lengths, a crowd."""
    root.mkdir(exist_ok=True)
    square = [[2.0, 2.0, 8.0, 2.0, 8.0, 8.0, 2.0, 8.0]]
    rle = {"size": [10, 20], "counts": [20, 30, 150]}
    entries = ((1, [2, 2, 6, 6], square, 36), (3, [2, 0, 3, 10], rle, 30), (3, [2, 2, 6, 6], square, 36))
    keys = ("category_id", "bbox", "segmentation", "area")
    content: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 20, "height": 10} for i in (4, 5, 6)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"id": k + 1, "image_id": k + 4, **dict(zip(keys, entry, strict=True))} for k, entry in enumerate(entries)
        ],
    }
    for entry in content["images"]:
        Image.new("RGB", (20, 10)).save(root / entry["file_name"])
    change(content)
    (root / "a.json").write_text(json.dumps(content))
    return root


def coco_print(root: Path) -> Fingerprint:
    return fingerprint(read_coco(root, root / "a.json", masks=True))


def differing(one: Fingerprint, other: Fingerprint) -> set[str]:
    assert one["version"] == other["version"] == VERSION
    return {key for key, value in one.items() if other.get(key) != value}


def set_at(*place: Any, value: Any) -> Change:
    return lambda content: functools.reduce(operator.getitem, place[:-1], content).__setitem__(place[-1], value)


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (set_at("annotations", 0, "bbox", value=[2, 2, 6, 6.001]), {"annotations"}),
        (set_at("annotations", 0, "category_id", value=3), {"annotations"}),
        (set_at("annotations", 1, "iscrowd", value=1), {"annotations"}),
        (set_at("annotations", 0, "segmentation", 0, 0, value=2.5), {"annotations"}),
        (set_at("annotations", 1, "segmentation", "counts", value=[21, 30, 149]), {"annotations"}),
        (set_at("categories", 1, "name", value="wolf"), {"annotations"}),
        (lambda content: content["images"].reverse(), {"names", "annotations"}),
        (lambda content: (content["images"].pop(), content["annotations"].pop()), {"images", "names", "annotations", "files"}),  # noqa: E501 - one row
        (set_at("annotations", 0, "segmentation", value=[[2, 2, 8, 2, 8, 8, 2, 8]]), {"annotations"}),  # as text
        (set_at("info", value={"year": 2026}), set()),  # nothing that is read
    ],
)  # fmt: skip
def test_what_an_annotation_file_says(tmp_path: Path, change: Change, differs: set[str]) -> None:
    before = coco_print(write_coco(tmp_path))
    assert before == coco_print(write_coco(tmp_path))
    assert differing(before, coco_print(write_coco(tmp_path, change))) == differs


def test_sizes_of_files_count_and_where_the_folder_lies_does_not(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "here")
    before = coco_print(root)
    moved = root.rename(tmp_path / "elsewhere")
    assert coco_print(moved) == before
    Image.new("RGB", (20, 10), (200, 10, 10)).save(moved / "5.png", compress_level=0)
    dataset = read_coco(moved, moved / "a.json", masks=True)
    assert differing(before, fingerprint(dataset)) == {"files"}
    (moved / "5.png").unlink()  # left to the reader
    assert differing(before, fingerprint(dataset)) == {"files"}


def test_it_is_plain_data_and_a_subset_has_its_own(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    whole = read_coco(root, root / "a.json")
    found = fingerprint(whole)
    assert json.loads(json.dumps(found)) == found == fingerprint(whole.subset([0, 1, 2]))
    assert (found["images"], found["masks"]) == (3, "")
    assert differing(found, fingerprint(whole.subset([0, 2]))) == {"images", "names", "annotations", "files"}
    assert differing(found, coco_print(root)) == {"annotations"}  # masks that are learnt are a part of them


def test_voc_flags_count(tmp_path: Path) -> None:
    def flag_print(flags: str) -> Fingerprint:
        xml = annotation_xml(object_xml(("cat", 1, 1, 5, 5), flags))
        return fingerprint(read_voc(write_voc(tmp_path, {"train": "a"}, {"a": xml}), "train"))

    for flag in ("difficult", "truncated"):
        assert differing(flag_print(""), flag_print(f"<{flag}>1</{flag}>")) == {"annotations"}


def test_mask_files(tmp_path: Path) -> None:
    images, masks = write_pairs(tmp_path, {"a": np.eye(16, dtype=int).tolist()})

    def mask_print(classes: tuple[str, ...] = BINARY, ignore_index: int = 255) -> Fingerprint:
        return fingerprint(read_mask_folder(images, masks, classes, ignore_index=ignore_index))

    before = mask_print()
    for changed in (mask_print(classes=("no", "maybe")), mask_print(ignore_index=254)):
        assert differing(before, changed) == {"annotations"}
    Image.open(masks / "a.png").save(masks / "a.png", compress_level=0)
    assert differing(before, mask_print()) == {"masks"}


def test_mask_files_of_one_class_each(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.png", (16, 16))
    masks = [save_mask(tmp_path / "masks" / name / "a.png", np.eye(16, dtype=int).tolist()) for name in ("b", "c")]

    def mask_print() -> Fingerprint:
        return fingerprint(read_mask_folder(tmp_path / "images", tmp_path / "masks", None, per_class=True))

    before = mask_print()
    Image.open(masks[1]).save(masks[1], compress_level=0)
    assert differing(before, mask_print()) == {"masks"}
    masks[1].unlink()
    assert differing(before, mask_print()) == {"annotations", "masks"}
