"""Encodings of one and the same set, made by others: each is read as it comes, and states the same boxes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.round_trips import opened
from tests.shared_data import shared_data

Boxes = Mapping[str, list[tuple[str, tuple[float, ...]]]]  # of each image by its stem: class and corners

# What the JSON files state: bbox [2, 2, 3, 1] of class 2, [0, 0, 1, 2] of class 1, [0, 0, 1, 9] of class 2, a crowd.
COCO: Boxes = {"a": [("b", (2, 2, 5, 3))], "b": [("a", (0, 0, 1, 2)), ("b", (0, 0, 1, 9))]}
# 15 x 10 pixels, "2 0.133333 0.300000 0.266667 0.200000" and "4 0.266667 0.450000 0.133333 0.300000".
YOLO: Boxes = {"1": [("label_2", (0, 2, 4, 4)), ("label_4", (3, 3, 5, 6))]}
# 10 x 5 pixels, "0 0.35 0.3 0.3 0.2", "1 0.1 0.4 0.2 0.8", "0 0.05 0.2 0.1 0.4", "1 0.45 0.1 0.9 0.2".
ROBOFLOW: Boxes = {
    "train_001": [("label_0", (2, 1, 5, 2))],
    "train_002": [("label_1", (0, 0, 2, 4))],
    "val_001": [("label_0", (0, 0, 1, 2)), ("label_1", (0, 0, 9, 1))],
}
# Its XML has the corners of the others, 2 1 5 2 and so on, though VOC counts pixels from 1 and includes the last.
FROM_0: Boxes = {
    "train_001": [("label_0", (1, 0, 5, 2))],
    "train_002": [("label_1", (-1, -1, 2, 4))],
    "val_001": [("label_0", (-1, -1, 1, 2)), ("label_1", (-1, -1, 9, 1))],
}
# A box 0 2 4 4 and a polygon 1,2 3,4 6,5; in the file of the task the polygon has no label, which is an error.
CVAT: Boxes = {"img0": [("label1", (0, 2, 4, 4))], "img1": [("label1", (1, 2, 6, 5))]}
CVAT_TASK: Boxes = {"img0": CVAT["img0"], "img1": []}
# <xmin>1 <ymin>2 <xmax>3 <ymax>4, and 4 5 6 7; the third folder has the first of them alone.
VOC: Boxes = {"2007_000001": [("cat", (0, 1, 3, 4)), ("person", (3, 4, 6, 7))]}
VOC_3: Boxes = {"2007_000001": [("cat", (0, 1, 3, 4))]}

ENCODINGS: dict[str, tuple[tuple[str, ...], Boxes]] = {
    "coco_dataset/coco": (("train", "val"), COCO),
    "coco_dataset/coco_instances": (("train", "val"), COCO),
    "coco_dataset/coco_person_keypoints": (("train", "val"), COCO),
    "coco_dataset/coco_roboflow": (("train", "val"), COCO),
    "coco_dataset/mmdet_coco": (("train", "val"), COCO),
    "roboflow_dataset/coco": (("train", "val"), ROBOFLOW),
    "roboflow_dataset/yolo": (("train", "val"), ROBOFLOW),
    "roboflow_dataset/voc": (("train", "val"), FROM_0),
    "yolo_dataset/strict": (("train",), YOLO),
    "yolo_dataset/labels": (("train",), YOLO),
    "yolo_dataset/annotations": (("train",), YOLO),
    "cvat_dataset/for_images/export_project": (("train",), CVAT),
    "cvat_dataset/for_images/export_task": (("train",), CVAT_TASK),
    "voc_dataset/voc_dataset1": (("train",), VOC),
    "voc_dataset/voc_dataset3": (("train",), VOC_3),
}


def stated(root: Path, splits: tuple[str, ...]) -> Boxes:
    """The objects of each image, in the order of the class names and corners."""
    found: dict[str, list[tuple[str, tuple[float, ...]]]] = {}
    for dataset in opened(root, splits).values():
        for index in range(len(dataset)):
            objects = [(dataset.classes.names[item.label], item.box) for item in dataset.packed.stated(index)]
            found[dataset.path(index).stem] = sorted(objects)
    return found


def check_same(found: Boxes, expected: Boxes, shift: tuple[float, ...] = (0, 0, 0, 0)) -> None:
    assert found.keys() == expected.keys()
    for name, objects in found.items():
        assert [item[0] for item in objects] == [item[0] for item in expected[name]], name
        for one, other in zip(objects, expected[name], strict=True):
            assert np.abs(np.subtract(one[1], other[1]) - shift).max() < 0.001, name


@pytest.mark.parametrize("folder", ENCODINGS)
def test_encodings_of_one_set_state_its_boxes(folder: str) -> None:
    splits, expected = ENCODINGS[folder]
    check_same(stated(shared_data("formats", folder), splits), expected)


def test_other_splits_of_the_same_boxes() -> None:
    """Files that state the set of their training split again."""
    check_same(stated(shared_data("formats/yolo_dataset/labels"), ("train", "val")), YOLO)
    check_same(stated(shared_data("formats/cvat_dataset/for_images/export_project"), ("train", "val", "test")), CVAT)


def test_json_and_xml_of_one_set(tmp_path: Path) -> None:
    """Ten images of VOC as XML and as COCO JSON, which has taken the corners over without subtracting 1. The six kinds
    of texts beside them are detections with scores, which no reader of annotations takes."""
    toy = shared_data("oracles/voc_toyexample")
    file = toy / "gts_coco_format" / "toy_example_coco.JSON"
    for image in json.loads(file.read_text())["images"]:
        for name in ("coco", "voc"):
            path = tmp_path / name / "images" / image["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (image["width"], image["height"])).save(path)
    shutil.copy(file, tmp_path / "coco" / "train.json")
    shutil.copytree(toy / "gts_vocpascal_format", tmp_path / "voc" / "Annotations")
    first, second = stated(tmp_path / "coco", ("train",)), stated(tmp_path / "voc", ("train",))
    assert sum(map(len, first.values())) == 12
    check_same(first, second, shift=(1, 1, 0, 0))
