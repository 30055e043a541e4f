"""The readers, each on a small valid layout of its own in which tests replace one file: the list of the table of bad
files and of fuzzing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from detseg.data.annotations.classes import mask_class_table
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.data.formats.coco import read_coco, read_coco_masks
from detseg.data.formats.mask_folder import read_mask_folder
from detseg.data.formats.voc import read_voc, read_voc_masks
from tests.data.formats.mask_layouts import save_image, write_pairs, write_voc_masks
from tests.data.formats.voc_layout import annotation_xml, object_xml, write_voc

HW = (10, 20)
MASK_CLASSES = ("background", "thing", "other")
LABELS = np.zeros(HW, dtype=np.uint8)
LABELS[2:7, 3:9], LABELS[5:, 12:] = 1, 2


@dataclass(frozen=True)
class Reader:
    """A reader and its layout."""

    file: str
    write: Callable[[Path], object]
    read: Callable[..., DetectionDataset | SegmentationDataset]


def coco_content(**changes: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    annotation = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [2, 1, 7, 6]}
    annotation |= {"segmentation": [[2, 1, 9, 1, 9, 7, 2, 7]]}
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 10} | changes.get("image", {})],
        "categories": [{"id": 3, "name": "cat"} | changes.get("category", {})],
        "annotations": [annotation | changes.get("annotation", {})],
    }


def _write_voc(folder: Path) -> None:
    """Four images with names that lists can get wrong."""
    xml = annotation_xml(object_xml(("cat", 2, 3, 8, 9)), "a.jpg")
    write_voc(folder, {"train": "a\n"}, {stem: xml.replace("a.jpg", f"{stem}.jpg") for stem in ("a", "b", "c 1", "é")})


def _write_voc_masks(folder: Path) -> None:
    write_voc_masks(folder, {stem: LABELS.tolist() for stem in ("a", "b")})
    (folder / "classes.txt").write_text("\n".join(MASK_CLASSES))


def _write_pairs(folder: Path) -> None:
    write_pairs(folder, {"a": LABELS.tolist()})
    (folder / "classes.txt").write_text("\n".join(MASK_CLASSES))


def _write_coco(folder: Path) -> None:
    for name in ("images/a.png", "images/b.png", "secret.png"):  # the last one is what "../secret.png" would reach
        save_image(folder / name, HW)
    (folder / "x").write_bytes((folder / "secret.png").read_bytes())  # and this one the "../x" of the fuzz targets
    (folder / "x.json").write_text(json.dumps(coco_content()))


def _read_pairs(folder: Path, **options: Any) -> SegmentationDataset:
    paths = {"images": folder / "images", "masks": folder / "masks"}
    classes = options.pop("classes", None) or mask_class_table(folder, None).names
    return read_mask_folder(**(paths | options), classes=classes)


def _read_voc(read: Callable[..., Any], folder: Path, **options: Any) -> Any:
    return read(folder, **({"split": "train"} | options))


def _read_coco(read: Callable[..., Any], folder: Path, **options: Any) -> Any:
    return read(folder / "images", folder / "x.json", **options)


READERS = {
    "voc_xml": Reader("Annotations/a.xml", _write_voc, partial(_read_voc, read_voc)),
    "voc_list": Reader("ImageSets/Main/train.txt", _write_voc, partial(_read_voc, read_voc)),
    "mask_list": Reader("ImageSets/Segmentation/train.txt", _write_voc_masks, partial(_read_voc, read_voc_masks)),
    "semantic_voc": Reader("SegmentationClass/a.png", _write_voc_masks, partial(_read_voc, read_voc_masks)),
    "class_names": Reader("classes.txt", _write_pairs, _read_pairs),
    "mask_folder": Reader("masks/a.png", _write_pairs, _read_pairs),
    "coco_boxes": Reader("x.json", _write_coco, partial(_read_coco, read_coco)),
    "coco_masks": Reader("x.json", _write_coco, partial(_read_coco, partial(read_coco, masks=True))),
    "coco_semantic": Reader("x.json", _write_coco, partial(_read_coco, read_coco_masks)),
}
