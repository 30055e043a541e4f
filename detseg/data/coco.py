"""Reads the COCO layout (Lin et al. 2014): a folder of images and one JSON file of annotations.

Letters for dimensions: I images, T annotations, C classes.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from detseg.data.annotations import PackedAnnotations, pack_paths, running_total
from detseg.data.class_names import did_you_mean, listed
from detseg.data.dataset import DetectionDataset
from detseg.data.images import read_image_hw
from detseg.data.report import DataReport, Oddity, report_contents
from detseg.errors import ClassTableError, DataError
from detseg.structures import ClassTable

Entry = dict[str, Any]

_LARGEST = 1e15
"""Numbers beyond this are no pixels; up to it, float64 holds every whole number."""


def read_coco(
    images_dir: Path | str, annotation_file: Path | str, classes: ClassTable | Sequence[str] | None = None
) -> DetectionDataset:
    """Read a data set in COCO layout; images keep the order of the file, annotations that of their image.

    Args:
        images_dir: the folder that the file's ``file_name`` entries are relative to.
        annotation_file: the JSON file, of the kind ``instances_*.json``.
        classes: None: all categories of the file, in the order of their ids.  Names: these categories in this order;
            annotations of others are left out, with their counts in the report.  A table (``train.classes``): likewise,
            and its ids are kept where this file has others for the same names.

    Raises:
        DataError: a file is missing, an entry is wrong or refers to nothing, or a class is not among the categories.
    """
    root, file = Path(images_dir), Path(annotation_file)
    content = _load(file)
    report = DataReport()
    names = _categories(file, content["categories"])
    table = _table(file, names, classes, report)
    image_ids, paths = _images(file, content["images"], report)
    _check_present(root, paths)
    sizes = _sizes(file, content["images"], root, paths, report)
    columns = _columns(file, content["annotations"], image_ids, names, table, report)
    path_bytes, path_offsets = pack_paths(paths)
    packed = PackedAnnotations(
        image_ids=np.array(list(image_ids), dtype=np.int64),
        sizes_hw=sizes,
        path_bytes=path_bytes,
        path_offsets=path_offsets,
        **columns,
    )
    report_contents(packed, table, report)
    return DetectionDataset(packed, root, table, report, f"coco {file.stem}")


def _load(file: Path) -> dict[str, list[Entry]]:
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{file}: there is no such annotation file; correct data.root or the annotation path") from None
    except OSError as error:
        raise DataError(f"{file}: cannot read the annotation file: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not a readable JSON file: {error}") from None
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(f"{file}: expected a list of objects under '{key}'; is this a COCO instances file?")
    if not content["images"]:
        raise DataError(f"{file}: it lists no images")
    return {key: content[key] for key in ("images", "annotations", "categories")}


def _categories(file: Path, entries: list[Entry]) -> dict[int, str]:
    """Category names by id, in the order of the ids."""
    if not entries:
        raise DataError(f"{file}: it has no categories; is it an image_info file instead of an instances file?")
    names = _by_id(file, "category", entries)
    for category_id, entry in names.items():
        if not isinstance(entry.get("name"), str) or not entry["name"]:
            raise DataError(f"{file}: category {category_id}: expected a name, got {entry.get('name')!r}")
    found = {category_id: str(names[category_id]["name"]) for category_id in sorted(names)}
    twice = sorted({name for name in found.values() if list(found.values()).count(name) > 1})
    if twice:
        raise DataError(f"{file}: several categories have the same name: {listed(twice)}; rename or merge them")
    return found


def _by_id(file: Path, kind: str, entries: list[Entry]) -> dict[int, Entry]:
    found: dict[int, Entry] = {}
    for number, entry in enumerate(entries):
        entry_id = entry.get("id")
        if type(entry_id) is not int or abs(entry_id) >= 2**63:
            raise DataError(f"{file}: {kind} number {number}: id: expected a whole number, got {entry_id!r}")
        if entry_id in found:
            raise DataError(f"{file}: two entries have the {kind} id {entry_id}; ids must differ")
        found[entry_id] = entry
    return found


def _table(
    file: Path, names: dict[int, str], classes: ClassTable | Sequence[str] | None, report: DataReport
) -> ClassTable:
    if classes is None:
        return ClassTable(tuple(names.values()), tuple(names))
    id_of = {name: category_id for category_id, name in names.items()}
    wanted = classes.names if isinstance(classes, ClassTable) else tuple(classes)
    for name in wanted:
        if name not in id_of:
            raise ClassTableError(
                f"{file}: the class {name!r} is not among its categories{did_you_mean(name, list(id_of))}; "
                f"they are {listed(list(id_of))}: correct data.classes, or the categories of the file"
            )
    if not wanted or len(set(wanted)) != len(wanted):
        raise ClassTableError(
            f"the list of classes must name each class once and at least one, got {listed(wanted) or '-'}"
        )
    if not isinstance(classes, ClassTable):
        return ClassTable(wanted, tuple(id_of[name] for name in wanted))
    for name, source_id in zip(classes.names, classes.source_ids, strict=True):
        if id_of[name] != source_id:
            report.add(Oddity.OTHER_ID, name)
    return classes


def _images(file: Path, entries: list[Entry], report: DataReport) -> tuple[dict[int, int], list[str]]:
    """The position of each image id, and the paths in order of position."""
    by_id = _by_id(file, "image", entries)
    paths = [_path(file, image_id, entry.get("file_name")) for image_id, entry in by_id.items()]
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            report.add(Oddity.SHARED_IMAGE, path)
        seen.add(path)
    return {image_id: position for position, image_id in enumerate(by_id)}, paths


def _path(file: Path, image_id: int, name: object) -> str:
    if not isinstance(name, str) or not name:
        raise DataError(f"{file}: image {image_id}: file_name: expected a path, got {name!r}")
    if name.startswith(("/", "\\")) or PureWindowsPath(name).drive or ".." in PureWindowsPath(name).parts:
        raise DataError(
            f"{file}: image {image_id}: file_name: expected a path inside the image folder, got {name!r}; "
            "write it relative to that folder"
        )
    return posixpath.normpath(name)


def _check_present(root: Path, paths: list[str]) -> None:
    """One listing a folder instead of one question an image."""
    listings: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = posixpath.split(path)
        if folder not in listings:
            listings[folder] = set(os.listdir(root / folder)) if (root / folder).is_dir() else set()
        if name not in listings[folder]:
            missing.append(path)
    if missing:
        raise DataError(
            f"{root}: {len(missing)} of {len(paths)} images missing: {listed(missing)}; "
            "is this the image folder of the annotation file?"
        )


def _sizes(
    file: Path, entries: list[Entry], root: Path, paths: list[str], report: DataReport
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """(I, 2) height and width."""
    sizes = np.zeros((len(entries), 2), dtype=np.int64)
    for row, (entry, path) in enumerate(zip(entries, paths, strict=True)):
        for column, key in enumerate(("height", "width")):
            value = entry.get(key) or 0
            if not _are_numbers([value]) or value < 0 or value != int(value):
                raise DataError(f"{file}: image {entry['id']}: {key}: expected whole pixels, got {value!r}")
            sizes[row, column] = int(value)
        if not sizes[row].all():
            report.add(Oddity.SIZE_NOT_STATED, path)
            sizes[row] = read_image_hw(root / path)
    return sizes


def _columns(
    file: Path,
    entries: list[Entry],
    image_ids: dict[int, int],
    names: dict[int, str],
    table: ClassTable,
    report: DataReport,
) -> dict[str, Any]:
    """The annotations as columns, sorted by image: offsets, boxes, labels, crowd, difficult, truncated, area."""
    _by_id(file, "annotation", entries)
    label_of_name = {name: label for label, name in enumerate(table.names)}
    label_of = {category_id: label_of_name.get(name, -1) for category_id, name in names.items()}
    position = np.zeros(len(entries), dtype=np.int64)
    labels, crowd = np.zeros(len(entries), dtype=np.int64), np.zeros(len(entries), dtype=np.bool_)
    xywh, area = np.zeros((len(entries), 4)), np.zeros(len(entries))
    for row, entry in enumerate(entries):
        image_id, category_id = entry.get("image_id"), entry.get("category_id")
        if type(image_id) is not int or image_id not in image_ids:
            raise DataError(f"{file}: annotation {entry['id']}: image_id: there is no image {image_id!r}")
        if type(category_id) is not int or category_id not in label_of:
            raise DataError(f"{file}: annotation {entry['id']}: category_id: there is no category {category_id!r}")
        position[row], labels[row] = image_ids[image_id], label_of[category_id]
        xywh[row] = _numbers(file, entry, "bbox", entry.get("bbox"), 4)
        area[row] = _numbers(file, entry, "area", [entry.get("area", xywh[row, 2] * xywh[row, 3])], 1)[0]
        crowd[row] = _is_crowd(file, entry)
        if labels[row] < 0:
            report.add(Oddity.LEFT_OUT, names[category_id])
        elif entry.get("ignore") == 1 and not crowd[row]:
            report.add(Oddity.IGNORE_KEY, str(entry["id"]))
    order = np.argsort(position, kind="stable")
    order = order[labels[order] >= 0]
    flags = np.zeros(len(order), dtype=np.bool_)
    return {
        "offsets": running_total(np.bincount(position[order], minlength=len(image_ids))),
        "boxes": np.concatenate([xywh[order, :2], xywh[order, :2] + xywh[order, 2:]], axis=1),
        "labels": labels[order],
        "crowd": crowd[order],
        "difficult": flags,
        "truncated": flags,
        "area": area[order],
    }


def _numbers(file: Path, entry: Entry, key: str, values: object, count: int) -> list[float]:
    if isinstance(values, list) and len(values) == count and _are_numbers(values):
        return values
    expected = "[x, y, width, height] in pixels" if count == 4 else "a number"
    raise DataError(f"{file}: annotation {entry['id']}: {key}: expected {expected}, got {entry.get(key)!r}")


def _are_numbers(values: Iterable[object]) -> bool:
    return all(isinstance(value, int | float) and abs(value) < _LARGEST for value in values)  # NaN is not less


def _is_crowd(file: Path, entry: Entry) -> bool:
    value = entry.get("iscrowd", 0)
    if value not in (0, 1):
        raise DataError(f"{file}: annotation {entry['id']}: iscrowd: expected 0 or 1, got {value!r}")
    return bool(value)
