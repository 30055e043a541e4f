"""From the ``data`` section to data sets: explicit matches, one place."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from detseg.config.data import CocoConfig, DataConfig, FolderConfig, ShapesConfig, VocConfig
from detseg.data.coco import read_coco
from detseg.data.dataset import DetectionDataset
from detseg.data.download import download_voc
from detseg.data.shapes_drawing import SHAPE_CLASSES
from detseg.data.voc import read_voc
from detseg.data.write_shapes import ensure_shapes
from detseg.errors import DataError
from detseg.structures import ClassTable

Split = Literal["train", "val", "test"]


def open_split(
    config: DataConfig, split: Split, classes: ClassTable | None = None, masks: bool = False
) -> DetectionDataset:
    """The data set of a split.

    Args:
        config: the ``data`` section.
        split: which one; the shapes set has no test split.
        classes: the table to label by; None: ``config.classes``, or what the training annotations hold.
        masks: whether the objects need masks, too.

    Raises:
        DataError: the layout has no masks of single objects, or a folder, list, annotation or image is missing or
            wrong.
    """
    names = classes or config.classes
    match config:
        case VocConfig():
            if masks:
                raise DataError("data.name: voc holds no masks of single objects; take coco, or model.name=faster_rcnn")
            return read_voc(config.root, voc_list(config, split), config.years, names)
        case CocoConfig():
            return read_coco(*coco_paths(config, split), names, masks)
        case ShapesConfig() if masks:
            root = shapes_root(config, split, "coco")
            file = root / "annotations" / f"instances_{split}.json"
            return read_coco(root / split, file, names or SHAPE_CLASSES, masks)
        case ShapesConfig():
            return read_voc(shapes_root(config, split), split, classes=names or SHAPE_CLASSES)
        case FolderConfig():
            raise DataError("data.name: folder holds masks, not boxes; take voc or coco")


def voc_list(config: VocConfig, split: Split) -> str:
    """The list of a split as the readers take it, fetched where that is asked for.

    Raises:
        DataError: the download failed.
    """
    name = {"train": config.train_split, "val": config.val_split, "test": config.test_split}[split]
    if config.download:
        for year in sorted({*config.years, *(part.partition(":")[0] for part in name.split("+") if ":" in part)}):
            download_voc(config.root, year)
    return name


def coco_paths(config: CocoConfig, split: Split) -> tuple[Path, Path]:
    """The image folder and the annotation file of a split.

    Raises:
        DataError: there is no test split.
    """
    images, annotations = {
        "train": (config.train_images, config.train_annotations),
        "val": (config.val_images, config.val_annotations),
        "test": (config.test_images, config.test_annotations),
    }[split]
    if images is None or annotations is None:
        raise DataError("data.test_images, data.test_annotations: not set, so there is no test split")
    return config.root / images, config.root / annotations


def shapes_root(config: ShapesConfig, split: Split, layout: Literal["voc", "coco"] = "voc") -> Path:
    """The folder of the shapes set in one of its layouts, written now if it was not there.

    Raises:
        DataError: there is no such split, or the set cannot be written.
    """
    if split == "test":
        raise DataError("the shapes set has no test split; evaluate its validation images: --split val")
    ensure_shapes(
        config.root,
        num_train=config.num_train,
        num_val=config.num_val,
        size=config.size,
        max_objects=config.max_objects,
        seed=config.data_seed,
    )
    return config.root / layout
