"""Semantic maps from COCO instances (Lin et al. 2014): every pixel gets the category of the object that covers it.

Where regions overlap: crowd regions are drawn first, as ``IGNORE_LABEL``; then the objects from the one with the most
pixels to the one with the fewest, each over those before it, so that small ones stay visible; objects of equal size in
the order of the file. Pixels that no region covers are background, label 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detseg.data.annotations.classes import check_class_name
from detseg.data.annotations.issues import DataReport
from detseg.data.annotations.model import PackedAnnotations, PackedImages
from detseg.data.checks.mask_inspection import inspect_masks
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.data.formats.coco import Classes, coco_class_table, load_coco
from detseg.errors import ClassTableError
from detseg.messages import listed, shown
from detseg.structures import IGNORE_LABEL, MAX_CLASSES, ClassTable, UInt8Array

BACKGROUND = "background"
"""The name of label 0 if none is given."""


@dataclass(frozen=True, eq=False)
class CocoMasks:
    """Label maps drawn from the regions of a COCO file; a `MaskSource`."""

    file: Path
    packed: PackedAnnotations

    def read(self, index: int) -> UInt8Array:
        """(H, W) uint8 labels, drawn as described above."""
        objects, hw = self.packed.image(index), self.packed.hw(index)
        assert objects.masks is not None
        labels = np.where(objects.crowd, IGNORE_LABEL, objects.labels).astype(np.uint8)
        semantic = np.zeros(hw, dtype=np.uint8)
        for number in np.lexsort((-objects.masks.areas, ~objects.crowd)):
            semantic[objects.masks.mask(number)] = labels[number]
        return semantic

    def where(self, index: int) -> str:
        """The file and the image."""
        return f"{self.file}: image {self.packed.image_ids[index]}"

    def stated_hw(self, index: int) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return self.packed.hw(index)

    def select(self, indices: Sequence[int]) -> CocoMasks:
        """The maps of some images."""
        return CocoMasks(self.file, self.packed.select(indices))


def read_coco_masks(
    images_dir: Path | str,
    annotation_file: Path | str,
    classes: ClassTable | Sequence[str] | None = None,
    skip_bad: bool = False,
) -> SegmentationDataset:
    """Read a data set in COCO layout as semantic maps; images keep the order and the ids of the file.

    Args:
        images_dir: the folder that the file's ``file_name`` entries are relative to.
        annotation_file: the JSON file, of the kind ``instances_*.json``; polygons and run lengths of both kinds.
        classes: None: ``background``, then all categories of the file in the order of their ids. Names: first that of
            the background, which is no category, then these categories in this order; the regions of others become
            background and are reported. A table (``train.classes``): likewise; its ids are kept.
        skip_bad: as ``inspect_masks`` takes it.

    Raises:
        DataError: a file is missing, an entry is wrong or refers to nothing, an annotation has no region, or a class is
            not among the categories.
    """
    root, file, report = Path(images_dir), Path(annotation_file), DataReport()
    packed, table = load_coco(root, file, classes, report, _class_table, boxes=False)
    images = PackedImages(packed.image_ids, packed.path_bytes, packed.path_offsets)
    dataset = SegmentationDataset(images, CocoMasks(file, packed), root, table, report, f"coco {file.stem}")
    inspect_masks(dataset, skip_bad=skip_bad)
    return dataset


def _class_table(file: Path, names: dict[int, str], classes: Classes, report: DataReport) -> ClassTable:
    """The table with the background in front; its source id is 0, or one below all others where a category has 0."""
    given = () if classes is None else classes.names if isinstance(classes, ClassTable) else tuple(classes)
    background = given[0] if given else BACKGROUND
    check_class_name("data.classes", background)
    if background in names.values():
        other = "ground" if background == BACKGROUND else BACKGROUND
        raise ClassTableError(
            f"{file}: label 0 is the background, but {shown(background)} is the name of a category; begin data.classes "
            f"with a name that no category has: [{other}, {listed(given or tuple(names.values()))}]"
        )
    if isinstance(classes, ClassTable):
        coco_class_table(file, names, ClassTable(given[1:], classes.source_ids[1:]), report)
        return classes
    objects = coco_class_table(file, names, given[1:] if given else None, report)
    if len(objects) >= MAX_CLASSES:
        what = f"{len(objects)} categories and a background are more than the {MAX_CLASSES} classes"
        raise ClassTableError(f"{file}: {what} that a map can tell apart; name those that count in data.classes")
    source_id = 0 if 0 not in objects.source_ids else min(objects.source_ids) - 1
    return ClassTable((background, *objects.names), (source_id, *objects.source_ids))
