"""What folders are: all shared sets, layouts made here, folders that are several sets or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detseg.data.formats.recognise import Need, recognise
from detseg.errors import DataError
from tests.shared_data import shared_data

VOC, COCO, YOLO = "Pascal VOC with lists", "COCO JSON", "YOLO text"
TV = {"train_split": "train", "val_split": "val"}
REAL: dict[str, tuple[str, dict[str, int], dict[str, Any]]] = {
    "bccd": (VOC, {"train": 205, "val": 87, "test": 72}, {**TV, "test_split": "test"}),
    "camvid_small": ("Pascal VOC with masks of classes", {"train": 367, "val": 101}, TV),
    "coco_mini": (COCO, {"train": 25, "val": 8}, {"train_images": "images"}),
    "dsb2018_nuclei": (COCO, {"train": 90, "val": 30}, {"val_images": "images"}),
    "oracles/coco_val2014_fake100": (COCO, {"train": 100}, {"train_annotations": "instances_val2014_100.json"}),
    "formats/coco_dataset/coco": (COCO, {"train": 1, "val": 1}, {"train_images": "images/train"}),
    "formats/coco_dataset/coco_instances": (COCO, {"train": 1, "val": 1}, {"val_images": "images/val"}),
    "formats/coco_dataset/coco_person_keypoints": (COCO, {"train": 1, "val": 1}, {"val_images": "images/val"}),
    "formats/coco_dataset/coco_stuff": (COCO, {"train": 1, "val": 1}, {"val_images": "images/val"}),
    "formats/coco_dataset/coco_roboflow": (COCO, {"train": 1, "val": 1}, {"val_images": "val"}),
    "formats/coco_dataset/mmdet_coco": (COCO, {"train": 1, "val": 1}, {"train_images": "train"}),
    "formats/roboflow_dataset/coco": (COCO, {"train": 2, "val": 1}, {"train_images": "train"}),
    "formats/roboflow_dataset/voc": ("Pascal VOC's XML without lists", {"train": 2, "val": 1}, TV),
    "formats/roboflow_dataset/yolo": (YOLO, {"train": 2, "val": 1}, TV),
    "formats/yolo_dataset/labels": (YOLO, {"train": 1, "val": 1}, TV),
    "formats/yolo_dataset/strict": (YOLO, {"train": 1}, {"train_split": "train"}),
    "formats/yolo_dataset/annotations": (YOLO, {"train": 1}, {"train_split": "."}),
    "formats/voc_dataset/voc_dataset1": (VOC, {"train": 1, "test": 1}, {"train_split": "train", "test_split": "test"}),
    "formats/voc_dataset/voc_dataset2": (VOC, {"train": 5}, {"train_split": "trainval", "val_fraction": 0.2}),
    "formats/voc_dataset/voc_dataset3": (VOC, {"train": 1}, {"train_split": "train"}),
    "formats/cvat_dataset/for_images/export_task": ("CVAT XML for images", {"train": 2}, {"train_split": "train.xml"}),
    "formats/cvat_dataset/for_images/export_project": (
        "CVAT XML for images",
        {"train": 2, "val": 2, "test": 2},
        {"train_split": "Train", "val_split": "Validation", "test_split": "Test"},
    ),
    "formats/common_semantic_segmentation_dataset/dataset": (
        "folders of images and masks",
        {"train": 2},
        {"train_images": "images", "train_masks": "masks"},
    ),
    "formats/common_semantic_segmentation_dataset/non_standard_dataset": (
        "folders of images and masks",
        {"train": 2},
        {"image_prefix": "image", "mask_prefix": "gt"},
    ),
}
NONE = {
    "formats/labelme_dataset": "there are 5 .png, 1 .xml; .* the XML of the old LabelMe, which is not read",
    "formats/coco_dataset/coco_captions": "there are 2 .json, 2 .jpg; .* COCO JSON without boxes and outlines",
    "formats/coco_dataset/coco_labels": "COCO JSON without boxes and outlines",
    "formats/coco_dataset/coco_image_info": "COCO JSON without boxes and outlines",
    "formats/coco_dataset/coco_panoptic": "COCO JSON without boxes and outlines",
    "formats/roboflow_dataset": r"several data sets: coco \(COCO JSON\), voc \(.*\), yolo \(YOLO text\); name one of",
    "formats/yolo_dataset": r"several data sets: annotations \(YOLO text\), labels \(.*\), strict \(",
    "formats/cvat_dataset": "several data sets: for_images/export_project .*, for_images/export_task ",
    "malformed/orientation": "there are 15 .jpg; .* there are images without annotations",
    "nowhere": "there is no such folder",
}


@pytest.mark.parametrize("folder", REAL)
def test_real_sets_are_recognised(folder: str) -> None:
    what, counts, some = REAL[folder]
    found = recognise(shared_data(folder))
    assert (found.layout.what, found.layout.counts) == (what, counts)
    assert some.items() <= found.settings.items()
    assert (found.settings.get("val_fraction") == 0.2) == ("val" not in counts)
    assert found.lines[0].startswith(f"{what} in {shared_data(folder)}: train {counts['train']} image")


@pytest.mark.parametrize("folder", NONE)
def test_what_is_none_or_several_is_said(folder: str) -> None:
    with pytest.raises(DataError, match=f"{folder}: .*{NONE[folder]}"):
        recognise(shared_data() / folder)


def test_the_model_decides_between_sets_in_one_folder() -> None:
    voc1, dsb = (shared_data(name) for name in ("formats/voc_dataset/voc_dataset1", "dsb2018_nuclei"))
    assert recognise(voc1, "boxes").layout.has == {"boxes"}
    assert recognise(voc1, "maps").layout.has == {"maps"}
    assert recognise(voc1, "maps").lines[-1] == "also there, not taken: Pascal VOC with lists"
    # The masks of these nuclei do not name their classes, the outlines do.
    needs: tuple[Need, ...] = ("boxes", "outlines", "maps")
    assert [recognise(dsb, need).layout.name for need in needs] == ["coco"] * 3
    with pytest.raises(
        DataError, match="bccd: found Pascal VOC with lists, which has not outlines of objects; take an"
    ):
        recognise(shared_data("bccd"), "outlines")


def _images(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / name)


def _write(root: Path, name: str, content: object) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def test_labelme_in_many_folders_and_unpacked_twice(tmp_path: Path) -> None:
    for name in ("mine/mine/day 1/a", "mine/mine/day 2/b"):
        _images(tmp_path, f"{name}.png")
        _write(tmp_path, f"{name}.json", {"shapes": [{"shape_type": "polygon"}], "imagePath": "x"})
    found = recognise(tmp_path)
    assert (found.layout.name, found.settings["train_split"], found.layout.counts) == ("labelme", ".", {"train": 2})
    assert found.root == tmp_path / "mine" / "mine"
    assert found.layout.has == {"boxes", "outlines", "maps"}


def test_roboflow_calls_the_validation_split_valid(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        _images(tmp_path, f"{split}/images/{split}.jpg")
        _write(tmp_path, f"{split}/labels/{split}.txt", "0 0.5 0.5 0.1 0.1 0.2 0.3\n")
    _write(
        tmp_path,
        "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\nnames: [no]\n",
    )
    found = recognise(tmp_path)
    assert found.layout.counts == {"train": 1, "val": 1, "test": 1}
    assert found.layout.classes == ("no",)
    assert found.layout.has == {"boxes", "outlines", "maps"}
    (tmp_path / "data.yaml").unlink()
    found = recognise(tmp_path)
    assert found.layout.counts == {"train": 1, "val": 1, "test": 1}
    assert found.layout.notes[0].startswith("no file names the classes: write data.yaml")


def test_years_of_voc(tmp_path: Path) -> None:
    for year, lists in {"2007": ("trainval", "test"), "2012": ("train", "val")}.items():
        for name in lists:
            _write(tmp_path, f"VOCdevkit/VOC{year}/ImageSets/Main/{name}.txt", "a\n")
        _write(tmp_path, f"VOCdevkit/VOC{year}/Annotations/a.xml", "<annotation></annotation>")
    found = recognise(tmp_path)
    assert found.settings == {
        "name": "voc",
        "root": str(tmp_path),
        "train_split": "2007:trainval+2012:train",
        "val_split": "2012:val",
        "test_split": "2007:test",
    }


def test_masks_with_marks_on_both_sides(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for city in ("aachen", "bonn"):
            _images(
                tmp_path,
                f"images/{split}/{city}/{city}_1_leftImg8bit.png",
                f"images/{split}/{city}/{city}_2_leftImg8bit.png",
            )
            _images(tmp_path, f"masks/{split}/{city}/{city}_1_gt_ids.png", f"masks/{split}/{city}/{city}_2_gt_ids.png")
    _write(tmp_path, "classes.txt", "ground\ntree\n")
    found = recognise(tmp_path)
    assert found.layout.counts == {"train": 4, "val": 4}
    assert found.layout.classes == ("ground", "tree")
    assert found.settings["train_masks"] == "masks/train"
    assert (found.settings["image_suffix"], found.settings["mask_suffix"]) == ("leftImg8bit", "gt_ids")


def test_oriented_boxes_of_dota_are_named(tmp_path: Path) -> None:
    (tmp_path / "labelTxt").mkdir()
    (tmp_path / "labelTxt" / "1.txt").write_text("1 1 5 1 5 4 1 4 ship 0\n")
    with pytest.raises(DataError, match="labelTxt holds oriented boxes of DOTA, which are not: export upright boxes"):
        recognise(tmp_path)


def test_an_empty_folder_and_a_foreign_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder is empty"):
        recognise(tmp_path)
    _write(tmp_path, "export.json", [{"id": 1, "data": {"image": "x"}, "annotations": []}])
    with pytest.raises(DataError, match="Label Studio's own JSON: export COCO, YOLO or Pascal VOC"):
        recognise(tmp_path)
