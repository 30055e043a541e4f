"""Every file of the collection of exports of annotation tools: the layouts that are ours are read, to the boxes that
the files state; the others are told apart by name.  A file that the table does not have fails the test.

Boxes are written here as 0-based half-open corners, worked out by hand: COCO's [x, y, width, height] → [x, y, x +
width, y + height], VOC's inclusive 1-based corners → [xmin - 1, ymin - 1, xmax, ymax].
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detseg.data.formats.coco import read_coco
from detseg.data.formats.instances_to_labels import read_coco_masks
from detseg.data.formats.mask_folder import read_mask_folder
from detseg.data.formats.voc import read_voc, read_voc_masks
from tests.data.formats.outcomes import (
    Check,
    coco_file,
    error_of,
    files_below,
    listed,
    mask_bounds,
    no_coco_file,
    no_voc_list,
    no_voc_xml,
    nothing_of_ours,
    pixels,
    voc_list,
    voc_xml,
)
from tests.shared_data import shared_data

VOC_CLASSES = """
aeroplane background bicycle bird boat bottle bus car cat chair cow diningtable dog horse ignored motorbike person
pottedplant sheep sofa train tvmonitor
"""

PIXELS = [
    *(f"coco_dataset/coco{kind}/images/{name}" for kind in ("", "_captions") for name in ("train/a.jpg", "val/b.jpg")),
    *(f"coco_dataset/coco_{kind}/images/train/a.jpg" for kind in ("image_info", "instances", "labels", "panoptic")),
    *(f"coco_dataset/coco_{kind}/images/val/b.jpg" for kind in ("image_info", "instances", "labels", "panoptic")),
    *(f"coco_dataset/coco_{kind}/images/train/a.jpg" for kind in ("person_keypoints", "stuff")),
    *(f"coco_dataset/coco_{kind}/images/val/b.jpg" for kind in ("person_keypoints", "stuff")),
    *(
        f"coco_dataset/{kind}/{name}"
        for kind in ("coco_roboflow", "mmdet_coco")
        for name in ("train/a.jpg", "val/b.jpg")
    ),
    *(f"coco_dataset/{kind}/annotations/panoptic_train/a.png" for kind in ("coco", "coco_panoptic")),
    *(f"coco_dataset/{kind}/annotations/panoptic_val/b.png" for kind in ("coco", "coco_panoptic")),
    *listed("common_semantic_segmentation_dataset/dataset", "images/0001.png images/0002.png masks/0001.png"),
    "common_semantic_segmentation_dataset/dataset/masks/0002.png",
    *listed("common_semantic_segmentation_dataset/non_standard_dataset", "images/image_0001.png masks/gt_0001.png"),
    *listed("common_semantic_segmentation_dataset/non_standard_dataset", "images/image_0002.png masks/gt_0002.png"),
    *(f"cvat_dataset/for_images/export_project/images/{split}/img0.jpg" for split in ("Test", "Train", "Validation")),
    *(f"cvat_dataset/for_images/export_project/images/{split}/img1.jpg" for split in ("Test", "Train", "Validation")),
    *listed("cvat_dataset/for_images/export_task/images", "img0.jpg img1.jpg"),
    *listed("labelme_dataset", "Images/subset1/img1.png Masks/subset1/img1_mask_1.png Masks/subset1/img1_mask_5.png"),
    *listed("labelme_dataset/Scribbles/subset1", "img1_scribble_1.png img1_scribble_5.png"),
    *(f"roboflow_dataset/{kind}/train/train_001.jpg" for kind in ("coco", "voc")),
    *(f"roboflow_dataset/{kind}/train/train_002.jpg" for kind in ("coco", "voc")),
    *(f"roboflow_dataset/{kind}/val/val_001.jpg" for kind in ("coco", "voc")),
    *listed("roboflow_dataset/yolo", "train/images/train_001.jpg train/images/train_002.jpg val/images/val_001.jpg"),
    *listed("voc_dataset/voc_dataset1/JPEGImages", "2007_000001.jpg 2007_000002.jpg"),
    *listed("voc_dataset/voc_dataset1", "SegmentationClass/2007_000001.png SegmentationObject/2007_000001.png"),
    "voc_dataset/voc_dataset3/JPEGImages/2007_000001.jpg",
    *listed("yolo_dataset", "annotations/Images/1.jpg labels/images/train/1.jpg labels/images/val/1.jpg"),
    "yolo_dataset/strict/obj_train_data/1.jpg",
]
"""Images, and masks as far as they are pictures."""

NOT_OURS = [
    *("LICENSE", "README.md", "SHA256SUMS"),
    *(f"common_semantic_segmentation_dataset/{kind}/dataset_meta.json" for kind in ("dataset", "non_standard_dataset")),
    *listed("roboflow_dataset/yolo", "data.yaml train/labels/train_001.txt train/labels/train_002.txt"),
    "roboflow_dataset/yolo/val/labels/val_001.txt",
    *(
        f"voc_dataset/voc_dataset1/ImageSets/{task}/{name}.txt"
        for task in ("Action", "Layout")
        for name in ("test", "train")
    ),
    *(f"voc_dataset/voc_dataset2/ImageSets/{task}/trainval.txt" for task in ("Action", "Layout")),
    "voc_dataset/voc_dataset2/labelmap.txt",
    *listed("yolo_dataset/annotations", "Annotations/1.txt obj.names"),
    *listed("yolo_dataset/labels", "README.txt labels/train/1.txt labels/val/1.txt obj.names"),
    *listed("yolo_dataset/strict", "obj.data obj.names obj_train_data/1.txt train.txt"),
]
"""Files of other layouts, and those of VOC that are for other tasks than ours."""

TRAIN = ("a.jpg", ("b", 2.0, 2.0, 5.0, 3.0))
VAL = (("b.jpg", ("a", 0.0, 0.0, 1.0, 2.0)), ("b.jpg", ("b", 0.0, 0.0, 1.0, 9.0)))
"""What the instances of the COCO exports are; the second of the validation image is a crowd."""


def instances_train(images: str) -> Check:
    """Its object has no polygon: boxes are read, masks are refused."""
    return coco_file(
        images,
        TRAIN,
        masks=no_coco_file(images, "annotation 1: segmentation: expected polygons or run lengths, got []", masks=True),
    )


def instances_val(images: str) -> Check:
    """The polygon covers 1 x 2 pixels; the run lengths [0, 20, 30] of 10 rows the first two columns."""
    return coco_file(images, *VAL, crowd=1, masks=mask_bounds(images, (0, 0, 1, 2), (0, 0, 2, 10)))


def coco_task(kind: str, train: Check, val: Check) -> dict[str, Check]:
    """The files of a COCO task, which are in its own folder and in that of all tasks."""
    folders = ("coco", f"coco_{kind}")
    splits = {"train": train, "val": val}
    return {f"coco_dataset/{f}/annotations/{kind}_{s}.json": splits[s] for f in folders for s in splits}


COCO: dict[str, Check] = {
    **coco_task(
        "captions",
        no_coco_file("../images/train", "it has no categories"),
        no_coco_file("../images/val", "it has no categories"),
    ),
    **coco_task(
        "image_info",
        no_coco_file("../images/train", "is it an image_info file"),
        no_coco_file("../images/val", "is it an image_info file"),
    ),
    **coco_task("instances", instances_train("../images/train"), instances_val("../images/val")),
    **coco_task(
        "labels",
        no_coco_file("../images/train", "annotation 1: bbox: expected [x, y, width, height]"),
        no_coco_file("../images/val", "annotation 1: bbox: expected [x, y, width, height]"),
    ),
    **coco_task(
        "panoptic",
        no_coco_file("../images/train", "annotation number 0: id: expected a whole number, got None"),
        no_coco_file("../images/val", "annotation number 0: id: expected a whole number, got None"),
    ),
    **coco_task("person_keypoints", instances_train("../images/train"), instances_val("../images/val")),
    **coco_task(
        "stuff",
        # Run lengths [10, 10, 5, 10, 15] of 5 rows: columns 2 and 3, 5 and 6.
        coco_file(
            "../images/train",
            ("a.jpg", ("a", 2.0, 0.0, 6.0, 4.0)),
            crowd=1,
            masks=mask_bounds("../images/train", (2, 0, 7, 5)),
        ),
        coco_file("../images/val", VAL[1], crowd=1, masks=mask_bounds("../images/val", (0, 0, 2, 10))),
    ),
    "coco_dataset/coco_roboflow/train/_annotations.coco.json": instances_train("."),
    "coco_dataset/coco_roboflow/val/_annotations.coco.json": instances_val("."),
    "coco_dataset/mmdet_coco/annotations/instances_train.json": instances_train("../train"),
    "coco_dataset/mmdet_coco/annotations/instances_val.json": instances_val("../val"),
    "roboflow_dataset/coco/train/_annotations.coco.json": coco_file(
        ".", ("train_001.jpg", ("label_0", 2.0, 1.0, 5.0, 2.0)), ("train_002.jpg", ("label_1", 0.0, 0.0, 2.0, 4.0))
    ),
    "roboflow_dataset/coco/val/_annotations.coco.json": coco_file(
        ".",
        ("val_001.jpg", ("label_0", 0.0, 0.0, 1.0, 2.0)),
        ("val_001.jpg", ("label_1", 0.0, 0.0, 9.0, 1.0)),
        crowd=1,
    ),
}

XML: dict[str, Check] = {
    "cvat_dataset/for_images/export_project/annotations.xml": no_voc_xml("outermost element, got <annotations>"),
    "cvat_dataset/for_images/export_task/train.xml": no_voc_xml("outermost element, got <annotations>"),
    "labelme_dataset/Annotations/subset1/img1.xml": no_voc_xml("window' has no <bndbox>"),
    # Roboflow begins to count at 0, so that after 1 is taken off a corner may be -1: reported, and clipped on training.
    "roboflow_dataset/voc/train/train_001.xml": voc_xml(("label_0", 1, 0, 5, 2), hw=(5, 10)),
    "roboflow_dataset/voc/train/train_002.xml": voc_xml(("label_1", -1, -1, 2, 4), hw=(5, 10)),
    "roboflow_dataset/voc/val/val_001.xml": voc_xml(("label_0", -1, -1, 1, 2), ("label_1", -1, -1, 9, 1), hw=(5, 10)),
    "voc_dataset/voc_dataset1/Annotations/2007_000001.xml": voc_xml(
        ("cat", 0, 1, 3, 4), ("person", 3, 4, 6, 7), hw=(10, 20)
    ),
    "voc_dataset/voc_dataset2/Annotations/@.xml": voc_xml(),
    "voc_dataset/voc_dataset2/Annotations/a.xml": voc_xml(("background", 0, 1, 4, 6)),
    "voc_dataset/voc_dataset2/Annotations/b.xml": voc_xml(("aeroplane", 1, 1, 7, 6)),
    "voc_dataset/voc_dataset2/Annotations/c.xml": voc_xml(("bicycle", 2, 0, 11, 6)),
    "voc_dataset/voc_dataset2/Annotations/d.xml": voc_xml(("bird", 3, 3, 8, 8)),
    "voc_dataset/voc_dataset3/Annotations/2007_000001.xml": voc_xml(("cat", 0, 1, 3, 4), hw=(10, 20)),
}


def segmentation_list(words: str) -> Check:
    """A list in ``ROOT/ImageSets/Segmentation`` that cannot be read; the message names a file of the data."""

    def check(path: Path) -> None:
        root = path.parents[2]
        assert words in error_of(lambda: read_voc_masks(root, path.stem, classes=("background", "cat")), root)

    return check


MAIN = "voc_dataset/voc_dataset{}/ImageSets/Main/{}.txt"
SEGMENTATION = "voc_dataset/voc_dataset{}/ImageSets/Segmentation/{}.txt"
LISTS: dict[str, Check] = {
    # A list of one class has a second column, whatever it says: all images of the list are images of the split.
    **{MAIN.format(1, f"{name}_train"): voc_list("2007_000001.jpg") for name in VOC_CLASSES.split()},
    MAIN.format(1, "train"): voc_list("2007_000001.jpg"),
    MAIN.format(1, "test"): no_voc_list("1 annotation(s) of the list missing: 2007_000002.xml"),
    **{MAIN.format(2, f"{name}_trainval"): no_voc_list("lists no images") for name in VOC_CLASSES.split()},
    MAIN.format(2, "trainval"): no_voc_list("5 image(s) of the list missing: @, a, b"),
    MAIN.format(3, "train"): voc_list("2007_000001.jpg"),  # behind a blank line and a comment
    SEGMENTATION.format(1, "train"): segmentation_list("2007_000001.png: the mask is RGB"),
    SEGMENTATION.format(1, "test"): segmentation_list("1 mask(s) of the list missing: 2007_000002.png"),
    SEGMENTATION.format(2, "trainval"): segmentation_list("lists no images"),
}

TABLE: dict[str, Check] = {
    **dict.fromkeys(PIXELS, pixels),
    **dict.fromkeys(NOT_OURS, nothing_of_ours),
    **COCO,
    **XML,
    **LISTS,
}


def test_the_table_has_every_file() -> None:
    assert files_below(shared_data("formats")) == set(TABLE)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_each_file_has_its_outcome(name: str) -> None:
    TABLE[name](shared_data("formats", *name.split("/")))


def test_the_training_boxes_of_the_voc_export() -> None:
    dataset = read_voc(shared_data("formats", "voc_dataset", "voc_dataset1"), "train")
    assert dataset.classes.names == ("cat", "person")
    assert dataset[0].boxes.tolist() == [[0, 1, 3, 4], [3, 4, 6, 7]]  # the <part> of the person is no object
    assert dataset[0].labels.tolist() == [0, 1]
    assert dataset.packed.truncated.tolist() == [True, False]


@pytest.mark.parametrize(
    "folder",
    [
        "cvat_dataset/for_images/export_task",
        "labelme_dataset",
        "roboflow_dataset/voc",
        "roboflow_dataset/yolo",
        "yolo_dataset/strict",
        "yolo_dataset/labels",
    ],
)
def test_folders_of_other_layouts_are_refused_by_name(folder: str) -> None:
    root = shared_data("formats", *folder.split("/"))
    assert "there is no ImageSets/Main in it" in error_of(lambda: read_voc(root, "train"), root)
    file = root / "annotations" / "instances_train.json"
    assert "there is no such annotation file" in error_of(lambda: read_coco(root, file), file)


def test_colour_masks_with_the_classes_of_their_own_file() -> None:
    root = shared_data("formats", "common_semantic_segmentation_dataset", "dataset")
    meta = json.loads((root / "dataset_meta.json").read_text())
    names = list(meta["label_map"].values())
    colors = [(r, g, b) for r, g, b in meta["segmentation_colors"]]
    dataset = read_mask_folder(root / "images", root / "masks", names, colors=colors)
    # (0, 128, 192) is Bicyclist, number 3; (128, 64, 128) Road, 5; (64, 128, 64) Animal, 1; (192, 128, 64) Child, 4.
    assert [dataset.semantic(i).tolist() for i in range(2)] == [[[3, 3, 5, 3, 3]], [[1, 1, 1, 4, 4]]]


def test_regions_of_coco_as_a_label_map() -> None:
    folder = shared_data("formats", "coco_dataset", "coco_stuff")
    dataset = read_coco_masks(folder / "images" / "train", folder / "annotations" / "stuff_train.json")
    expected = np.zeros((5, 10), dtype=np.uint8)
    expected[:, [2, 3, 5, 6]] = 255  # a crowd counts nowhere
    assert np.array_equal(dataset.semantic(0), expected)
