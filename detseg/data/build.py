"""Opens the data sets of an experiment: the only file that turns settings into data sets."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import TypeAdapter

from detseg.config.schema.data import (
    AutoConfig,
    CocoConfig,
    CustomDataConfig,
    CvatConfig,
    DataConfig,
    DataSection,
    LabelMeConfig,
    MaskFolderConfig,
    ShapesConfig,
    SplitSection,
    VocConfig,
    YoloTextConfig,
)
from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.model import CustomModelConfig, MaskRcnnConfig, ModelConfig, SegmenterConfig
from detseg.data.annotations.classes import (
    BACKGROUND,
    Classes,
    select_classes,
    split_background,
)
from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.mask_names import check_classes_file
from detseg.data.annotations.report import DataReport, report_rows
from detseg.data.datasets.detection import DetectionDataset, ImageDataset
from detseg.data.datasets.image_check import inspect_images
from detseg.data.datasets.segmentation import SegmentationDataset, draw_objects, inspect_masks
from detseg.data.download import download_voc
from detseg.data.formats.coco import read_coco, read_coco_masks
from detseg.data.formats.cvat import read_cvat
from detseg.data.formats.labelme import read_labelme
from detseg.data.formats.mask_folder import Affixes, read_mask_folder
from detseg.data.formats.recognise import recognise
from detseg.data.formats.recognise.layout import Need
from detseg.data.formats.voc import read_voc, read_voc_masks
from detseg.data.formats.yolo import read_yolo
from detseg.data.shapes import SHAPE_CLASSES, write_shapes
from detseg.data.split_files import Source
from detseg.data.splits import class_counts, image_groups, stratified_parts
from detseg.errors import ClassTableError, DataError, MissingSplitError
from detseg.messages import counted, listed
from detseg.structures import ClassTable

logger = logging.getLogger("detseg")

Split = Literal["train", "val", "test"]
AnySet = TypeVar("AnySet", DetectionDataset, SegmentationDataset)
AnyData = TypeVar("AnyData", bound=DataSection)

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
    """Open a split with boxes, or with boxes and instance ``masks``, as the ``data`` section says; see `inspect_images`
    for what is said of its images.

    ``classes`` is the table of the training split or of a checkpoint; None: this is the training split, and
    ``data.classes`` or the data name the classes. ``report`` gets what is found; None: a new one, for which what is
    wrong is an error, but for what the settings accept. A DataError if something is missing or wrong, or the layout
    does not have boxes or masks.
    """
    config = resolve_layout(config, "outlines" if masks else "boxes")
    _check_example(config)
    with _advice_for_val(split):
        whole = _open_objects(*_source(config, split), classes, masks, report)
    kept = _part(config, split, whole)
    return _checked(whole if kept is None else whole.subset(kept), config)


def open_semantic_split(
    config: DataConfig, split: Split, classes: ClassTable | None = None, report: DataReport | None = None
) -> SegmentationDataset:
    """Open a split with semantic label maps; see ``open_split``."""
    config = resolve_layout(config, "maps")
    _check_example(config)
    with _advice_for_val(split):
        whole = _open_maps(*_source(config, split), classes, report)
    kept = _part(config, split, whole)
    return _checked(whole if kept is None else whole.subset(kept), config)


@contextmanager
def _advice_for_val(split: Split) -> Iterator[None]:
    """Who has no validation set is told how to do without."""
    try:
        yield
    except MissingSplitError as error:
        fix = "; without a validation set: data.val_fraction=0.2" if split == "val" else ""
        raise MissingSplitError(f"{error}{fix}") from None


def resolve_data(config: ExperimentConfig) -> ExperimentConfig:
    """Settings whose ``data.name: auto`` has become the layout that the folder has, for the model; the log says what
    was found. Called where an experiment begins, so that its run directory and checkpoints hold that layout. A
    DataError as of `recognise`."""
    if not isinstance(config.data, AutoConfig):
        return config
    model = config.model
    need: Need = "outlines" if isinstance(model, MaskRcnnConfig) else "boxes"
    return config.model_copy(update={"data": resolve_layout(config.data, "maps" if is_semantic(model) else need)})


def is_semantic(model: ModelConfig) -> bool:
    """Whether a model learns from label maps."""
    return isinstance(model, SegmenterConfig) or (isinstance(model, CustomModelConfig) and model.task == "semantic")


def resolve_layout(config: DataConfig, need: Need) -> DataConfig:
    """A ``data`` section that is ``auto`` as the layout that its folder has; another one as it is. What is set in it
    counts before what is found."""
    if not isinstance(config, AutoConfig):
        return config
    found = recognise(config.root, need)
    settings: dict[str, Any] = {
        key: getattr(config, key) for key in DataSection.model_fields if key in config.model_fields_set
    }
    usual, own = AutoConfig(name="auto", root=config.root), dict[str, Any]()
    for key in ("train_split", "val_split", "test_split"):
        if (value := getattr(config, key)) != getattr(usual, key):
            if f"{key.removesuffix('split')}annotations" in found.settings or found.layout.name == "mask_folder":
                what = f"{found.layout.what} has files and folders for splits, no names"
                raise DataError(f"data.{key}: {what}; set data.name={found.layout.name} and name these")
            own[key] = value
    settings |= found.settings | own
    if config.classes is not None:
        settings["classes"] = config.classes
        named = select_classes(config.classes).label_of
        if not found.layout.classes and len(named) != len(found.settings.get("classes", named)):
            # What was found belongs to the classes that were named by the values.
            settings |= {"mask_values": None, "ignore_index": 255, "mask_threshold": None}
    if config.val_fraction is not None or "val_split" in own:
        settings["val_fraction"] = config.val_fraction
    for line in found.lines:
        logger.info(f"data: {line}")
    return TypeAdapter[DataConfig](DataConfig).validate_python(settings)


def open_as_stated(
    config: ExperimentConfig, splits: Sequence[str], maps: bool | None = None, whole: bool = True
) -> tuple[dict[str, Any], dict[str, DataError]]:
    """The splits of resolved settings as their annotations state them: their reports count what is wrong, and every
    outline is kept.

    Args:
        config: the settings.
        splits: the names of those to open.
        maps: whether label maps are read, or objects; None: what the model learns from.
        whole: whether splits are whole, without ``data.fraction`` and ``data.val_fraction``.

    Returns:
        The data set of each, and what is wrong with those that cannot be opened.

    Raises:
        DataError: the first cannot be opened.
    """
    found, errors = dict[str, Any](), dict[str, DataError]()
    data = _whole(config.data) if whole else config.data
    for name in splits:
        first = next(iter(found.values()), None)
        try:
            found[name] = _open_as_stated(data, _split(name), config.model, maps, first)
        except DataError as error:
            if not found:
                raise
            errors[name] = error
    return found, errors


def open_sources(config: ExperimentConfig, splits: Sequence[str]) -> tuple[list[Source], dict[str, str]]:
    """As `open_as_stated`, with a data set for each annotation file, and where it comes from."""
    sources, errors = list[Source](), dict[str, str]()
    for name in splits:
        try:
            for section, images, annotations in _single_files(_whole(config.data), _split(name)):
                first = sources[0].dataset if sources else None
                dataset = _open_as_stated(section, _split(name), config.model, None, first)
                sources.append(Source(dataset, images, annotations))
        except DataError as error:
            if not sources:
                raise
            errors[name] = str(error)
    return sources, errors


def _whole(data: AnyData) -> AnyData:
    return data.model_copy(update={"val_fraction": None, "fraction": 1.0, "on_bad_sample": "skip"})


def _split(name: str) -> Split:
    return "train" if name == "train" else "val" if name == "val" else "test"


def _open_as_stated(
    data: DataConfig, split: Split, model: ModelConfig, maps: bool | None, first: ImageDataset | None
) -> DetectionDataset | SegmentationDataset:
    report, classes = DataReport(True), None if first is None else first.classes
    if is_semantic(model) if maps is None else maps:
        return open_semantic_split(data, split, classes, report)
    masks = isinstance(model, MaskRcnnConfig)
    dataset = open_split(data, split, classes, masks, report)
    if masks:
        regions = dataset.packed.regions
        without = np.ones(len(dataset.packed.labels), dtype=np.bool_) if regions is None else regions.lengths == 0
        if without.sum() > report.count(DataIssue.BAD_MASK):  # which have none any more
            report_rows(DataIssue.NO_OUTLINE, without, dataset.packed, report)
    return dataset


def _single_files(config: DataConfig, split: Split) -> list[tuple[DataConfig, Path, Path]]:
    """A section for each annotation file of a split of COCO, with folder and file; for others the section itself."""
    if isinstance(config, MaskFolderConfig):
        return [(config, *_mask_paths(config, split))]
    if not isinstance(config, CocoConfig):
        return [(config, Path(), Path())]
    folders, files = _paths(config, split)
    found: list[tuple[DataConfig, Path, Path]] = []
    for number, file in enumerate(files):
        folder = folders[min(number, len(folders) - 1)]
        here = {f"{split}_images": folder.absolute(), f"{split}_annotations": file.absolute()}
        found.append((config.model_copy(update=here), folder, file))
    return found


def _checked(dataset: AnySet, config: DataConfig) -> AnySet:
    """A data set that reads its images as the settings say, with what is said of them in its report."""
    dataset.value_range = config.value_range
    inspect_images(dataset)
    return dataset


_READERS = {"yolo": read_yolo, "labelme": read_labelme, "cvat": read_cvat}


def _open_objects(
    config: DataConfig, split: Split, classes: ClassTable | None, masks: bool, report: DataReport | None
) -> DetectionDataset:
    report, names = report or _report(config), _wanted(config, classes)
    skip_bad = split == "train" and config.on_bad_sample == "skip"
    match config:
        case VocConfig() if not masks:
            return read_voc(config.root, _voc_list(config, split), config.years, names, report)
        case VocConfig():
            raise DataError("data.name: voc has no instance masks; set data.name=coco, or model.name=faster_rcnn")
        case CocoConfig():
            return read_coco(*_paths(config, split), names, masks, skip_bad, report)
        case YoloTextConfig() | LabelMeConfig() | CvatConfig():
            return _READERS[config.name](config.root, _split_name(config, split), names, masks, report)
        case ShapesConfig() if masks:
            root = _shapes_root(config, split) / "coco"
            return read_coco(root / split, root / f"annotations/instances_{split}.json", names or SHAPE_CLASSES, masks)
        case ShapesConfig():
            return read_voc(_shapes_root(config, split) / "voc", split, classes=names or SHAPE_CLASSES)
        case MaskFolderConfig():
            raise DataError("data.name: mask_folder has semantic masks but no boxes; set data.name to voc or coco")
        case AutoConfig() | CustomDataConfig():
            raise DataError(_CUSTOM)


def _open_maps(
    config: DataConfig, split: Split, classes: ClassTable | None, report: DataReport | None
) -> SegmentationDataset:
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
                colors=config.mask_colors,
                ignore_colors=config.ignore_colors,
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
            found = _READERS[config.name](config.root, _split_name(config, split), objects, True, report)
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
        case AutoConfig() | CustomDataConfig():
            raise DataError(_CUSTOM)


def _source(config: DataConfig, split: Split) -> tuple[DataConfig, Split]:
    """The split that the images of a split come from: with ``data.val_fraction`` that of ``val`` is ``train``; and the
    settings to open it with: what is validated on is not skipped."""
    if split != "val" or config.val_fraction is None:
        return config, split
    return config.model_copy(update={"on_bad_sample": "error"}), "train"


def _part(config: DataConfig, split: Split, whole: ImageDataset) -> list[int] | None:
    """Which images of the split that it comes from a split has, by ``data.val_fraction`` and ``data.fraction``; None:
    all of them. The set's report gets the numbers."""
    fraction = config.fraction if split == "train" else 1.0
    if split == "test" or (config.val_fraction is None and fraction == 1):
        return None
    kept, counts = np.arange(len(whole)), class_counts(whole)
    if config.val_fraction is not None:
        paths = [whole.path(index) for index in range(len(whole))]
        groups, kind = image_groups(paths, config.split_group, "data.split_group")
        fractions = (1 - config.val_fraction, config.val_fraction)
        parts = stratified_parts(counts, fractions, groups, config.split_seed)
        sizes = np.bincount(parts, minlength=2).tolist()
        if 0 in sizes:
            what = f"{len(whole)} images in {counted(len(set(groups.tolist())), 'group')}{kind}"
            fix = "set data.split_group=none, or name a validation split"
            raise DataError(f"data.val_fraction: {whole.name}: {what} cannot be divided; {fix}")
        kept = np.flatnonzero(parts == (split == "val"))
        how = f"data.val_fraction={config.val_fraction:g}, seed {config.split_seed}{kind}"
        whole.report.note(f"{sizes[0]} of {len(whole)} images to train on, {sizes[1]} to validate on ({how})")
    if fraction < 1:
        among, fractions = len(kept), (fraction, 1 - fraction)
        parts = stratified_parts(counts[kept], fractions, np.arange(among), config.split_seed)
        kept = kept[parts == 0]
        how = f"data.fraction={fraction:g}, seed {config.split_seed}"
        whole.report.note(f"{len(kept)} of {among} training images are used ({how})")
    found: list[int] = kept.tolist()
    return found


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


def _split_name(config: SplitSection | VocConfig, split: Split) -> str:
    return {"train": config.train_split, "val": config.val_split, "test": config.test_split}[split]


def _check_example(config: DataConfig) -> None:
    if not isinstance(config, VocConfig | CocoConfig) or (isinstance(config, VocConfig) and config.download):
        return
    if config.root in _EXAMPLES and not config.root.exists():
        page = "docs/data_formats.md, 'The sets of the examples', says where it comes from"
        raise DataError(f"{config.root}: there is no such folder; {page}; or set data.root to where it is")


def _voc_list(config: VocConfig, split: Split) -> str:
    name = _split_name(config, split)
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
        raise MissingSplitError("data.test_images, data.test_annotations: not set, so there is no test split")
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
        raise MissingSplitError("data.test_images, data.test_masks: not set, so there is no test split")
    return config.root / images, config.root / masks


def _shapes_root(config: ShapesConfig, split: Split) -> Path:
    """The folder of the shapes set, which is written if it is not there."""
    if split == "test":
        raise MissingSplitError("the shapes set has no test split; evaluate its validation images: --split val")
    write_shapes(config.root, config.num_train, config.num_val, config.size, config.max_objects, config.data_seed)
    return config.root
