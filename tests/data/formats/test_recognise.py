"""What folders are: all shared sets, layouts made here, folders that are several sets or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detseg.config.load import config_from_dict
from detseg.config.schema.data import AutoConfig
from detseg.data.build import Split, open_semantic_split, open_split, resolve_layout
from detseg.data.formats.recognise import recognise
from detseg.data.formats.recognise.layout import Need
from detseg.data.formats.voc import read_voc
from detseg.data.formats.yolo import read_yolo
from detseg.errors import DataError
from detseg.structures import ClassTable
from tests.data.formats.layouts import save_image
from tests.shared_data import shared_data

VOC, COCO, YOLO = "Pascal VOC with lists", "COCO JSON", "YOLO text"
TWO: tuple[Split, ...] = ("train", "val")
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
    for split in ("train", "valid", "test"):  # wrong, and the reader says so, with file and line
        _write(tmp_path, f"{split}/labels/{split}.txt", "no 0.5 0.5 0.1 0.1\n")
    assert recognise(tmp_path).layout.counts == {"train": 1, "val": 1, "test": 1}
    for split in ("train", "valid", "test"):
        _write(tmp_path, f"{split}/labels/{split}.txt", "0 0.5 0.5 0.1 0.1 0.2 0.3\n")
    (tmp_path / "data.yaml").unlink()
    found = recognise(tmp_path)
    assert found.layout.counts == {"train": 1, "val": 1, "test": 1}
    assert found.layout.notes[0].startswith("no file names the classes: write data.yaml")


def test_images_of_another_suffix_than_the_names_of_coco(tmp_path: Path) -> None:
    _images(tmp_path, "pictures/day 1/a.png", "masks/b.png")
    content = {"images": [{"file_name": "day 1/a.jpg"}], "annotations": [], "categories": [{"name": "no"}]}
    _write(tmp_path, "instances.json", content)
    assert recognise(tmp_path).settings["train_images"] == "pictures"


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


def test_an_empty_folder_and_a_foreign_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder is empty"):
        recognise(tmp_path)
    _write(tmp_path, "export.json", [{"id": 1, "data": {"image": "x"}, "annotations": []}])
    with pytest.raises(DataError, match="Label Studio's own JSON: export COCO, YOLO or Pascal VOC"):
        recognise(tmp_path)


def test_what_lies_above_or_is_hidden_is_of_no_set(tmp_path: Path) -> None:
    """A link leads to the folder that holds the set; macOS has written a hidden file for each."""
    _coco(tmp_path, "annotations.json", "a.png")
    _images(tmp_path, "a.png", "mine/images/a.png", "mine/images/._a.png")
    for name in ("mine/labels/a.txt", "mine/labels/._a.txt"):
        _write(tmp_path, name, "0 0.5 0.5 0.5 0.5")
    _write(tmp_path, "mine/classes.txt", "cell")
    (tmp_path / "mine/loop").symlink_to(tmp_path)
    found = recognise(tmp_path / "mine")
    assert (found.layout.what, found.layout.counts) == (YOLO, {"train": 1})
    dataset = read_yolo(found.root, found.settings["train_split"])
    assert (len(dataset), dataset.report.lines()) == (1, [])


LISTED: dict[str, tuple[str, dict[str, str]]] = {  # Format → its settings for the list train.txt; files
    "yolo": (
        "train_split",
        {"classes.txt": "cell", "labels/1.txt": "0 0.5 0.5 0.5 0.5", "labels/2.txt": "0 0.5 0.5 0.5 0.5"},
    ),
    "labelme": (
        "train_split",
        {f"images/{k}.json": json.dumps({"shapes": [], "imagePath": f"{k}.png"}) for k in (1, 2)},
    ),
    "voc": ("train_split", {f"annotations/{k}.xml": "<annotation></annotation>" for k in (1, 2)}),
    "mask_folder": ("train_images", {"classes.txt": "ground\ncell"}),
}


@pytest.mark.parametrize("name", LISTED)
def test_lists_in_the_root_are_splits(name: str, tmp_path: Path) -> None:
    key, files = LISTED[name]
    _images(tmp_path, "images/1.png", "images/2.png", *(f"masks/{k}.png" for k in (1, 2) if name == "mask_folder"))
    for path, text in files.items():
        _write(tmp_path, path, text)
    _write(tmp_path, "train.txt", "images/1.png\n")
    _write(tmp_path, "valid.txt", "images/2.png\n")
    found = recognise(tmp_path)
    assert (found.layout.name, found.layout.counts) == (name, {"train": 1, "val": 1})
    assert (found.settings[key], found.settings[key.replace("train", "val")]) == ("train.txt", "valid.txt")
    is_semantic = name == "mask_folder"
    model, table = ("unet", ("ground", "cell")) if is_semantic else ("yolo", ("cell",))
    data = config_from_dict({"model": {"name": model}, "data": found.settings}, "here", []).data
    opened = open_semantic_split if is_semantic else open_split
    assert [opened(data, split, ClassTable(table)).path(0).stem for split in TWO] == ["1", "2"]
    _write(tmp_path, "train.txt", "7.png\n")
    (tmp_path / "valid.txt").unlink()
    found = recognise(tmp_path)
    assert found.layout.counts == {"train": 2}
    assert found.layout.notes[0].startswith(
        "train.txt is not taken as the list of a split: its first line, '7.png', is no"
    )


YOLO_SPLITS: dict[str, tuple[dict[str, str], list[str], dict[str, str]]] = {
    # Files, folders of images, settings.
    "CVAT": (
        {
            "data.yaml": "names: {0: a}\nTrain: Train.txt\nValidation: Val.txt\n",
            "Train.txt": "x/1.png",
            "Val.txt": "y/1.png",
        },
        ["x", "y"],
        {"train_split": "Train", "val_split": "Validation"},
    ),
    "folders": (
        {"classes.txt": "a"},
        ["train2017/images", "dev/images"],
        {"train_split": "train2017", "val_split": "dev"},
    ),
    "inner folders": ({"classes.txt": "a"}, ["images/training", "images/dev"], {"train_split": "training"}),
    "two YAML files": (
        {"args.yaml": "lr: 1\n", "my.yml": "names: [a]\ntrain: [x, y]\nval: y\n"},
        ["x", "y"],
        {"train_split": "train", "val_split": "val"},
    ),
    "three folders down": (
        {"a/b/c/data.yaml": "names: [a]\ntrain: x\nval: y\n"},
        ["a/b/c/x", "a/b/c/y"],
        {"train_split": "train"},
    ),
}


@pytest.mark.parametrize("case", YOLO_SPLITS)
def test_splits_of_yolo_are_those_that_the_reader_finds(case: str, tmp_path: Path) -> None:
    files, folders, settings = YOLO_SPLITS[case]
    for path, text in files.items():
        _write(tmp_path, path, text)
    for folder in folders:
        _images(tmp_path, f"{folder}/1.png")
        _write(tmp_path, f"{folder.replace('images', 'labels')}/1.txt", "0 0.5 0.5 0.5 0.5")
    found = recognise(tmp_path)
    assert settings.items() <= found.settings.items()
    for split in TWO:
        assert len(read_yolo(found.root, found.settings[f"{split}_split"])) == found.layout.counts[split]


def test_what_is_wrong_with_data_yaml_is_said(tmp_path: Path) -> None:
    _images(tmp_path, "images/1.png")
    _write(tmp_path, "labels/1.txt", "0 0.5 0.5 0.5 0.5")
    _write(tmp_path, "data.yaml", "names: [a\n")
    with pytest.raises(DataError, match=r"data\.yaml: not a readable YAML file"):
        recognise(tmp_path)


def test_other_sets_in_folders_are_named(tmp_path: Path) -> None:
    _images(tmp_path, "a/1.png", "b/images/1.png", "c/1.png", "c/1_mask.png", "d/1.png", "d/1_mask.png")
    _coco(tmp_path, "a/annotations.json", "1.png")
    _write(tmp_path, "b/labels/1.txt", "0 0.5 0.5 0.5 0.5")
    found = recognise(tmp_path, "boxes")
    assert found.lines[-2].startswith(
        "other sets in folders, not taken: b (YOLO text), d (folders of images and masks); "
    )
    assert found.lines[-1] == "also there, not taken: folders of images and masks"


def test_labelme_whose_image_comes_first(tmp_path: Path) -> None:
    _images(tmp_path, "1.png")
    _write(tmp_path, "1.json", '{"imageData": "' + "A" * (1 << 20) + '", "imagePath": "1.png", "shapes": []}')
    assert recognise(tmp_path, "outlines").layout.name == "labelme"


def test_sets_without_any_object(tmp_path: Path) -> None:
    """YOLO's label files are all empty; a list of VOC has no name but one that looks like a comment."""
    for path in ("yolo/train/images/a.png", "voc/JPEGImages/#1.png"):
        save_image(tmp_path / path, (2, 3))
    texts = {
        "yolo/data.yaml": "names: {0: cat}\ntrain: train/images\n",
        "yolo/train/labels/a.txt": "",
        "voc/ImageSets/Main/train.txt": "#1\n",
        "voc/Annotations/#1.xml": "<annotation><filename>#1.png</filename></annotation>",
    }
    for path, text in texts.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    found = {name: recognise(tmp_path / name).layout for name in ("yolo", "voc")}
    assert [(found[name].what, found[name].counts) for name in found] == [(YOLO, {"train": 1}), (VOC, {"train": 1})]


