"""Reads the COCO layout (Lin et al. 2014): a folder of images and one JSON file of annotations.

Letters for dimensions: I images, T annotations, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detseg.data.annotations import PackedAnnotations, pack_paths
from detseg.data.coco_file import (
    Entry,
    check_images_present,
    coco_categories,
    coco_class_table,
    coco_images,
    coco_references,
    coco_regions,
    coco_sizes,
    entries_by_id,
    is_crowd,
    load_coco,
)
from detseg.data.dataset import DetectionDataset
from detseg.data.numbers import are_numbers
from detseg.data.offsets import running_total
from detseg.data.regions import PackedRegions
from detseg.data.report import DataReport, Oddity, report_contents
from detseg.errors import DataError, shown
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
    content = load_coco(file)
    report = DataReport()
    names = coco_categories(file, content["categories"])
    table = coco_class_table(file, names, classes, report)
    image_ids, paths = coco_images(file, content["images"], report)
    check_images_present(root, paths)
    sizes = coco_sizes(file, content["images"], root, paths, report)
    rows, columns = _columns(file, content["annotations"], image_ids, names, table, report)
    regions = None
    if masks:
        entries = [content["annotations"][row] for row in rows]
        entry_sizes = np.repeat(sizes, np.diff(columns["offsets"]), axis=0)
        mend = "take these annotations out, or take model.name=faster_rcnn, which learns from boxes alone"
        regions = coco_regions(file, entries, entry_sizes, mend)
        _take_mask_areas(columns["area"], entries, regions, entry_sizes)
    path_bytes, path_offsets = pack_paths(paths)
    packed = PackedAnnotations(
        image_ids=np.array(list(image_ids), dtype=np.int64),
        sizes_hw=sizes,
        path_bytes=path_bytes,
        path_offsets=path_offsets,
        regions=regions,
        **columns,
    )
    report_contents(packed, table, report)
    return DetectionDataset(packed, root, table, report, f"coco {file.stem}")


def _columns(
    file: Path,
    entries: list[Entry],
    image_ids: dict[int, int],
    names: dict[int, str],
    table: ClassTable,
    report: DataReport,
) -> tuple[list[int], dict[str, Any]]:
    """The annotations of wanted classes, sorted by image: which entries they are, and their columns, those of
    ``PackedAnnotations``."""
    entries_by_id(file, "annotation", entries)
    label_of_name = {name: label for label, name in enumerate(table.names)}
    label_of = {category_id: label_of_name.get(name, -1) for category_id, name in names.items()}
    position = np.zeros(len(entries), dtype=np.int64)
    labels, crowd = np.zeros(len(entries), dtype=np.int64), np.zeros(len(entries), dtype=np.bool_)
    xywh, area = np.zeros((len(entries), 4)), np.zeros(len(entries))
    for row, entry in enumerate(entries):
        position[row], category_id = coco_references(file, entry, image_ids, names)
        labels[row] = label_of[category_id]
        xywh[row] = _numbers(file, entry, "bbox", entry.get("bbox"), 4)
        area[row] = _numbers(file, entry, "area", [entry.get("area", xywh[row, 2] * xywh[row, 3])], 1)[0]
        crowd[row] = is_crowd(file, entry)
        if labels[row] < 0:
            report.add(Oddity.LEFT_OUT, names[category_id])
            continue
        if entry.get("ignore") == 1 and not crowd[row]:
            report.add(Oddity.IGNORE_KEY, str(entry["id"]))
        if "area" not in entry:
            report.add(Oddity.AREA_NOT_STATED, str(entry["id"]))
    order = np.argsort(position, kind="stable")
    order = order[labels[order] >= 0]
    flags = np.zeros(len(order), dtype=np.bool_)
    return order.tolist(), {
        "offsets": running_total(np.bincount(position[order], minlength=len(image_ids))),
        "boxes": np.concatenate([xywh[order, :2], xywh[order, :2] + xywh[order, 2:]], axis=1),
        "labels": labels[order],
        "crowd": crowd[order],
        "difficult": flags,
        "truncated": flags,
        "area": area[order],
    }


def _take_mask_areas(area: FloatArray, entries: list[Entry], regions: PackedRegions, sizes: IntArray) -> None:
    """Put the pixels of its mask where an annotation states no area; of T entries each with the size of its image."""
    for row, (entry, (height, width)) in enumerate(zip(entries, sizes.tolist(), strict=True)):
        if "area" not in entry:
            area[row] = regions.masks(range(row, row + 1), (height, width)).areas[0]


def _numbers(file: Path, entry: Entry, key: str, values: object, count: int) -> list[float]:
    if isinstance(values, list) and len(values) == count and are_numbers(values):
        return values
    expected = "[x, y, width, height] in pixels" if count == 4 else "a number"
    raise DataError(f"{file}: annotation {entry['id']}: {key}: expected {expected}, got {shown(entry.get(key))}")
