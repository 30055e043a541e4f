"""From the ``data`` section to data sets of semantic segmentation: explicit matches, one place."""

from __future__ import annotations

from detseg.config.data import CocoConfig, DataConfig, FolderConfig, ShapesConfig, VocConfig
from detseg.data.class_names import class_table
from detseg.data.mask_classes import compare_with_file, mask_class_table
from detseg.data.semantic_coco import BACKGROUND, read_coco_masks
from detseg.data.semantic_dataset import SegmentationDataset
from detseg.data.semantic_folder import read_mask_folder
from detseg.data.semantic_voc import read_voc_masks
from detseg.data.shapes_drawing import SHAPE_CLASSES
from detseg.data.splits import Split, coco_paths, shapes_root, voc_list
from detseg.errors import ClassTableError, DataError
from detseg.structures import ClassTable

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
    if isinstance(config, VocConfig | FolderConfig):
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
        case FolderConfig():
            return _open_folder(config, split, names, skip_bad)


def _open_folder(
    config: FolderConfig, split: Split, classes: ClassTable | tuple[str, ...] | None, skip_bad: bool
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