def test_splits_that_data_yaml_states_and_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    _images(tmp_path, "train/images/a.jpg")
    _write(tmp_path, "train/labels/a.txt", "0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "valid/images").mkdir(parents=True)  # empty
    stated = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [cell]\n"
    _write(tmp_path, "data.yaml", stated)
    found = recognise(tmp_path)
    assert found.layout.counts == {"train": 1}
    assert {"val_split", "test_split"}.isdisjoint(found.settings)
    assert found.settings["val_fraction"] == 0.2
    assert "left out, since there are no images of it: val (../valid/images), test (../test/images) of data.yaml" in (
        found.lines
    )


def test_lists_of_voc_that_are_empty_or_of_classes_or_name_files(tmp_path: Path) -> None:
    _write(tmp_path, "Annotations/a.xml", "<annotation></annotation>")
    _images(tmp_path, "JPEGImages/a.jpg")
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    found = recognise(tmp_path)
    assert (found.root, found.settings["train_split"]) == (tmp_path, ".")
    assert len(read_voc(tmp_path, ".", classes=["cell"])) == 1
    for name in ("box", "tri"):
        _write(tmp_path, f"ImageSets/Main/{name}_train.txt", "a.jpg 1\nb.jpg 1\n")
        _write(tmp_path, f"ImageSets/Main/{name}_val.txt", "c.jpg -1\n")
    found = recognise(tmp_path)
    assert (found.settings["train_split"], found.settings["val_split"]) == (
        "box_train+tri_train",
        "box_val+tri_val",
    )
    assert found.layout.counts == {"train": 2, "val": 1}


def test_voc_in_sub_folders(tmp_path: Path) -> None:
    """Loose files whose images lie elsewhere; lists that name paths, with and without suffix; a test list alone."""
    for split in ("train", "val"):
        _write(tmp_path, f"loose/annotations/{split}/1.xml", "<annotation></annotation>")
        _write(tmp_path, f"lists/Annotations/{split}/1.xml", "<annotation></annotation>")
        _images(tmp_path, f"loose/images/{split}/1.jpg", f"lists/JPEGImages/{split}/1.jpg")
    _write(tmp_path, "lists/ImageSets/Main/train.txt", "train/1.jpg\n")
    _write(tmp_path, "lists/ImageSets/Main/val.txt", "val/1\n")
    for name, splits in {
        "loose": ("annotations/train", "annotations/val"),
        "lists": ("train", "val"),
    }.items():
        found = recognise(tmp_path / name)
        assert (found.root, found.layout.counts) == (tmp_path / name, {"train": 1, "val": 1})
        assert (found.settings["train_split"], found.settings["val_split"]) == splits
        for split, own in zip(("train", "val"), splits, strict=True):
            path = read_voc(found.root, own, classes=["cell"]).path(0)
            assert path.parts[-2:] == (split, "1.jpg")
    (tmp_path / "lists/ImageSets/Main/train.txt").rename(tmp_path / "lists/ImageSets/Main/test.txt")
    (tmp_path / "lists/ImageSets/Main/val.txt").unlink()
    with pytest.raises(DataError, match=r"holds several data sets: lists \(Pascal VOC with lists\), loose \("):
        recognise(tmp_path)


MASKS: dict[str, tuple[dict[str, str], list[str], dict[str, Any], tuple[str, ...]]] = {
    # The files that are not images, the images, some settings, the classes.
    "Cityscapes": (
        {},
        [
            f"{folder}/{split}/ulm/ulm_{number}_{end}.png"
            for split in ("train", "val")
            for number in ("0_19", "1_19")
            for folder, end in (
                ("leftImg8bit", "leftImg8bit"),
                *(("gtFine", f"gtFine_{kind}") for kind in ("color", "instanceIds", "labelIds", "labelTrainIds")),
            )
        ],
        {"val_masks": "gtFine/val", "image_suffix": "leftImg8bit", "mask_suffix": "gtFine_labelTrainIds"},
        (),
    ),
    "Roboflow": (
        {"train/_classes.csv": "Pixel Value, Class\n0, background\n2, a, b\n"},
        ["train/1.jpg", "train/1_mask.png", "train/2.jpg", "train/2_mask.png", "valid/3.jpg", "valid/3_mask.png"],
        {"val_masks": "valid", "mask_suffix": "_mask", "classes": ["background", "a, b"], "mask_values": [0, 2]},
        ("background", "a, b"),
    ),
    "one folder": (
        {},
        ["1.jpg", "1_mask.png", "2.jpg", "2_mask.png"],
        {"train_masks": ".", "mask_suffix": "_mask"},
        (),
    ),
    "Label Studio": (
        {},
        [f"images/{number}.jpg" for number in (1, 2)]
        + [
            f"task-{number}-annotation-7-by-1-tag-{name}-0.png" for number, name in ((1, "tri"), (1, "a-b"), (2, "tri"))
        ],
        {"train_images": "images", "train_masks": ".", "mask_per_class": True},
        ("background", "a-b", "tri"),
    ),
    "folders of classes": (
        {},
        ["images/1.jpg", "images/2.jpg", "masks/tri/1.png", "masks/box/2.png"],
        {"train_masks": "masks", "mask_per_class": True},
        ("background", "box", "tri"),
    ),
    "classes in names": (
        {},
        ["images/1.jpg", "images/2.jpg", "masks/1_tri.png", "masks/1_box.png", "masks/2_tri.png", "masks/2_box.png"],
        {"train_masks": "masks", "mask_per_class": True},
        ("background", "box", "tri"),
    ),
    "nnU-Net": (
        {"dataset.json": '{"labels": {"background": 0, "tumour": 1}}'},
        ["imagesTr/c_1_0000.png", "imagesTr/c_2_0000.png", "labelsTr/c_1.png", "labelsTr/c_2.png"],
        {"train_masks": "labelsTr", "image_suffix": "_0000", "classes": ["background", "tumour"]},
        ("background", "tumour"),
    ),
    "CVAT": (
        {
            "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\nbox:250,50,83::\n",
            "ImageSets/Segmentation/default.txt": "1\n2\n",
        },
        ["JPEGImages/1.jpg", "JPEGImages/2.jpg", "SegmentationClass/1.png", "SegmentationClass/2.png"],
        {"name": "voc", "train_split": "default", "mask_colors": [[0, 0, 0], [250, 50, 83]]},
        ("background", "box"),
    ),
    "class_dict.csv": (
        {"class_dict.csv": "name,r,g,b\nvoid,0,0,0\nbox,250,50,83\n"},
        ["train/1.png", "train_labels/1_L.png", "val/2.png", "val_labels/2_L.png"],
        {"mask_suffix": "_L", "classes": ["void", "box"], "mask_colors": [[0, 0, 0], [250, 50, 83]]},
        ("void", "box"),
    ),
}


@pytest.mark.parametrize("case", MASKS)
def test_masks_of_other_tools(case: str, tmp_path: Path) -> None:
    texts, images, some, names = MASKS[case]
    for name, text in texts.items():
        _write(tmp_path, name, text)
    for name in images:
        _images(tmp_path, name)
        if "mask_colors" in some:
            Image.new("RGB", (8, 8)).save(tmp_path / name)
    found = recognise(tmp_path, "maps")
    assert found.layout.name == some.get("name", "mask_folder")
    assert some.items() <= found.settings.items()
    assert found.layout.classes == names
    assert any("no file that is read names the classes" in line for line in found.lines) == (not names)


PAIRED: dict[str, tuple[list[str], dict[str, Any], str]] = {
    # Images and masks, some settings, a line.
    "one image without a mask": (
        ["images/1.jpg", "images/2.jpg", "images/3.jpg", "masks/2.png", "masks/3.png"],
        {"train_masks": "masks"},
        "train: 1 of 3 images have no mask: 1",
    ),
    "one without, in one folder": (
        ["1.jpg", "2.jpg", "2_mask.png", "3.jpg", "3_mask.png"],
        {"train_masks": ".", "mask_suffix": "_mask"},
        "train: 1 of 3 images have no mask: 1",
    ),
    "MMSegmentation": (
        ["img_dir/train/1.jpg", "img_dir/val/2.jpg", "ann_dir/train/1.png", "ann_dir/val/2.png"],
        {"train_masks": "ann_dir/train", "val_images": "img_dir/val"},
        "",
    ),
    "splits in names": (
        ["images_train/1.jpg", "images_val/2.jpg", "masks_train/1.png", "masks_val/2.png"],
        {"train_masks": "masks_train", "val_images": "images_val"},
        "",
    ),
    "Oxford-IIIT Pet": (
        ["images/1.jpg", "images/2.jpg", "annotations/trimaps/1.png", "annotations/trimaps/2.png"],
        {"train_images": "images", "train_masks": "annotations/trimaps"},
        "",
    ),
}


@pytest.mark.parametrize("case", PAIRED)
def test_which_masks_belong_to_which_images(case: str, tmp_path: Path) -> None:
    names, some, line = PAIRED[case]
    _images(tmp_path, *names)
    found = recognise(tmp_path, "maps")
    assert some.items() <= found.settings.items()
    assert "mask_per_class" not in found.settings
    assert line in ["", *found.lines]


SOFT = {"classes": ["background", "foreground"], "mask_threshold": 128}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1], {"classes": ["background", "foreground"]}),
        ([0, 255], {"classes": ["background", "foreground"], "mask_values": [0, 255], "ignore_index": None}),
        ([0, 1, 255], {"classes": ["background", "foreground"]}),
        ([1, 2, 3], {"classes": ["class_1", "class_2", "class_3"], "mask_values": [1, 2, 3]}),
        ([0, 4, 7, 255], {"classes": ["background", "class_4", "class_7"], "mask_values": [0, 4, 7]}),
        ([*range(40)], {"classes": ["background", *(f"class_{value}" for value in range(1, 40))]}),
        ([*range(41)], {}),
        ([0] * 400 + [*range(100)] + [255] * 400, SOFT),
        ([7], {}),
    ],
)
@pytest.mark.parametrize("kind", ["grey", "RGB", "VOC"])
def test_values_name_the_classes_where_nothing_does(
    values: list[int], expected: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    folders = ("JPEGImages", "SegmentationClass") if kind == "VOC" else ("images", "masks")
    save_image(tmp_path / folders[0] / "a.jpg", (1, len(values)))
    mask = np.array([values], np.uint8)
    (tmp_path / folders[1]).mkdir()
    Image.fromarray(np.dstack([mask] * 3) if kind == "RGB" else mask).save(tmp_path / folders[1] / "a.png")
    if kind == "VOC":
        _write(tmp_path, "ImageSets/Segmentation/train.txt", "a\n")
    found = recognise(tmp_path, "maps")
    keys = ("classes", "mask_values", "ignore_index", "mask_threshold")
    assert {key: found.settings[key] for key in keys if key in found.settings} == expected
    said = [line for line in found.lines if line.endswith("names in data.classes") or "name them in" in line]
    assert (len(said), found.layout.classes) == (int(bool(expected)), ())
    if expected:
        config = config_from_dict({"model": {"name": "unet"}, "data": found.settings}, "here", [])
        opened = open_semantic_split(config.data.model_copy(update={"val_fraction": None}), "train")
        ends = [0, len(opened.classes) - 1] if values[-1] != 255 or len(values) == 2 or expected is SOFT else [0, 255]
        assert [opened.semantic(0)[0, k] for k in (0, -1)] == ends
        auto = AutoConfig(name="auto", root=tmp_path, classes=("a", "b", "c", "d"))
        assert getattr(resolve_layout(auto, "maps"), "mask_values", 1) is None, "what is found is that of other classes"


def test_masks_of_jpeg(tmp_path: Path) -> None:
    square = np.zeros((32, 32, 3), np.uint8)
    square[8:, 8:] = 255
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.fromarray(square).save(tmp_path / folder / "a.jpg")
    found = recognise(tmp_path, "maps").settings
    assert SOFT.items() <= found.items()
    config = config_from_dict({"model": {"name": "unet"}, "data": found}, "here", [])
    opened = open_semantic_split(config.data.model_copy(update={"val_fraction": None}), "train")
    np.testing.assert_array_equal(opened.semantic(0), square[..., 0] // 255)


def _coco(root: Path, path: str, *names: str, category: str = "cell") -> None:
    annotation = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 2, 2], "area": 4}
    images = [{"id": number, "file_name": name, "height": 8, "width": 8} for number, name in enumerate(names)]
    categories = [{"id": 1, "name": category}]
    _write(root, path, {"images": images, "annotations": [annotation], "categories": categories})


