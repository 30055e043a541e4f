"""Semantic maps from COCO instances (Lin et al. 2014): every pixel gets the category of the object that covers it.

The rule where regions overlap: crowd regions come first and become ``IGNORE_LABEL``; then the objects from the one with
the most pixels to the one with the fewest, each over those before it, so that small ones stay visible; objects of equal
size in the order of the file.  What no region covers is background, label 0.

Letters for dimensions: I images, T annotations, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from detseg.data.annotations.classes import check_class_name
from detseg.data.annotations.issues import DataReport
from detseg.data.annotations.model import pack_images
from detseg.data.annotations.regions import PackedRegions
from detseg.data.checks.mask_inspection import inspect_masks
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.data.formats.coco import report_labels, sorted_by_image
from detseg.data.formats.coco_columns import open_coco
from detseg.data.formats.coco_file import check_images_present, coco_categories, coco_class_table
from detseg.errors import ClassTableError
from detseg.messages import listed, shown
from detseg.structures import IGNORE_LABEL, MAX_CLASSES, BoolArray, ClassTable, IntArray, UInt8Array

BACKGROUND = "background"
"""Name of label 0 where none is given."""


@dataclass(frozen=True)
class CocoMasks:
    """Maps drawn from the regions of a COCO file; the arrays are shared by all selections of it.

    Attributes:
        file: the annotation file.
        image_ids: (I,) int64, the ids of the file's images.
        sizes_hw: (I, 2) int64, their heights and widths in pixels.
        offsets: (I + 1,) int64; the regions of image i are ``offsets[i]`` to ``offsets[i + 1]``.
        regions: of all T annotations, sorted by image.
        labels: (T,) int64.
        crowd: (T,) bool.
        rows: int64, which of the I images this holds, in order.
    """

    file: Path
    image_ids: IntArray
    sizes_hw: IntArray
    offsets: IntArray
    regions: PackedRegions
    labels: IntArray
    crowd: BoolArray
    rows: IntArray

    def read(self, index: int) -> UInt8Array:
        """See ``MaskSource``; drawn by the rule above."""
        row = int(self.rows[index])
        hw = self.stated_hw(index)
        first, last = int(self.offsets[row]), int(self.offsets[row + 1])
        masks = self.regions.masks(range(first, last), hw)
        crowd = self.crowd[first:last]
        labels = np.where(crowd, IGNORE_LABEL, self.labels[first:last]).astype(np.uint8)
        semantic = np.zeros(hw, dtype=np.uint8)
        for number in np.lexsort((-masks.areas, ~crowd)):
            semantic[masks.mask(number)] = labels[number]
        return semantic

    def where(self, index: int) -> str:
        """See ``MaskSource``."""
        return f"{self.file}: image {self.image_ids[self.rows[index]]}"

    def stated_hw(self, index: int) -> tuple[int, int]:
        """See ``MaskSource``."""
        height, width = self.sizes_hw[self.rows[index]].tolist()
        return height, width

    def select(self, indices: Sequence[int]) -> CocoMasks:
        """See ``MaskSource``."""
        return replace(self, rows=self.rows[list(indices)])


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
        classes: None: ``background``, then all categories of the file in the order of their ids.  Names: first that of
            the background, which is no category, then these categories in this order; the regions of others become
            background, with their counts in the report.  A table (``train.classes``): likewise; its ids are kept.
        skip_bad: as ``inspect_masks`` takes it.

    Returns:
        The data set.  The background's source id is 0, or one below all others where a category has the id 0.

    Raises:
        DataError: a file is missing, an entry is wrong or refers to nothing, an annotation has no region, or a class is
            not among the categories.
    """
    root, file = Path(images_dir), Path(annotation_file)
    content, _ = open_coco(file, boxes=False, masks=True)
    report = DataReport()
    names = coco_categories(file, content.categories)
    table = _class_table(file, names, classes, report)
    image_ids, paths = content.images(report)
    check_images_present(root, paths)
    sizes = content.sizes(root, paths, report)
    wanted = [category_id for category_id, name in names.items() if name in table.names]
    objects = content.objects(boxes=False, wanted=wanted)
    labels = report_labels(objects, names, table, report)
    order, offsets = sorted_by_image(objects, labels, len(paths))
    masks = CocoMasks(
        file=file,
        image_ids=image_ids,
        sizes_hw=sizes,
        offsets=offsets,
        regions=content.regions(order, sizes[objects.positions[order]], "take these annotations out"),
        labels=labels[order],
        crowd=objects.crowd[order],
        rows=np.arange(len(sizes)),
    )
    dataset = SegmentationDataset(pack_images(paths, image_ids), masks, root, table, report, f"coco {file.stem}")
    inspect_masks(dataset, skip_bad=skip_bad)
    return dataset


def _class_table(
    file: Path, names: dict[int, str], classes: ClassTable | Sequence[str] | None, report: DataReport
) -> ClassTable:
    """The table with the background in front."""
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
        raise ClassTableError(
            f"{file}: {len(objects)} categories and a background are more than the {MAX_CLASSES} classes that a map "
            "can tell apart; name those that count in data.classes"
        )
    source_id = 0 if 0 not in objects.source_ids else min(objects.source_ids) - 1
    return ClassTable((background, *objects.names), (source_id, *objects.source_ids))
