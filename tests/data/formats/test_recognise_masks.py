"""Which masks belong to which images, and which classes they have, in folders that are recognised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detseg.config.load import config_from_dict
from detseg.config.schema.data import AutoConfig
from detseg.data.build import open_semantic_split, resolve_layout
from detseg.data.formats.recognise import recognise
from detseg.data.formats.voc import read_voc
from detseg.errors import DataError
from tests.data.formats.layouts import annotation_xml, object_xml, save_image, save_images, write_file


def test_masks_with_marks_on_both_sides(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for city in ("aachen", "bonn"):
            save_images(
                tmp_path,
                f"images/{split}/{city}/{city}_1_leftImg8bit.png",
                f"images/{split}/{city}/{city}_2_leftImg8bit.png",
            )
            save_images(
                tmp_path, f"masks/{split}/{city}/{city}_1_gt_ids.png", f"masks/{split}/{city}/{city}_2_gt_ids.png"
            )
    write_file(tmp_path, "classes.txt", "ground\ntree\n")
    found = recognise(tmp_path)
    assert found.layout.counts == {"train": 4, "val": 4}
    assert found.layout.classes == ("ground", "tree")
    assert found.settings["train_masks"] == "masks/train"
    assert (found.settings["image_suffix"], found.settings["mask_suffix"]) == ("leftImg8bit", "gt_ids")


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
        write_file(tmp_path, name, text)
    for name in images:
        save_images(tmp_path, name)
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
    "capitals": (
        ["Images/1.jpg", "Images/2.jpg", "Masks/1.png", "Masks/2.png", "Masks_old/1.png"],
        {"train_images": "Images", "train_masks": "Masks"},
        "folders with images that belong to no split: Masks_old (1 image)",
    ),
    "single words": (["img/1.jpg", "img/2.jpg", "label/1.png", "label/2.png"], {"train_masks": "label"}, ""),
    "numbers in names": (
        ["images/f_1.jpg", "images/f_2.jpg", "masks/f_1.png", "masks/f_2.png"],
        {"train_masks": "masks"},
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
    save_images(tmp_path, *names)
    found = recognise(tmp_path, "maps")
    assert some.items() <= found.settings.items()
    assert "mask_per_class" not in found.settings
    assert line in ["", *found.lines]


def test_masks_of_single_objects_are_no_maps(tmp_path: Path) -> None:
    save_images(tmp_path, *(f"images/{image}.png" for image in "ab"))
    save_images(tmp_path, *(f"masks/{image}_{number}.png" for image in "ab" for number in (1, 2)))
    with pytest.raises(DataError, match="no annotations that can be read"):
        recognise(tmp_path, "maps")


def test_boxes_beside_masks_of_one_folder(tmp_path: Path) -> None:
    """As in Oxford-IIIT Pet: the masks have the names of the images, and <filename> tells which is meant."""
    save_images(tmp_path, "images/1.jpg", "annotations/trimaps/1.png")
    write_file(tmp_path, "annotations/xmls/1.xml", annotation_xml(object_xml(("cat", 1, 1, 4, 4)), "1.jpg", (8, 8)))
    found = recognise(tmp_path)
    assert (found.layout.name, found.settings["train_split"]) == ("voc", ".")
    assert found.lines[-1] == "also there, not taken: folders of images and masks"
    assert read_voc(tmp_path, ".").path(0) == tmp_path / "images/1.jpg"


NO_VOID = {"ignore_index": None}
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
        ([0, 128, 255], {"classes": ["background", "class_128", "class_255"], "mask_values": [0, 128, 255]} | NO_VOID),
        ([0] * 40 + [64, 128, 192] + [255] * 40, SOFT),
        ([0] * 40 + [*range(0, 255, 10)] + [255] * 400, SOFT),
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
        write_file(tmp_path, "ImageSets/Segmentation/train.txt", "a\n")
    found = recognise(tmp_path, "maps")
    keys = ("classes", "mask_values", "ignore_index", "mask_threshold")
    assert {key: found.settings[key] for key in keys if key in found.settings} == expected
    said = [line for line in found.lines if line.endswith("names in data.classes") or "name them in" in line]
    assert (len(said), found.layout.classes) == (int(bool(expected)), ())
    if expected:
        config = config_from_dict({"model": {"name": "unet"}, "data": found.settings}, "here", [])
        opened = open_semantic_split(config.data.model_copy(update={"val_fraction": None}), "train")
        is_void = values[-1] == 255 and expected is not SOFT and "ignore_index" not in expected
        ends = [0, 255 if is_void else len(opened.classes) - 1]
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
