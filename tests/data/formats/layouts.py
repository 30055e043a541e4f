"""Tiny data sets in the layouts that are read; the readers, each with a valid layout in which tests replace a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from detseg.data.annotations.mask_names import mask_class_table
from detseg.data.annotations.report import DataReport
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.data.formats.coco import read_coco, read_coco_masks
from detseg.data.formats.cvat import read_cvat
from detseg.data.formats.labelme import read_labelme
from detseg.data.formats.mask_folder import read_mask_folder
from detseg.data.formats.voc import read_voc, read_voc_masks
from detseg.data.formats.yolo import read_yolo
from detseg.data.images.masks import MaskEncoding, Rgb
from detseg.structures import ClassTable

Box = tuple[str, float, float, float, float]


def object_xml(box: Box, extra: str = "") -> str:
    """One ``<object>``: class and 1-based inclusive corners."""
    name, xmin, ymin, xmax, ymax = box
    corners = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def annotation_xml(content: str, filename: str = "", size_wh: tuple[int, int] | None = (20, 10)) -> str:
    size = "" if size_wh is None else f"<size><width>{size_wh[0]}</width><height>{size_wh[1]}</height></size>"
    return f"<annotation><filename>{filename}</filename>{size}{content}</annotation>"


def write_voc(folder: Path, lists: dict[str, str], annotations: dict[str, str]) -> Path:
    """A VOC folder with lists, annotations by stem, and a black 20 x 10 image for each annotation."""
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, text in lists.items():
        (folder / "ImageSets" / "Main" / f"{name}.txt").write_text(text)
    for stem, text in annotations.items():
        (folder / "Annotations" / f"{stem}.xml").write_text(text)
        Image.new("RGB", (20, 10)).save(folder / "JPEGImages" / f"{stem}.jpg")
    return folder


def simple_voc(folder: Path, boxes: Sequence[Box] = (("cat", 2, 3, 8, 9),), stem: str = "a") -> Path:
    content = "".join(object_xml(box) for box in boxes)
    return write_voc(folder, {"train": f"{stem}\n"}, {stem: annotation_xml(content, f"{stem}.jpg")})


def save_images(root: Path, *names: str) -> None:
    """Black images of 8 x 8 pixels."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / name)


def write_file(root: Path, name: str, content: object) -> None:
    """A text file, or a JSON file of plain values."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


Rows = Sequence[Sequence[int]]
BINARY = ("background", "thing")


def encoding(
    *names: str,
    values: tuple[int, ...] | None = None,
    ignore_index: int | None = 255,
    colors: tuple[Rgb, ...] | None = None,
    ignore_colors: tuple[Rgb, ...] = (),
    threshold: int | None = None,
) -> MaskEncoding:
    return MaskEncoding(ClassTable(names or BINARY), values, ignore_index, colors, ignore_colors, threshold)


def save_mask(path: Path, rows: Rows | npt.NDArray[Any], mode: str = "L") -> Path:
    """A mask of the given values, as a grey image or (mode P) with a palette that says nothing of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(rows, dtype=np.uint8), mode=mode)
    if mode == "P":
        image.putpalette([(7 * k) % 256 for k in range(768)])
    image.save(path)
    return path