def test_batches_of_coco_are_joined(tmp_path: Path) -> None:
    for batch in ("a", "b"):
        _images(tmp_path, f"{batch}/1.png", f"{batch}/2.png")
        _coco(tmp_path, f"{batch}/annotations.json", "1.png", "2.png")
    _coco(tmp_path, "b/again.json", "1.png")  # images that are there already
    _images(tmp_path, "c/1.png")
    _coco(tmp_path, "c/annotations.json", "1.png", category="car")
    found = recognise(tmp_path)
    assert found.layout.counts == {"train": 4}
    assert found.settings["train_annotations"] == ["a/annotations.json", "b/annotations.json"]
    assert found.settings["train_images"] == ["a", "b"]
    assert found.layout.notes == (
        "other files, not taken: b/again.json, c/annotations.json; lists as data.train_annotations and "
        "data.train_images join those that have other images",
    )


@pytest.mark.parametrize(
    ("files", "folders", "also"),
    [
        (["train/a.json", "val/a.json"], {"train": "train/images", "val": "val/images"}, ""),
        (["train/a.json", "valid/a.json"], {"train": "train/data", "val": "valid/data"}, ""),
        (["x/trn.json", "x/dev.json"], {"train": "trn", "val": "dev"}, ""),
        (["train.json", "val.json"], {"train": "images/train", "val": "images/val"}, ""),
        (["sub/a.json"], {"train": "sub/images", "other": "."}, ""),
        (["x/y/train2017.json", "x/y/val2017.json"], {"train": "train2017", "val": "val2017"}, ""),
        (["a.json"], {"train": "data", "other": "blurred"}, "taken from data; blurred holds images of all these names"),
    ],
)
def test_images_of_coco_are_those_near_the_file(
    files: list[str], folders: dict[str, str], also: str, tmp_path: Path
) -> None:
    """Several folders hold images of the same names, that of the training one less."""
    for folder in folders.values():
        _images(tmp_path, *(f"{folder}/{k}.png" for k in range(3 if folder == folders["train"] and not also else 4)))
    for file in files:
        _coco(tmp_path, file, "0.png", "1.png", "2.png", "3.png")
    found = recognise(tmp_path)
    splits = [split for split in folders if split != "other"]
    assert [found.settings[f"{split}_images"] for split in splits] == [folders[split] for split in splits]
    assert [also in note for note in found.layout.notes] == ([True] if also else [])


