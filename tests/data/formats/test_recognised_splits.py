"""Splits that are recognised are those that readers find: lists in the root, and YOLO text's names and folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detseg.config.load import config_from_dict
from detseg.data.annotations.report import DataReport
from detseg.data.build import Split, open_semantic_split, open_split
from detseg.data.formats.recognise import recognise
from detseg.data.formats.voc import read_voc
from detseg.data.formats.yolo import read_yolo
from detseg.errors import DataError
from detseg.structures import ClassTable
from tests.data.formats.layouts import annotation_xml, cvat_content, object_xml, save_images, write_file

TWO: tuple[Split, ...] = ("train", "val")

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
    save_images(tmp_path, "images/1.png", "images/2.png", *(f"masks/{k}.png" for k in (1, 2) if name == "mask_folder"))
    for path, text in files.items():
        write_file(tmp_path, path, text)
    write_file(tmp_path, "train.txt", "images/1.png\n")
    write_file(tmp_path, "valid.txt", "images/2.png\n")
    found = recognise(tmp_path)
    assert (found.layout.name, found.layout.counts) == (name, {"train": 1, "val": 1})
    assert (found.settings[key], found.settings[key.replace("train", "val")]) == ("train.txt", "valid.txt")
    is_semantic = name == "mask_folder"
    model, table = ("unet", ("ground", "cell")) if is_semantic else ("yolo", ("cell",))
    data = config_from_dict({"model": {"name": model}, "data": found.settings}, "here", []).data
    opened = open_semantic_split if is_semantic else open_split
    assert [opened(data, split, ClassTable(table)).path(0).stem for split in TWO] == ["1", "2"]
    write_file(tmp_path, "train.txt", "7.png\n")
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
        write_file(tmp_path, path, text)
    for folder in folders:
        save_images(tmp_path, f"{folder}/1.png")
        write_file(tmp_path, f"{folder.replace('images', 'labels')}/1.txt", "0 0.5 0.5 0.5 0.5")
    found = recognise(tmp_path)
    assert settings.items() <= found.settings.items()
    for split in TWO:
        assert len(read_yolo(found.root, found.settings[f"{split}_split"])) == found.layout.counts[split]


def _voc_lists(*names: str) -> dict[str, Any]:
    """Lists of an image each, by their places."""
    files: dict[str, Any] = {f"ImageSets/Main/{name}.txt": f"{name}\n" for name in names}
    return (
        files | {f"Annotations/{name}.xml": _xml(name) for name in names} | {f"JPEGImages/{n}.png": None for n in names}
    )


def _xml(name: str) -> str:
    return annotation_xml(object_xml(("cat", 1, 1, 4, 4)), f"{name}.png", (8, 8))


def _loose(*folders: str) -> dict[str, Any]:
    """An XML file and its image in each folder."""
    xml: dict[str, Any] = {f"{folder}/{k}.xml": _xml(str(k)) for k, folder in enumerate(folders)}
    return xml | {f"{folder}/{k}.png": None for k, folder in enumerate(folders)}


def _yolo(*folders: str, **files: str) -> dict[str, Any]:
    """An image in each folder, and its label file in the folder that is called labels instead."""
    images: dict[str, Any] = {f"{folder}/{k}.png": None for k, folder in enumerate(folders)}
    labels = {f"{folder.replace('images', 'labels')}/{k}.txt": LINE for k, folder in enumerate(folders)}
    return {"classes.txt": "a\n"} | images | labels | {name.replace("_", "."): text for name, text in files.items()}


def _coco(*names: str) -> dict[str, Any]:
    files: dict[str, Any] = {f"images/{name}.png": None for name in names}
    annotation = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 2, 2], "area": 4}
    for name in names:
        images = [{"id": 0, "file_name": f"{name}.png", "height": 8, "width": 8}]
        content = {"images": images, "annotations": [annotation], "categories": [{"id": 1, "name": "a"}]}
        files[f"annotations/{name}.json"] = json.dumps(content)
    return files


def _cvat(**subset_of: str) -> dict[str, Any]:
    """A file of an image for each name, with its subset."""
    files = dict[str, Any]()
    for name, subset in subset_of.items():
        text = cvat_content(name=f"{name}.png", side='width="8" height="8"', labels=["cat"])
        files |= {f"{name}.xml": text.replace("Train", subset), f"images/{name}.png": None}
    return files


LINE, SPLITS = "0 0.5 0.5 0.5 0.5", ("train", "val", "test")
SHAPE = {"label": "a", "points": [[1, 1], [4, 4]], "shape_type": "rectangle"}
PARTS: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    # Files (None: an image), the splits, a line.
    "lists of train_val and test": (_voc_lists("train_val", "test"), {"train": "train_val", "test": "test"}, ""),
    "lists of val and test": (
        _voc_lists("val", "test"),
        {"train": "val", "test": "test"},
        "no list is called train: val is taken to train on",
    ),
    "lists of batches": (_voc_lists("batch1", "batch2"), {"train": "batch1+batch2"}, ""),
    "lists with another": (
        _voc_lists("train", "dev", "extra"),
        {"train": "train", "val": "dev"},
        "lists, not taken: extra",
    ),
    "lists without Main": (
        _loose("a", "b") | {"ImageSets/train.txt": "a/0.png\n", "ImageSets/val.txt": "b/1.png\n"},
        {"train": "ImageSets/train.txt", "val": "ImageSets/val.txt"},
        "",
    ),
    "lists of folders far down": (
        _loose("0/b", "1/b") | {"train.txt": "0/b/0.png\n", "val.txt": "1/b/1.png\n"},
        {"train": "train.txt", "val": "val.txt"},
        "",
    ),
    "lists of names and numbers": (
        _loose("a", "b") | {"annotations/trainval.txt": "0 1 1 1\n", "annotations/test.txt": "1 2 1 2\n"},
        {"train": "annotations/trainval.txt", "test": "annotations/test.txt"},
        "",
    ),
    "XML in one folder": (
        {f"annotations/{k}.xml": _xml(str(k)) for k in range(3)}
        | {f"images/{split}/{k}.png": None for k, split in enumerate(("train", "val", "test"))},
        {"train": "images/train", "val": "images/val", "test": "images/test"},
        "",
    ),
    "names in two splits": (
        {f"{split}_xml/0.xml": _xml("0") for split in ("train", "val")}
        | {f"{split}_images/0.png": None for split in ("train", "val")},
        {"train": "train_xml", "val": "val_xml"},
        "",
    ),
    "trainA": (_loose("trainA", "valA", "testA"), {"train": "trainA", "val": "valA", "test": "testA"}, ""),
    "LabelMe in one folder": (
        {f"json/{k}.json": json.dumps({"shapes": [SHAPE], "imagePath": f"{k}.png"}) for k in range(2)}
        | {f"images/{split}/{k}.png": None for k, split in enumerate(("train", "test"))},
        {"train": "images/train", "test": "images/test"},
        "not all images are where their JSON files say; data.file_names=relaxed looks further",
    ),
    "YOLO lists of names": (
        _yolo("images/a", "images/b") | {"train.txt": "0\n", "test.txt": "1.png\n"},
        {"train": "train.txt", "test": "test.txt"},
        "",
    ),
    "labelImg's YOLO": (
        {
            f"{split}/{k}.{end}": LINE if end == "txt" else None
            for k, split in enumerate(SPLITS)
            for end in ("txt", "png")
        }
        | {f"{split}/classes.txt": "a\n" for split in SPLITS},
        {split: split for split in SPLITS},
        "classes, 1: a",
    ),
    "COCO folds": (
        _coco("train_fold0", "train_fold1", "val_fold0", "val_fold1"),
        {"train": "annotations/train_fold0.json", "val": "annotations/val_fold0.json"},
        "",
    ),
    "COCO below splits": (
        {f"{split}/{path}": text for split in SPLITS for path, text in _coco("instances_default").items()},
        {split: f"{split}/annotations/instances_default.json" for split in SPLITS},
        "",
    ),
    "COCO beside masks": (
        _coco("train", "val") | {f"masks/{split}/{split}.png": None for split in ("train", "val")},
        {"train": "annotations/train.json", "val": "annotations/val.json"},
        "",
    ),
    "CVAT below splits": (
        {f"{split}/annotations.xml": _cvat(**{split: ""})[f"{split}.xml"] for split in SPLITS}
        | {f"{split}/images/{split}.png": None for split in SPLITS},
        {split: f"{split}/annotations.xml" for split in SPLITS},
        "",
    ),
    "CVAT without train": (
        _cvat(a="Validation"),
        {"train": "Validation"},
        "nothing is called train: Validation is taken to train on",
    ),
    "test images without XML": (
        _voc_lists("train") | {"ImageSets/Main/test.txt": "x\n", "JPEGImages/x.png": None},
        {"train": "train"},
        "test: left out, as none of the images in ImageSets/Main/test.txt has an annotation",
    ),
    "folders of batches and test": (_loose("batch1", "batch2", "test"), {"train": "batch1+batch2", "test": "test"}, ""),
    "folders of val and test": (
        _loose("val", "test"),
        {"train": "val", "test": "test"},
        "nothing is called train: val is taken to train on",
    ),
    "folders in one word": (_loose("trainset", "ValidationSet"), {"train": "trainset", "val": "ValidationSet"}, ""),
    "a folder of no split": (
        _loose("train", "val", "extra"),
        {"train": "train", "val": "val"},
        "annotation files that belong to no split: extra (1)",
    ),
    "YOLO batches": (
        _yolo("batch1/images", "batch2/images", "test/images"),
        {"train": "batch1/images+batch2/images", "test": "test"},
        "",
    ),
    "YOLO without train": (
        _yolo("images/a", "images/b", data_yaml="names: [a]\nval: images/a\ntest: images/b\n"),
        {"train": "val", "test": "test"},
        "data.yaml names no train: val is taken to train on",
    ),
    "a folder beside YOLO's": (
        _yolo("images/train", "images/val", "images/extra"),
        {"train": "train", "val": "val"},
        "folders with images that belong to no split: images/extra (1 image)",
    ),
    "test images without labels": (
        _yolo("images/train") | {"images/test/9.png": None},
        {"train": "train"},
        "test: left out, as none of its 1 image has a label file",
    ),
    "names in labels": (
        {key: text for key, text in _yolo("images", labels_classes_txt="").items() if key != "classes.txt"}
        | {"labels/classes.txt": "a\n"},
        {"train": "."},
        "classes, 1: a",
    ),
    "COCO trainset": (
        _coco("trainset", "testset"),
        {"train": "annotations/trainset.json", "test": "annotations/testset.json"},
        "",
    ),
    "COCO without train": (
        _coco("val", "test"),
        {"train": "annotations/val.json", "test": "annotations/test.json"},
        "no file is called train: annotations/val.json is taken to train on",
    ),
    "COCO with a copy": (_coco("train", "train (copy)"), {"train": "annotations/train.json"}, ""),
    "CVAT jobs": (_cvat(job_1="default", job_2="default"), {"train": "."}, ""),
    "a CVAT file of no split": (
        _cvat(train="Train", more="more"),
        {"train": "train.xml"},
        "subsets or files that belong to no split: more.xml (1 image)",
    ),
}


@pytest.mark.parametrize("case", PARTS)
def test_no_other_split_is_trained_on_and_what_is_left_out_is_said(case: str, tmp_path: Path) -> None:
    files, splits, line = PARTS[case]
    for path, text in files.items():
        if text is None:
            save_images(tmp_path, path)
        else:
            write_file(tmp_path, path, text)
    found = recognise(tmp_path)
    key = "annotations" if found.layout.name == "coco" else "split"
    assert {split: found.settings[f"{split}_{key}"] for split in found.layout.counts} == splits
    assert line in ["", *found.lines]
    data = config_from_dict({"model": {"name": "yolo"}, "data": found.settings}, "here", []).data
    whole = data.model_copy(update={"val_fraction": None})
    train = open_split(whole, "train")
    assert len(train) == found.layout.counts["train"]
    for split in ("val", "test"):
        if split in splits:
            assert len(open_split(whole, split, train.classes)) == found.layout.counts[split]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no bytes": (_coco("train") | {"annotations/val.json": ""}, "annotations/val.json: not a readable JSON file"),
    "another JSON": (_coco("val") | {"annotations/train.json": "[]"}, "train.json: expected a list of objects under"),
    "UTF-16": (_coco("train") | {"annotations/val.json": "".join(f"{c}\0" for c in "{}")}, "save it as UTF-8"),
    "an empty list": (_voc_lists("train", "val") | {"ImageSets/Main/train.txt": "\n"}, "train.txt: it lists no images"),
    "no masks of train": (
        {"train/images/1.png": None, "val/images/2.png": None, "val/masks/2.png": None},
        "train/images: there are 1 image and no masks; val/images has some in val/masks",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_damaged_split_is_an_error_and_not_another_one(case: str, tmp_path: Path) -> None:
    files, message = WRONG[case]
    for path, text in files.items():
        if text is None:
            save_images(tmp_path, path)
        else:
            write_file(tmp_path, path, text)
    with pytest.raises(DataError, match=message):
        recognise(tmp_path)


def test_most_masks_of_train_are_missing(tmp_path: Path) -> None:
    save_images(tmp_path, *(f"train/images/{k}.png" for k in range(4)), "train/masks/0.png")
    save_images(tmp_path, "val/images/9.png", "val/masks/9.png")
    found = recognise(tmp_path, "maps")
    assert (found.root, found.layout.counts) == (tmp_path, {"train": 4, "val": 1})
    assert "train: 3 of 4 images have no mask: 1, 2, 3" in found.lines


@pytest.mark.parametrize(
    ("folder", "labels"), [("JPEGImages", "labels"), ("imgs", "txt"), ("images/a", "labels"), ("IMAGES", "LABELS")]
)
def test_label_files_are_found_where_others_have_them(folder: str, labels: str, tmp_path: Path) -> None:
    save_images(tmp_path, f"{folder}/1.png", f"{folder}/2.png")
    for name in "12":
        write_file(tmp_path, f"{labels}/{name}.txt", LINE)
    write_file(tmp_path, "classes.txt", "a\n")
    report = DataReport()
    assert len(read_yolo(tmp_path, ".", report=report).packed.labels) == 2
    assert report.notes == [f"the label files of {folder} are taken from {labels}"]


def test_labels_of_another_split_are_not_taken(tmp_path: Path) -> None:
    for split in ("train", "test"):
        save_images(tmp_path, f"images/{split}/1.png")
    write_file(tmp_path, "labels/train/1.txt", LINE)
    write_file(tmp_path, "classes.txt", "a\n")
    with pytest.raises(DataError, match="none of 1 images has a label file"):
        read_yolo(tmp_path, "test")


def test_a_missing_image_is_not_that_of_another_split(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_file(tmp_path, f"annotations/{split}/0.xml", _xml("0"))
    save_images(tmp_path, "images/val/0.png", "images/train/1.png")
    with pytest.raises(DataError, match="1 of 1 images missing"):
        read_voc(tmp_path, "annotations/train")


def test_labels_in_folders_of_splits_and_images_in_one_cannot_be_told_apart(tmp_path: Path) -> None:
    save_images(tmp_path, "images/1.png", "images/2.png")
    for split, name in (("train", "1"), ("test", "2")):
        write_file(tmp_path, f"labels/{split}/{name}.txt", LINE)
    write_file(tmp_path, "classes.txt", "a\n")
    with pytest.raises(
        DataError, match="its images lie in one folder, images, and label files in several, labels/test"
    ):
        read_yolo(tmp_path, ".")


def test_splits_are_no_classes_of_masks(tmp_path: Path) -> None:
    for k, split in enumerate(SPLITS):
        save_images(tmp_path, f"images/{k}.png", f"masks/{split}/{k}.png")
    with pytest.raises(DataError, match="no annotations that can be read"):
        recognise(tmp_path, "maps")


def test_lists_of_masks_may_hold_names(tmp_path: Path) -> None:
    for k in range(2):
        save_images(tmp_path, f"images/{k}.png", f"masks/{k}.png")
    for k, split in enumerate(("train", "val")):
        write_file(tmp_path, f"splits/{split}.txt", f"{k}\n")
    write_file(tmp_path, "classes.txt", "ground\ncell\n")
    found = recognise(tmp_path, "maps")
    assert (found.settings["train_images"], found.layout.counts) == ("splits/train.txt", {"train": 1, "val": 1})
    data = config_from_dict({"model": {"name": "unet"}, "data": found.settings}, "here", []).data
    assert open_semantic_split(data, "val", ClassTable(("ground", "cell"))).path(0) == tmp_path / "images/1.png"


def test_masks_beside_images_are_no_images(tmp_path: Path) -> None:
    save_images(tmp_path, "train/img/1.png", "train/gt/1.png")
    write_file(tmp_path, "labels/train/1.txt", LINE)
    write_file(tmp_path, "classes.txt", "a\n")
    found = read_yolo(tmp_path, "train")
    assert [found.packed.path(index) for index in range(len(found))] == ["train/img/1.png"]
    assert found.report.notes[0] == "images in folders of masks and the like, not taken: 1 (train/gt)"