def save_image(path: Path, hw: tuple[int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (hw[1], hw[0])).save(path)
    return path


def write_voc_masks(root: Path, masks: Mapping[str, Rows], lists: Mapping[str, str] | None = None) -> Path:
    """A VOC folder for segmentation: palette masks by stem, a black image for each, and the list ``train``."""
    for stem, rows in masks.items():
        save_mask(root / "SegmentationClass" / f"{stem}.png", rows, "P")
        save_image(root / "JPEGImages" / f"{stem}.jpg", np.shape(rows)[:2])
    folder = root / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (lists or {"train": "\n".join(masks)}).items():
        (folder / f"{name}.txt").write_text(text)
    return root


def write_pairs(root: Path, masks: Mapping[str, Rows], suffix: str = "") -> tuple[Path, Path]:
    """A folder of black images and one of grey masks, by stem (which may hold folders)."""
    for stem, rows in masks.items():
        save_mask(root / "masks" / f"{stem}{suffix}.png", rows)
        save_image(root / "images" / f"{stem}.jpg", np.shape(rows)[:2])
    return root / "images", root / "masks"


def write_coco_masks(
    root: Path,
    annotations: Sequence[Mapping[str, Any]],
    hw: tuple[int, int] = (6, 8),
    names: Sequence[str] = ("a", "b"),
) -> tuple[Path, Path]:
    """A COCO file of one image, id 7, with the categories 3, 4, ...; each annotation gets an id where it has none."""
    save_image(root / "images" / "x.png", hw)
    content = {
        "images": [{"id": 7, "file_name": "x.png", "height": hw[0], "width": hw[1]}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=3)],
        "annotations": [{"id": number, "image_id": 7, **entry} for number, entry in enumerate(annotations, start=1)],
    }
    (root / "x.json").write_text(json.dumps(content))
    return root / "images", root / "x.json"


def rectangle(x1: int, y1: int, x2: int, y2: int) -> list[list[int]]:
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def lines_of(report: DataReport) -> str:
    return "\n".join(report.lines())


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


YOLO_LINE = "0 0.275 0.4 0.35 0.6"  # the box (2, 1, 9, 7) of 20 x 10 pixels


def labelme_content(*shapes: Any, **changes: Any) -> dict[str, Any]:
    """A LabelMe file of a.png; without shapes, of one cat."""
    cat = {"label": "cat", "points": [[2, 1], [9, 7]], "group_id": None, "shape_type": "rectangle", "flags": {}}
    content = {"version": "5.5.0", "flags": {}, "shapes": list(shapes) or [cat], "imagePath": "a.png"}
    return content | {"imageData": None, "imageHeight": 10, "imageWidth": 20} | changes


CVAT_BOX = '<box label="cat" occluded="0" xtl="2" ytl="1" xbr="9" ybr="7" z_order="0"/>'


def cvat_content(
    shapes: str = CVAT_BOX, name: str = "a.png", side: str = 'width="20" height="10"', labels: Sequence[str] = ()
) -> str:
    """A CVAT file of one image, the first of the subset Train."""
    listed = "".join(f"<label><name>{label}</name></label>" for label in labels)
    meta = f"<meta><task><labels>{listed}</labels></task></meta>" if labels else ""
    image = f'<image id="0" name="{name}" subset="Train" {side}>{shapes}</image>'
    return f"<annotations><version>1.1</version>{meta}{image}</annotations>"


def _write_yolo(folder: Path) -> None:
    save_image(folder / "images" / "a.png", HW)
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels" / "a.txt").write_text(YOLO_LINE)
    (folder / "data.yaml").write_text("names: [cat, dog]\ntrain: images\n")


def _write_labelme(folder: Path) -> None:
    for name in ("data/a.png", "secret.png"):  # the last one is what "../secret.png" would reach
        save_image(folder / name, HW)
    (folder / "data" / "a.json").write_text(json.dumps(labelme_content()))


def _write_cvat(folder: Path) -> None:
    for name in ("data/images/Train/a.png", "secret.png", "data/b.png"):
        save_image(folder / name, HW)
    (folder / "data" / "annotations.xml").write_text(cvat_content())


def _read_split(read: Callable[..., Any], inside: str, usual: str, folder: Path, **options: Any) -> Any:
    return read(folder / inside, **({"split": usual} | options))


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
    "yolo_labels": Reader("labels/a.txt", _write_yolo, partial(_read_split, read_yolo, ".", "train")),
    "yolo_yaml": Reader("data.yaml", _write_yolo, partial(_read_split, read_yolo, ".", "train")),
    "labelme": Reader("data/a.json", _write_labelme, partial(_read_split, read_labelme, "data", ".")),
    "cvat": Reader("data/annotations.xml", _write_cvat, partial(_read_split, read_cvat, "data", "train")),
}
