"""What a COCO annotation file (Lin et al. 2014) says of images and categories, checked; for boxes and for masks.

Letters for dimensions: I images.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from detseg.data.annotations.classes import check_class_name
from detseg.data.annotations.issues import DataIssue, DataReport
from detseg.data.annotations.regions import PackedRegions, RegionsBuilder, are_numbers
from detseg.data.formats.file_digest import FileDigest
from detseg.data.images.read import MAX_PIXELS, read_image_hw
from detseg.errors import ClassTableError, DataError
from detseg.messages import did_you_mean, listed, shown
from detseg.structures import ClassTable, IntArray

Entry = dict[str, Any]


def load_coco(file: Path, digest: FileDigest) -> dict[str, list[Entry]]:
    """The lists ``images``, ``annotations`` and ``categories`` of a file.

    Args:
        file: the annotation file.
        digest: is given its bytes.

    Raises:
        DataError: the file is missing, unreadable, without one of the lists, without images, or an object in it has a
            key twice.
    """
    try:
        text = file.read_bytes()
        digest.update(text)
        content = json.loads(text, object_pairs_hook=_object)
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


def _object(pairs: list[tuple[str, Any]]) -> Entry:
    """A JSON object, of which Python would keep the last of two equal keys and lose the other."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object has the key {shown(twice)} twice; remove or rename one")
    return found


def coco_categories(file: Path, entries: list[Entry]) -> dict[int, str]:
    """Category names by id, in the order of the ids.

    Raises:
        DataError: there are none, or one has no id or name of its own.
    """
    if not entries:
        raise DataError(f"{file}: it has no categories; is it an image_info file instead of an instances file?")
    names = entries_by_id(file, "category", entries)
    for category_id, entry in names.items():
        if not isinstance(entry.get("name"), str) or not entry["name"]:
            raise DataError(f"{file}: category {category_id}: expected a name, got {shown(entry.get('name'))}")
        check_class_name(f"{file}: category {category_id}", entry["name"])
    found = {category_id: str(names[category_id]["name"]) for category_id in sorted(names)}
    twice = sorted({name for name in found.values() if list(found.values()).count(name) > 1})
    if twice:
        raise DataError(f"{file}: several categories have the same name: {listed(twice)}; rename or merge them")
    return found


def entries_by_id(file: Path, kind: str, entries: list[Entry]) -> dict[int, Entry]:
    """Entries by id, in the order of the file; ``kind`` is what messages call them.

    Raises:
        DataError: an id is missing, wrong, or there twice.
    """
    found: dict[int, Entry] = {}
    for number, entry in enumerate(entries):
        entry_id = entry.get("id")
        if type(entry_id) is not int or abs(entry_id) >= 2**63:
            raise DataError(f"{file}: {kind} number {number}: id: expected a whole number, got {shown(entry_id)}")
        if entry_id in found:
            raise DataError(f"{file}: two entries have the {kind} id {entry_id}; ids must differ")
        found[entry_id] = entry
    return found


