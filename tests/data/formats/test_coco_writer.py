"""The ground truth that goes to pycocotools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from detseg.data.formats.coco import read_coco
from detseg.data.formats.coco_writer import coco_ground_truth
from detseg.data.formats.voc import read_voc
from tests.data.formats.voc_layout import annotation_xml, object_xml, write_voc
from tests.shared_data import shared_data


def test_voc_becomes_coco(tmp_path: Path) -> None:
    hard = object_xml(("dog", 1, 1, 20, 10), "<difficult>1</difficult>")
    xmls = {"a": annotation_xml(object_xml(("cat", 2, 3, 8, 9)) + hard), "b": annotation_xml("")}
    dataset = read_voc(write_voc(tmp_path, {"train": "a\nb"}, xmls), "train")
    assert coco_ground_truth(dataset) == {
        "info": {"description": "voc train"},
        "images": [
            {"id": 1, "file_name": "JPEGImages/a.jpg", "height": 10, "width": 20},
            {"id": 2, "file_name": "JPEGImages/b.jpg", "height": 10, "width": 20},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 7, 7], "area": 49, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [0, 0, 20, 10], "area": 200, "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def test_a_real_coco_file_survives_the_round_trip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = shared_data("coco_mini", "annotations", "instances_all.json")
    dataset = read_coco(shared_data("coco_mini", "images"), original)
    copy = tmp_path / "copy.json"
    copy.write_text(json.dumps(coco_ground_truth(dataset)))
    truth, ours = COCO(str(original)), COCO(str(copy))
    assert sorted(ours.imgs) == sorted(truth.imgs)
    assert {i: c["name"] for i, c in ours.cats.items()} == {i: c["name"] for i, c in truth.cats.items()}
    for image_id in truth.imgs:
        for entry, expected in zip(ours.imgToAnns[image_id], truth.imgToAnns[image_id], strict=True):
            assert entry["bbox"] == pytest.approx(expected["bbox"], abs=1e-9)
            for key in ("category_id", "area", "iscrowd"):
                assert entry[key] == expected[key]
    capsys.readouterr()
