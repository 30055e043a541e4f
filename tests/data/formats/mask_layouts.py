"""Tiny data sets with masks for the tests: images of a few pixels in the layouts that are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from detseg.data.annotations.issues import DataReport
from detseg.data.images.masks import MaskEncoding, Rgb
from detseg.structures import ClassTable

Rows = Sequence[Sequence[int]]
BINARY = ("background", "thing")


def encoding(
    *names: str,
    values: tuple[int, ...] | None = None,
    ignore_index: int | None = 255,
    colors: tuple[Rgb, ...] | None = None,
    ignore_colors: tuple[Rgb, ...] = (),
) -> MaskEncoding:
    return MaskEncoding(ClassTable(names or BINARY), values, ignore_index, colors, ignore_colors)


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
