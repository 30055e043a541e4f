"""From the ``data`` section to data sets: explicit matches, one place."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from detseg.config.schema.data import CocoConfig, DataConfig, MaskFolderConfig, ShapesConfig, VocConfig
from detseg.config.schema.experiment import DetectorConfig, ExperimentConfig
from detseg.config.schema.rcnn import MaskRcnnConfig
from detseg.data.annotations.classes import class_table, compare_with_file, mask_class_table
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.data.download import download_voc
from detseg.data.formats.coco import read_coco
from detseg.data.formats.instances_to_labels import BACKGROUND, read_coco_masks
from detseg.data.formats.mask_folder import read_mask_folder
from detseg.data.formats.voc import read_voc, read_voc_masks
from detseg.data.synthetic.drawing import SHAPE_CLASSES
from detseg.data.synthetic.write import ensure_shapes
from detseg.errors import ClassTableError, DataError
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
        case MaskFolderConfig():
            raise DataError("data.name: mask_folder holds masks, not boxes; take voc or coco")


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


SHAPE_MASK_CLASSES = (BACKGROUND, *SHAPE_CLASSES)
"""What the values of the masks of the shapes set mean."""


def open_semantic_split(config: DataConfig, split: Split, classes: ClassTable | None = None) -> SegmentationDataset:
    """The data set of a split, with label maps.

    Args:
        config: the ``data`` section.
        split: which one; the shapes set has no test split.
        classes: the table to label by, of the training split or of a checkpoint; None: this is the training split,
            labelled by ``config.classes``, or by what the data says.

    Raises:
        ClassTableError: ``classes`` are not those that the data names, and ``config.classes`` says nothing.
        DataError: a folder, list, annotation, image or mask is missing or wrong.
    """
    difference = ""
    if isinstance(config, VocConfig | MaskFolderConfig):
        difference = compare_with_file(config.root, classes, config.classes)
    dataset = _open(config, split, classes)
    if difference:
        dataset.report.note(difference)
    return dataset


def _open(config: DataConfig, split: Split, classes: ClassTable | None) -> SegmentationDataset:
    names = classes or config.classes
    skip_bad = split == "train" and config.on_bad_sample == "skip"
    match config:
        case VocConfig():
            wanted, values = voc_list(config, split), config.mask_values
            return read_voc_masks(config.root, wanted, config.years, names, values, config.ignore_index, skip_bad)
        case CocoConfig():
            return read_coco_masks(*coco_paths(config, split), names, skip_bad)
        case ShapesConfig():
            table = class_table(names or SHAPE_MASK_CLASSES)
            if table.names != SHAPE_MASK_CLASSES:
                raise ClassTableError(
                    f"data.classes: the masks of the shapes set hold {', '.join(SHAPE_MASK_CLASSES)}, in this order; "
                    f"got {', '.join(table.names)}"
                )
            return read_voc_masks(
                shapes_root(config, split),
                split,
                classes=SHAPE_MASK_CLASSES if not classes else table,
                skip_bad=skip_bad,
            )
        case MaskFolderConfig():
            return _open_folder(config, split, names, skip_bad)


def _open_folder(
    config: MaskFolderConfig, split: Split, classes: ClassTable | tuple[str, ...] | None, skip_bad: bool
) -> SegmentationDataset:
    images, masks = {
        "train": (config.train_images, config.train_masks),
        "val": (config.val_images, config.val_masks),
        "test": (config.test_images, config.test_masks),
    }[split]
    if images is None or masks is None:
        raise DataError("data.test_images, data.test_masks: not set, so there is no test split")
    return read_mask_folder(
        config.root / images,
        config.root / masks,
        # Names, since a table says that this is not the training split.
        classes if isinstance(classes, ClassTable) else mask_class_table(config.root, classes).names,
        config.mask_suffix,
        config.mask_values,
        config.ignore_index,
        config.mask_colors,
        config.ignore_colors,
        skip_bad,
    )


def open_dataset(
    config: ExperimentConfig, split: Split, classes: ClassTable | None = None
) -> DetectionDataset | SegmentationDataset:
    """The data set of a split.

    Args:
        config: the experiment; its model decides what is read, its ``data`` section from where.
        split: which one.
        classes: the table to label by; None: ``data.classes``, or what the training data holds.

    Raises:
        DataError: something is missing or wrong.
    """
    if isinstance(config.model, DetectorConfig):
        return open_split(config.data, split, classes, masks=isinstance(config.model, MaskRcnnConfig))
    return open_semantic_split(config.data, split, classes)