@pytest.mark.parametrize("end", ['{"id": NaN}], "categories": [{"id": 1, "name": "a"}]}', '{"id": 1, "image'])
def test_coco_that_is_no_json_is_said(end: str, tmp_path: Path) -> None:
    _images(tmp_path, "1.png")
    _write(tmp_path, "a.json", '{"images": [{"id": 1, "file_name": "1.png"}], "annotations": [' + end)
    with pytest.raises(DataError, match=r"a\.json: not a readable JSON file: .*(NaN and no|truncated)"):
        recognise(tmp_path)


@pytest.mark.parametrize(
    ("files", "names", "folder"),
    [
        (["images/a/1.png", "images/b/2.png"], ["1.png", "2.png"], "images"),
        (["images/1.PNG"], ["1.png"], "images"),
        (["images/1.png", "images/2.png"], ["C:\\x\\1.png", "C:\\x\\2.png"], "images"),
        (["images/a/1.png"], ["a\\1.png"], "images"),
        (["images/gr\u00f6\u00dfe.png"], ["gro\u0308\u00dfe.png"], "images"),
        (["1.png", "a/2.png"], ["1.png", "2.png"], "."),
        # Exact names stay: one image is missing, and others have the names of these.
        (["t/1.png", "t/2.png", "u/1.png", "u/2.png", "v/3.png"], ["1.png", "2.png", "3.png"], None),
    ],
)
def test_names_of_coco_that_are_not_those_of_files(
    files: list[str], names: list[str], folder: str | None, tmp_path: Path
) -> None:
    _images(tmp_path, *files)
    _coco(tmp_path, "annotations.json", *names)
    found = recognise(tmp_path)
    if folder is None:
        assert "file_names" not in found.settings
        return
    assert (found.settings["train_images"], found.settings["file_names"]) == (folder, "relaxed")
    assert found.lines[2].startswith("not all images are at the names that the annotations give them")
    config = config_from_dict({"model": {"name": "yolo"}, "data": found.settings}, "here", [])
    assert len(open_split(config.data.model_copy(update={"val_fraction": None}), "train")) == len(names)


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        (
            "annotations.xml",
            "<annotations><track id='0'></track></annotations>",
            "CVAT for video, which is",
        ),
        ("labelTxt/a.txt", "1.0 2.0 3.0 4.0 5.0 6.0 7.0 8.0 small-car 0", "labelTxt/a.txt looks like DOTA's oriented"),
        ("labels/a.txt", "0.0 0.5 0.5 0.1 0.1", "labels/a.txt looks like YOLO text: a line begins with the whole"),
        ("labels/a.txt", "0 0,5 0,5 0,1 0,1", "labels/a.txt has numbers with commas; of text files"),
        ("labels_mine/a.txt", "0 0.5 0.5 0.1 0.1", "the files lie in a folder labels beside the folder images"),
        (
            "masks/b.png",
            "",
            "there are images without annotations; masks named otherwise than their images need",
        ),
    ],
)
def test_hints_at_what_is_not_read(name: str, text: str, hint: str, tmp_path: Path) -> None:
    _images(tmp_path, "photos/a.png")
    _write(tmp_path, name, text)
    with pytest.raises(DataError, match=hint):
        recognise(tmp_path)
