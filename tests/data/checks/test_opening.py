"""What is said of a data set whenever it is opened, and what stops a training before it begins."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from detseg.config.load import config_from_dict
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.report import DataReport
from detseg.data.formats.voc import read_voc
from detseg.errors import DataError
from detseg.training.setup.build import open_data
from tests.data.checks.test_checks import Box, coco_split
from tests.data.formats.layouts import simple_voc

BOXES: list[Box] = [(0, (5, 5, 20, 20)), (0, (40, 5, 20, 20)), (1, (5, 40, 20, 20))]


def settings(root: Path, **evaluation: int) -> ExperimentConfig:
    paths = {f"{s}_images": s for s in ("train", "val")} | {f"{s}_annotations": f"{s}.json" for s in ("train", "val")}
    data = {"name": "coco", "root": str(root), "image_size": 64, **paths}
    return config_from_dict({"data": data, "model": {"name": "yolo"}, "evaluation": evaluation})


def test_d2_only_crowd_regions_are_nothing_to_train_on(tmp_path: Path) -> None:
    coco_split(tmp_path, "train", {"a.png": BOXES}, iscrowd=1)
    coco_split(tmp_path, "val", {"b.png": BOXES})
    with pytest.raises(DataError) as raised:
        open_data(settings(tmp_path))
    assert str(raised.value) == (
        "coco train: there is no object to train on: all 3 objects are crowd regions (iscrowd 1), which are neither "
        "right nor wrong to find; export them with iscrowd 0 (from CVAT: as polygons, or as masks with iscrowd set to "
        "0)"
    )


def test_d3_and_d4_are_said_at_opening(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "detseg")
    coco_split(tmp_path, "train", {"a.png": [*BOXES, *BOXES], "b.png": [*BOXES, BOXES[0]]})
    coco_split(tmp_path, "val", {"c.png": BOXES})
    open_data(settings(tmp_path, max_detections=1))
    repeated = "boxes that repeat another of the same class in the image exactly: 4 (a.png, b.png)"
    assert f"coco train: {repeated}" in caplog.messages
    assert (
        "coco val: 1 of 1 images hold more than evaluation.max_detections = 1 objects of a class (c.png), so no result "
        "can have a recall above 0.667; raise it"
    ) in caplog.messages


def test_d10_width_and_height_as_second_corner(tmp_path: Path) -> None:
    boxes = [("cat", 12.0 + k, 5.0, 5.0, 4.0) for k in range(3)] + [("dog", 2.0, 2.0, 9.0, 5.0)]
    dataset = read_voc(simple_voc(tmp_path, boxes), "train", report=DataReport())
    assert dataset.report.count(DataIssue.SIZE_OR_SWAPPED) == 3
    assert dataset.report.count(DataIssue.NO_AREA) == dataset.report.count(DataIssue.INVERTED) == 0