def coco_class_table(
    file: Path, names: dict[int, str], classes: ClassTable | Sequence[str] | None, report: DataReport
) -> ClassTable:
    """The table of the categories that are wanted.

    Args:
        file: for messages.
        names: the file's category names by id.
        classes: as ``read_coco`` takes them.
        report: where it is noted that the file has other ids than a given table.

    Raises:
        ClassTableError: a wanted name is not among the categories, or wanted twice.
    """
    if classes is None:
        return ClassTable(tuple(names.values()), tuple(names))
    id_of = {name: category_id for category_id, name in names.items()}
    wanted = classes.names if isinstance(classes, ClassTable) else tuple(classes)
    for name in wanted:
        if name not in id_of:
            raise ClassTableError(
                f"{file}: the class {shown(name)} is not among its categories{did_you_mean(name, list(id_of))}; "
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
            report.add(DataIssue.OTHER_ID, name)
    return classes


def coco_images(file: Path, entries: list[Entry], report: DataReport) -> tuple[dict[int, int], list[str]]:
    """The position of each image id, and the paths in order of position.

    Raises:
        DataError: an id or a path is wrong.
    """
    by_id = entries_by_id(file, "image", entries)
    paths = [image_path(file, image_id, entry.get("file_name")) for image_id, entry in by_id.items()]
    report_shared_images(paths, report)
    return {image_id: position for position, image_id in enumerate(by_id)}, paths


def report_shared_images(paths: list[str], report: DataReport) -> None:
    """Note paths that are there more than once."""
    if len(set(paths)) == len(paths):
        return
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            report.add(DataIssue.SHARED_IMAGE, path)
        seen.add(path)


def image_path(file: Path, image_id: int, name: object) -> str:
    """An image's ``file_name`` relative to the folder of images, with forward slashes.

    Raises:
        DataError: it is no text, or leads out of that folder.
    """
    if not isinstance(name, str) or not name:
        raise DataError(f"{file}: image {image_id}: file_name: expected a path, got {shown(name)}")
    if ".." not in name and "\\" not in name and ":" not in name and name[0] != "/":
        return posixpath.normpath(name)  # as nearly all are: what lies below takes ten times as long
    if name.startswith(("/", "\\")) or PureWindowsPath(name).drive or ".." in PureWindowsPath(name).parts:
        raise DataError(
            f"{file}: image {image_id}: file_name: expected a path inside the image folder, got {shown(name)}; "
            "write it relative to that folder"
        )
    return posixpath.normpath(name)


def check_images_present(root: Path, paths: list[str]) -> None:
    """Refuse images that are not there.

    Raises:
        DataError: some are missing.
    """
    listings: dict[str, set[str]] = {}  # one listing a folder instead of one question an image
    missing = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder not in listings:
            listings[folder] = set(os.listdir(root / folder)) if (root / folder).is_dir() else set()
        if name not in listings[folder]:
            missing.append(path)
    if missing:
        raise DataError(
            f"{root}: {len(missing)} of {len(paths)} images missing: {listed(missing)}; "
            "is this the image folder of the annotation file?"
        )


def coco_sizes(file: Path, entries: list[Entry], root: Path, paths: list[str], report: DataReport) -> IntArray:
    """(I, 2) int64 height and width of the images in pixels; those that are not stated are read from the images.

    Raises:
        DataError: a size is wrong, or an image without one unreadable.
    """
    sizes = np.zeros((len(entries), 2), dtype=np.int64)
    for row, (entry, path) in enumerate(zip(entries, paths, strict=True)):
        for column, key in enumerate(("height", "width")):
            value = 0 if (stated := entry.get(key)) is None else stated
            if not are_numbers([value]) or value < 0 or value != int(value):
                raise DataError(f"{file}: image {entry['id']}: {key}: expected whole pixels, got {shown(value)}")
            sizes[row, column] = int(value)
        height, width = sizes[row].tolist()  # Python's integers, whose product does not overflow
        if max(height, 1) * max(width, 1) > MAX_PIXELS:  # one of them may not be stated
            raise DataError(
                f"{file}: image {entry['id']}: width, height: {width} x {height} pixels are more than the {MAX_PIXELS} "
                "that are read; correct them, or cut the image into tiles"
            )
        if not sizes[row].all():
            report.add(DataIssue.SIZE_NOT_STATED, path)
            sizes[row] = read_image_hw(root / path)
    return sizes


def coco_references(file: Path, entry: Entry, image_ids: dict[int, int], categories: dict[int, str]) -> tuple[int, int]:
    """The position of the image that an annotation belongs to, and the id of its category.

    Raises:
        DataError: there is no such image or category.
    """
    image_id, category_id = entry.get("image_id"), entry.get("category_id")
    if type(image_id) is not int or image_id not in image_ids:
        raise DataError(f"{file}: annotation {entry['id']}: image_id: there is no image {shown(image_id)}")
    if type(category_id) is not int or category_id not in categories:
        raise DataError(f"{file}: annotation {entry['id']}: category_id: there is no category {shown(category_id)}")
    return image_ids[image_id], category_id


def coco_regions(file: Path, entries: Sequence[Entry], sizes: IntArray, mend: str) -> PackedRegions:
    """The segmentations of T annotations, packed in their order.

    Args:
        file: for messages.
        entries: the annotations.
        sizes: (T, 2) int64, height and width in pixels of the image of each.
        mend: what the message advises where segmentations cannot be mended.

    Raises:
        DataError: annotations have no segmentation, or one that cannot be filled; it counts them all.
    """
    regions = RegionsBuilder()
    unusable: list[int] = []
    reason = ""  # of the first
    for entry, (height, width) in zip(entries, sizes.tolist(), strict=True):
        try:
            regions.append(entry.get("segmentation"), (height, width))
        except ValueError as error:
            reason = reason or str(error)
            unusable.append(entry["id"])
    if unusable:
        raise DataError(
            f"{file}: {len(unusable)} of {len(entries)} annotations have no usable segmentation "
            f"({', '.join(map(str, unusable[:3]))}{', ...' if len(unusable) > 3 else ''}); annotation {unusable[0]}: "
            f"segmentation: {reason}; mend the file or {mend}"
        )
    return regions.build()


def is_crowd(file: Path, entry: Entry) -> bool:
    """Whether an annotation is a region of many objects.

    Raises:
        DataError: its flag is neither 0 nor 1.
    """
    value = entry.get("iscrowd", 0)
    if value not in (0, 1):
        raise DataError(f"{file}: annotation {entry['id']}: iscrowd: expected 0 or 1, got {shown(value)}")
    return bool(value)
