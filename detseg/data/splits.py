"""From the ``data`` section to data sets: explicit matches, one place."""

from __future__ import annotations

from typing import Literal

from detseg.config.data import CocoConfig, DataConfig, ShapesConfig, VocConfig
from detseg.data.coco import read_coco
from detseg.data.dataset import DetectionDataset
from detseg.data.download import download_voc
from detseg.data.shapes_drawing import SHAPE_CLASSES
from detseg.data.voc import read_voc
from detseg.data.write_shapes import ensure_shapes
from detseg.errors import DataError
from detseg.structures import ClassTable

Split = Literal["train", "val", "test"]


def open_split(config: DataConfig, split: Split, classes: ClassTable | None = None) -> DetectionDataset:
    """The data set of a split.

    Args:
        config: the ``data`` section.
        split: which one; the shapes set has no test split.
        classes: the table to label by; None: ``config.classes``, or what the training annotations hold.

    Raises:
        DataError: a folder, list, annotation or image is missing or wrong.
    """
    names = classes or config.classes
    match config:
        case VocConfig():
            return _open_voc(config, split, names)
        case CocoConfig():
            images, annotations = {
                "train": (config.train_images, config.train_annotations),
                "val": (config.val_images, config.val_annotations),
                "test": (config.test_images, config.test_annotations),
            }[split]
            if images is None or annotations is None:
                raise DataError("data.test_images, data.test_annotations: not set, so there is no test split")
            return read_coco(config.root / images, config.root / annotations, names)
        case ShapesConfig():
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
            return read_voc(config.root / "voc", split, classes=names or SHAPE_CLASSES)


def _open_voc(config: VocConfig, split: Split, classes: ClassTable | tuple[str, ...] | None) -> DetectionDataset:
    name = {"train": config.train_split, "val": config.val_split, "test": config.test_split}[split]
    if config.download:
        for year in sorted({*config.years, *(part.partition(":")[0] for part in name.split("+") if ":" in part)}):
            download_voc(config.root, year)
    return read_voc(config.root, name, config.years, classes)
