"""Splits that are recognised are those that readers find: lists in the root, and YOLO text's names and folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detseg.config.load import config_from_dict
from detseg.data.build import Split, open_semantic_split, open_split
from detseg.data.formats.recognise import recognise
from detseg.data.formats.yolo import read_yolo
from detseg.structures import ClassTable
from tests.data.formats.layouts import save_images, write_file

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
