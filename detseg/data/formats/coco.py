"""Reads the COCO layout (Lin et al. 2014): a folder of images and one JSON file of annotations.

Letters for dimensions: I images, T annotations, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detseg.data.annotations.issues import DataIssue, DataReport, report_contents
from detseg.data.annotations.model import PackedAnnotations, pack_paths
from detseg.data.annotations.ragged import running_total
from detseg.data.annotations.regions import PackedRegions
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.coco_columns import open_coco
from detseg.data.formats.coco_content import CocoObjects, areas_or_those_of_boxes
from detseg.data.formats.coco_file import check_images_present, coco_categories, coco_class_table
from detseg.data.formats.index_cache import Index, IndexCache
from detseg.structures import ClassTable, FloatArray, IntArray


def read_coco(
    images_dir: Path | str,
    annotation_file: Path | str,
    classes: ClassTable | Sequence[str] | None = None,
    masks: bool = False,
) -> DetectionDataset:
    """Read a data set in COCO layout; images keep the order of the file, annotations that of their image.

    Args:
        images_dir: the folder that the file's ``file_name`` entries are relative to.
        annotation_file: the JSON file, of the kind ``instances_*.json``.
        classes: None: all categories of the file, in the order of their ids.  Names: these categories in this order;
            annotations of others are left out, with their counts in the report.  A table (``train.classes``): likewise,
            and its ids are kept where this file has others for the same names.
        masks: whether to read the segmentations, too: polygons and run lengths of both kinds, crowds included.

    Raises:
        DataError: a file is missing, an entry is wrong or refers to nothing, a class is not among the categories, or
            masks are wanted and an annotation has none.
    """
    root, file = Path(images_dir), Path(annotation_file)
    cache = IndexCache(file, "coco", masks, _plain(classes))
    index = cache.find()
    if index is None:
        index = _read(root, file, classes, masks, cache)
    else:
        check_images_present(root, index.packed.paths())
    table = classes if isinstance(classes, ClassTable) else index.classes
    return DetectionDataset(index.packed, root, table, index.report, f"coco {file.stem}")


def _plain(classes: ClassTable | Sequence[str] | None) -> object:
    if isinstance(classes, ClassTable):
        return classes.names, classes.source_ids
    return None if classes is None else tuple(classes)


def _read(root: Path, file: Path, classes: ClassTable | Sequence[str] | None, masks: bool, cache: IndexCache) -> Index:
    """Read the file, and keep what was made of it alone."""
    content, digest = open_coco(file, boxes=True, masks=masks)
    report = DataReport()
    names = coco_categories(file, content.categories)
    table = coco_class_table(file, names, classes, report)
    image_ids, paths = content.images(report)
    check_images_present(root, paths)
    sizes = content.sizes(root, paths, report)
    objects = content.objects(boxes=True, wanted=names)
    labels = report_labels(objects, names, table, report)
    report_keys(objects, labels, report)
    order, offsets = sorted_by_image(objects, labels, len(paths))
    area = areas_or_those_of_boxes(objects.area, objects.xywh)[order]
    regions = None
    if masks:
        entry_sizes = np.repeat(sizes, np.diff(offsets), axis=0)
        mend = "take these annotations out, or take model.name=faster_rcnn, which learns from boxes alone"
        regions = content.regions(order, entry_sizes, mend)
        _take_mask_areas(area, np.flatnonzero(np.isnan(objects.area[order])), regions, entry_sizes)
    path_bytes, path_offsets = pack_paths(paths)
    xywh, flags = objects.xywh[order], np.zeros(len(order), dtype=np.bool_)
    packed = PackedAnnotations(
        image_ids=image_ids,
        sizes_hw=sizes,
        path_bytes=path_bytes,
        path_offsets=path_offsets,
        offsets=offsets,
        boxes=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
        labels=labels[order],
        crowd=objects.crowd[order],
        difficult=flags,
        truncated=flags,
        area=area,
        regions=regions,
    )
    report_contents(packed, table, report)
    index = Index(packed, table, report)
    return index if report.count(DataIssue.SIZE_NOT_STATED) else cache.keep(index, digest.hexdigest())


def report_labels(objects: CocoObjects, names: dict[int, str], table: ClassTable, report: DataReport) -> IntArray:
    """(T,) int64 labels of the annotations, -1 where the table leaves their category out, which is noted.

    Args:
        objects: the T annotations.
        names: all categories by id.
        table: the classes that are wanted.
        report: where to note it.
    """
    label_of_name = {name: label for label, name in enumerate(table.names)}
    ids = np.array(sorted(names), dtype=np.int64)
    labels = np.array([label_of_name.get(names[i], -1) for i in ids.tolist()], dtype=np.int64)
    found = labels[np.searchsorted(ids, objects.category_ids)]
    left_out, first, counts = np.unique(objects.category_ids[found < 0], return_index=True, return_counts=True)
    for place in np.argsort(first).tolist():  # in the order of the file
        report.add(DataIssue.LEFT_OUT, names[int(left_out[place])], int(counts[place]))
    return found


def report_keys(objects: CocoObjects, labels: IntArray, report: DataReport) -> None:
    """Note wanted annotations, those with a label, whose keys say something odd."""
    wanted = labels >= 0
    report.add_all(DataIssue.IGNORE_KEY, objects.ids[wanted & objects.ignore & ~objects.crowd].tolist())
    report.add_all(DataIssue.AREA_NOT_STATED, objects.ids[wanted & np.isnan(objects.area)].tolist())


def sorted_by_image(objects: CocoObjects, labels: IntArray, images: int) -> tuple[IntArray, IntArray]:
    """Which annotations have a label, sorted by image, those of an image in the order of the file; and the (I + 1,)
    offsets of the images among them."""
    order = np.argsort(objects.positions, kind="stable")
    order = order[labels[order] >= 0]
    return order, running_total(np.bincount(objects.positions[order], minlength=images))


def _take_mask_areas(area: FloatArray, rows: IntArray, regions: PackedRegions, sizes: IntArray) -> None:
    """Put the pixels of its mask where an annotation states no area; of T entries each with the size of its image."""
    for row in rows.tolist():
        height, width = sizes[row].tolist()
        area[row] = regions.masks(range(row, row + 1), (height, width)).areas[0]
