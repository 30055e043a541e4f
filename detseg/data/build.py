"""Opens the data sets of an experiment: the only file that turns settings into data sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from detseg.config.schema.data import (
    AutoConfig,
    CocoConfig,
    CustomDataConfig,
    CvatConfig,
    DataConfig,
    LabelMeConfig,
    MaskFolderConfig,
    ShapesConfig,
    SplitSection,
    VocConfig,
    YoloTextConfig,
)
from detseg.data.annotations.classes import (
    BACKGROUND,
    Classes,
    check_classes_file,
    select_classes,
    split_background,
)
from detseg.data.annotations.issues import DataIssue, DataReport
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset, draw_objects, inspect_masks
from detseg.data.download import download_voc
from detseg.data.formats.coco import read_coco, read_coco_masks
from detseg.data.formats.cvat import read_cvat
from detseg.data.formats.labelme import read_labelme
from detseg.data.formats.mask_folder import Affixes, read_mask_folder
from detseg.data.formats.voc import read_voc, read_voc_masks
from detseg.data.formats.yolo import read_yolo
from detseg.data.shapes import SHAPE_CLASSES, write_shapes
from detseg.errors import ClassTableError, DataError
from detseg.messages import listed
from detseg.structures import ClassTable

Split = Literal["train", "val", "test"]

SHAPE_MASK_CLASSES = (BACKGROUND, *SHAPE_CLASSES)
"""The classes of the semantic masks of the shapes set, in the order of their values."""

_EXAMPLES = [Path("data", name) for name in ("bccd", "camvid_small", "dsb2018_nuclei", "coco", "VOCdevkit")]
"""Where the examples in configs/ look for their sets."""

_CUSTOM = "data.name: custom are data sets that Python gives to detseg.train or detseg.evaluate; name a layout instead"


def open_split(
    config: DataConfig,
    split: Split,
    classes: ClassTable | None = None,
    masks: bool = False,
    report: DataReport | None = None,
) -> DetectionDataset:
    """Open a split with boxes, or with boxes and instance ``masks``, as the ``data`` section says.

    ``classes`` is the table of the training split or of a checkpoint; None: this is the training split, and
    ``data.classes`` or the data name the classes. ``report`` gets what is found; None: a new one, for which what is
    wrong is an error, but for what the settings accept. A DataError if something is missing or wrong, or the layout
    does not have boxes or masks.
    """
    _check_example(config)
    report, names = report or _report(config), _wanted(config, classes)
    skip_bad = split == "train" and config.on_bad_sample == "skip"
    match config:
        case VocConfig() if not masks:
            return read_voc(config.root, _voc_list(config, split), config.years, names, report)
        case VocConfig():
            raise DataError("data.name: voc has no instance masks; set data.name=coco, or model.name=faster_rcnn")
        case CocoConfig():
            return read_coco(*_paths(config, split), names, masks, skip_bad, report)
        case YoloTextConfig():
            return read_yolo(config.root, _split_name(config, split), names, masks, report)
        case LabelMeConfig():
            return read_labelme(config.root, _split_name(config, split), names, masks, report)
        case CvatConfig():
            return read_cvat(config.root, _split_name(config, split), names, masks, report)
        case ShapesConfig() if masks:
            root = _shapes_root(config, split) / "coco"
            return read_coco(root / split, root / f"annotations/instances_{split}.json", names or SHAPE_CLASSES, masks)
        case ShapesConfig():
            return read_voc(_shapes_root(config, split) / "voc", split, classes=names or SHAPE_CLASSES)
        case MaskFolderConfig():
            raise DataError("data.name: mask_folder has semantic masks but no boxes; set data.name to voc or coco")
        case AutoConfig():
            raise NotImplementedError
        case CustomDataConfig():
            raise DataError(_CUSTOM)


def open_semantic_split(
    config: DataConfig, split: Split, classes: ClassTable | None = None, report: DataReport | None = None
) -> SegmentationDataset:
    """Open a split with semantic label maps; see ``open_split``."""
    _check_example(config)
    report, names = report or _report(config), _wanted(config, classes)
    skip_bad = split == "train" and config.on_bad_sample == "skip"
    if isinstance(config, VocConfig | MaskFolderConfig) and classes is not None and config.classes is None:
        check_classes_file(config.root, classes)
    match config:
        case VocConfig():
            return read_voc_masks(
                config.root,
                _voc_list(config, split),
                config.years,
                names,
                config.mask_values,
                config.ignore_index,
                skip_bad,
                threshold=config.mask_threshold,
                report=report,
            )
        case MaskFolderConfig():
            return read_mask_folder(
                *_mask_paths(config, split),
                names,
                values=config.mask_values,
                ignore_index=config.ignore_index,
                colors=config.mask_colors,
                ignore_colors=config.ignore_colors,
                skip_bad=skip_bad,
                names=Affixes(config.image_prefix, config.image_suffix, config.mask_prefix, config.mask_suffix),
                threshold=config.mask_threshold,
                per_class=config.mask_per_class,
                root=config.root,
                report=report,
            )
        case CocoConfig():
            return read_coco_masks(*_paths(config, split), names, skip_bad, report)
        case YoloTextConfig() | LabelMeConfig() | CvatConfig():
            background, objects = split_background(names)
            read = {"yolo": read_yolo, "labelme": read_labelme, "cvat": read_cvat}[config.name]
            found = read(config.root, _split_name(config, split), objects, True, report)
            dataset = draw_objects(found, config.root, background, names)
            inspect_masks(dataset, skip_bad=skip_bad)
            return dataset
        case ShapesConfig():
            given = (classes.names if classes else config.class_names) or SHAPE_MASK_CLASSES
            if given != SHAPE_MASK_CLASSES:
                expected = f"expected those of the shapes set, {', '.join(SHAPE_MASK_CLASSES)}, in this order"
                raise ClassTableError(f"data.classes: {expected}; got {listed(given)}")
            root = _shapes_root(config, split) / "voc"
            return read_voc_masks(root, split, classes=classes or SHAPE_MASK_CLASSES, skip_bad=skip_bad)
        case AutoConfig():
            raise NotImplementedError
        case CustomDataConfig():
            raise DataError(_CUSTOM)


def _report(config: DataConfig) -> DataReport:
    """A report that accepts what the settings say."""
    accepted = {
        DataIssue.MISSING_IMAGE: config.on_missing == "skip",
        DataIssue.OTHER_SPELLING: config.file_names == "relaxed",
    }
    return DataReport([issue for issue, accepts in accepted.items() if accepts])


def _wanted(config: DataConfig, classes: ClassTable | None) -> Classes:
    """The classes to read: of settings that select some, also those of a table are known by the names they merge."""
    if config.classes is None:
        return classes
    chosen = select_classes(config.classes)
    if classes is None:
        return chosen
    return replace(chosen, source_ids=classes.source_ids) if chosen.names == classes.names else classes


def _split_name(config: SplitSection, split: Split) -> str:
    return {"train": config.train_split, "val": config.val_split, "test": config.test_split}[split]


def _check_example(config: DataConfig) -> None:
    if not isinstance(config, VocConfig | CocoConfig) or (isinstance(config, VocConfig) and config.download):
        return
    if config.root in _EXAMPLES and not config.root.exists():
        page = "docs/data_formats.md, 'The sets of the examples', says where it comes from"
        raise DataError(f"{config.root}: there is no such folder; {page}; or set data.root to where it is")


def _voc_list(config: VocConfig, split: Split) -> str:
    name = {"train": config.train_split, "val": config.val_split, "test": config.test_split}[split]
    if config.download:
        for year in sorted({*config.years, *(part.partition(":")[0] for part in name.split("+") if ":" in part)}):
            download_voc(config.root, year)
    return name


def _paths(config: CocoConfig, split: Split) -> tuple[list[Path], list[Path]]:
    """The image folders of a split, and its annotation files."""
    images, files = {
        "train": (config.train_images, config.train_annotations),
        "val": (config.val_images, config.val_annotations),
        "test": (config.test_images, config.test_annotations),
    }[split]
    if images is None or files is None:
        raise DataError("data.test_images, data.test_annotations: not set, so there is no test split")
    folders, jsons = ([config.root / one for one in (v if isinstance(v, tuple) else (v,))] for v in (images, files))
    return folders, jsons


def _mask_paths(config: MaskFolderConfig, split: Split) -> tuple[Path, Path]:
    """The image folder of a split, and its mask folder."""
    images, masks = {
        "train": (config.train_images, config.train_masks),
        "val": (config.val_images, config.val_masks),
        "test": (config.test_images, config.test_masks),
    }[split]
    if images is None or masks is None:
        raise DataError("data.test_images, data.test_masks: not set, so there is no test split")
    return config.root / images, config.root / masks


def _shapes_root(config: ShapesConfig, split: Split) -> Path:
    """The folder of the shapes set, which is written if it is not there."""
    if split == "test":
        raise DataError("the shapes set has no test split; evaluate its validation images: --split val")
    write_shapes(config.root, config.num_train, config.num_val, config.size, config.max_objects, config.data_seed)
    return config.root
