"""Reads the COCO layout (Lin et al. 2014): a folder of I images and one JSON file of T annotations.

The file is decoded into arrays. Segmentations are not: of each only the place in the file is kept, see `Segmentations`.
"""

from __future__ import annotations

import codecs
import os
import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from detseg.data.annotations.classes import Classes, check_class_name, choose_labels, split_background
from detseg.data.annotations.issues import DataIssue, DataReport, report_contents
from detseg.data.annotations.model import (
    LARGEST,
    PackedAnnotations,
    Segmentations,
    file_version,
    pack_images,
    running_total,
)
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import MAX_INSPECTED, SegmentationDataset, draw_objects, inspect_masks
from detseg.data.images.read import MAX_PIXELS, read_image_hw
from detseg.errors import DataError, path_of
from detseg.messages import listed, one_line, shown
from detseg.structures import ClassTable, FloatArray, IntArray

_SHORTEST = len("[[0,0,1,0,1,1]]")  # bytes of the shortest polygon; run lengths are longer
_CHUNK = 1 << 14  # annotations whose boxes are decoded together: their Python numbers would take much memory otherwise
_BETWEEN = 1 << 10  # most bytes between two segmentations, in nearly all files: searching a longer text is slower
_EXPECTED = {
    **dict.fromkeys(("id", "image_id", "category_id"), "a whole number"),
    **dict.fromkeys(("height", "width"), "whole pixels"),
    "bbox": "[x, y, width, height] in pixels",
    "area": "a number",
    "iscrowd": "0 or 1",
    "file_name": "a path",
    "name": "a name",
}

# A path that begins at a root or a drive, or has the part ``..``; Windows' paths are caught on all systems.
_OUTSIDE = re.compile(r"[/\\]|[A-Za-z]:|(.*[/\\])?\.\.([/\\]|\Z)", re.DOTALL)
_EMPTY = {
    "images": "it lists no images",
    "categories": "it has no categories; is it an image_info file instead of an instances file?",
}

_Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Side = Annotated[float, msgspec.Meta(ge=0, lt=LARGEST, multiple_of=1)] | None
_Flag = Annotated[float, msgspec.Meta(ge=0, le=1, multiple_of=1)] | bool
_Name = Annotated[str, msgspec.Meta(min_length=1)]
_NULL = msgspec.Raw(b"null")


class _Image(msgspec.Struct, gc=False):
    id: _Id
    file_name: _Name
    height: _Side = None
    width: _Side = None


class _Annotation(msgspec.Struct, gc=False):
    id: _Id
    image_id: _Id
    category_id: _Id
    bbox: msgspec.Raw = _NULL
    area: msgspec.Raw = _NULL
    iscrowd: _Flag = 0
    segmentation: msgspec.Raw = _NULL


class _Category(msgspec.Struct):
    id: _Id
    name: _Name


class _File(msgspec.Struct):
    images: Annotated[list[_Image], msgspec.Meta(min_length=1)]
    annotations: list[_Annotation]
    categories: Annotated[list[_Category], msgspec.Meta(min_length=1)]


_FILE = msgspec.json.Decoder(_File)
_BOXES = msgspec.json.Decoder(list[tuple[float, float, float, float]])
_AREAS = msgspec.json.Decoder(list[float | None])


def read_coco(
    images_dir: Path | str,
    annotation_file: Path | str,
    classes: Classes = None,
    masks: bool = False,
    skip_bad: bool = False,
    report: DataReport | None = None,
) -> DetectionDataset:
    """Read a data set in COCO layout; images keep the order of the file, annotations that of their image.

    Args:
        images_dir: the folder that the file's ``file_name`` entries are relative to.
        annotation_file: the JSON file, ``instances_*.json``; with masks it must stay as it is while it is used.
        classes: None: all categories, in the order of their ids. Names, or a table (``train.classes``), whose ids are
            kept: these categories in this order; annotations of others are left out and reported.
        masks: whether to use the segmentations, too: polygons and run lengths of both kinds. Those of up to
            `MAX_INSPECTED` images are decoded now, the others when their image is used; a wrong one is an error then.
        skip_bad: whether wrong ones are reported instead of raised now, since the training skips them.
        report: gets what is found; None: a new one, for which everything wrong is an error.

    Raises:
        DataError: a file or image is missing, an entry is wrong or refers to nothing, a class is not among the
            categories, or masks are asked for and there are none.
    """
    root, file = path_of("images_dir", images_dir), path_of("annotation_file", annotation_file)
    report = report or DataReport()
    packed, table = _load(root, file, classes, report, masks=masks)
    report_contents(packed, table, report)
    if masks:
        _inspect_instances(packed, report, skip_bad)
    return DetectionDataset(packed, root, table, report, f"coco {file.stem}")


def read_coco_masks(
    images_dir: Path | str,
    annotation_file: Path | str,
    classes: Classes = None,
    skip_bad: bool = False,
    report: DataReport | None = None,
) -> SegmentationDataset:
    """Read a data set in COCO layout as semantic maps; arguments and errors as in `read_coco`. The first class is the
    background, which is no category: of given names the first, else ``background``. So are, and are reported, regions
    of categories that are not among the classes."""
    root, file = path_of("images_dir", images_dir), path_of("annotation_file", annotation_file)
    report = report or DataReport()
    background, wanted = split_background(classes)
    packed, table = _load(root, file, wanted, report, boxes=False)
    objects = DetectionDataset(packed, root, table, report, f"coco {file.stem}")
    dataset = draw_objects(objects, file, background, classes)
    inspect_masks(dataset, skip_bad=skip_bad)
    return dataset


def _load(
    root: Path,
    file: Path,
    classes: Classes,
    report: DataReport,
    boxes: bool = True,  # False: boxes and areas are zeros
    masks: bool = True,
) -> tuple[PackedAnnotations, ClassTable]:
    version, data, entries = _read(file)
    names = _category_names(file, entries.categories)
    image_ids = _ids(file, "image", entries.images)
    paths = _paths(root, file, entries.images)
    sizes = _sizes(root, file, entries.images, paths, report)
    objects, num = entries.annotations, len(entries.annotations)
    ids = _ids(file, "annotation", objects)
    positions = _find(file, ids, "image", image_ids, [o.image_id for o in objects])
    categories = _find(file, ids, "category", np.array(list(names), dtype=np.int64), [o.category_id for o in objects])
    crowd = np.array([o.iscrowd for o in objects], dtype=np.bool_)
    xywh, area = np.zeros((num, 4)), np.zeros(num)
    if boxes:
        xywh = _numbers(file, ids, "bbox", [o.bbox for o in objects], _BOXES).reshape(-1, 4)
        area = _numbers(file, ids, "area", [o.area for o in objects], _AREAS)
    regions = _segmentations(file, version, data, ids, objects) if masks else None
    del data, entries, objects  # most of the memory
    source, counts = ClassTable(tuple(names.values()), tuple(names)), np.bincount(categories, minlength=len(names))
    table, label_of = choose_labels(source, counts, classes, str(file), report, declared=True, strict=False)
    labels = label_of[categories]
    for annotation_id in ids[(labels >= 0) & np.isnan(area)].tolist():
        report.add(DataIssue.AREA_NOT_STATED, str(annotation_id))
    order = np.argsort(positions, kind="stable")
    order = order[labels[order] >= 0]
    packed = PackedAnnotations(
        **vars(pack_images(paths, image_ids)),
        sizes_hw=sizes,
        offsets=running_total(np.bincount(positions[order], minlength=len(paths))),
        boxes=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)[order],
        labels=labels[order],
        crowd=crowd[order],
        difficult=np.zeros(len(order), dtype=np.bool_),
        truncated=np.zeros(len(order), dtype=np.bool_),
        area=(area if masks else np.where(np.isnan(area), xywh[:, 2] * xywh[:, 3], area))[order],
        regions=regions and regions.select(order),
    )
    if packed.regions is not None and len(short := np.flatnonzero(packed.regions.lengths < _SHORTEST)):  # null, [[]]
        wrong = listed([str(i) for i in packed.regions.annotation_ids[short].tolist()])
        hint = "; model.name=faster_rcnn needs no masks" if boxes else ""
        what = f"{len(short)} of {len(order)} annotations have no usable segmentation (ids {wrong})"
        raise DataError(f"{file}: {what}; fix or remove them{hint}")
    return packed, table


def _read(file: Path) -> tuple[tuple[int, int], bytes, _File]:
    try:
        with file.open("rb") as source:
            version, data = file_version(source), source.read()
        text = memoryview(data)[len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0 :]
        try:
            return version, data, _FILE.decode(text)
        except msgspec.ValidationError as error:
            raise _wrong_entry(file, text, str(error)) from None
    except FileNotFoundError:
        raise DataError(f"{file}: there is no such annotation file; correct data.root or the annotation path") from None
    except OSError as error:
        raise DataError(f"{file}: cannot read the annotation file: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        hint = "; save it as UTF-8" if b"\0" in data[:4] else ""
        if place := re.search(r"\(byte (\d+)\)", str(error)):
            near = bytes(text[max(int(place[1]) - 40, 0) :][:60]).decode(errors="replace")
            number = "; JSON has no NaN and no Infinity, write a number"
            hint = f", near {shown(near)}{number if re.search('NaN|Infinity', near) else hint}"
        raise DataError(f"{file}: not a readable JSON file: {one_line(error)}{hint}") from None


def _wrong_entry(file: Path, text: memoryview, error: str) -> DataError:
    # msgspec says that a value has another type, and where: `$.images[3].width`.
    lists: dict[str, msgspec.Raw] = _value(text, dict[str, msgspec.Raw]) or {}
    missing = re.search(r"required field `(\w+)`", error)
    kind, row, key = re.findall(r"\$(?:\.(\w+)(?:\[(\d+)\](?:\.(\w+))?)?)?", f"{error} $")[0]
    key = missing[1] if missing else key
    if "length >= 1" in error and not row:
        return DataError(f"{file}: {_EMPTY[kind]}")
    if _value(lists.get("categories", _NULL)) == []:  # what other entries lack comes from that
        return DataError(f"{file}: {_EMPTY['categories']}")
    entries = _value(lists.get(kind, _NULL), list[msgspec.Raw]) or []
    entry = _value(entries[int(row)], dict[str, msgspec.Raw]) if row and int(row) < len(entries) else None
    if not key or entry is None:
        what = f"a list of objects under '{kind or key or 'images'}'" + (f", but entry {row} is none" if row else "")
        return DataError(f"{file}: expected {what}; is this a COCO instances file?")
    one = "category" if kind == "categories" else kind[:-1]
    entry_id = None if key == "id" else _value(entry.get("id", _NULL), int)
    where = f"{one} number {row}" if entry_id is None else f"{one} {entry_id}"
    return _wrong_value(file, where, key, _value(entry.get(key, _NULL)))


def _value(text: msgspec.Raw | memoryview, kind: Any = Any) -> Any:
    """A JSON value of some kind; None for another kind, and the text itself where there is no Python value."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError):  # the latter: a number of thousands of digits
        return None if kind is not Any else bytes(text).decode(errors="replace")


def _wrong_value(file: Path, where: str, key: str, value: object) -> DataError:
    return DataError(f"{file}: {where}: {key}: expected {_EXPECTED[key]}, got {shown(value)}")


def _category_names(file: Path, entries: Sequence[_Category]) -> dict[int, str]:
    _ids(file, "category", entries)
    for entry in entries:
        check_class_name(f"{file}: category {entry.id}", entry.name)
    if twice := sorted(name for name, count in Counter(entry.name for entry in entries).items() if count > 1):
        raise DataError(f"{file}: several categories have the same name: {listed(twice)}; rename or merge them")
    return {entry.id: entry.name for entry in sorted(entries, key=lambda entry: entry.id)}


def _ids(file: Path, kind: str, entries: Sequence[_Image | _Annotation | _Category]) -> IntArray:
    ids = np.fromiter((entry.id for entry in entries), np.int64, len(entries))
    ascending = np.sort(ids)
    for entry_id in ascending[1:][ascending[1:] == ascending[:-1]][:1].tolist():
        raise DataError(f"{file}: two entries have the {kind} id {entry_id}; ids must differ")
    return ids


def _find(file: Path, ids: IntArray, kind: str, known: IntArray, ids_wanted: list[int]) -> IntArray:
    """(T,) int64 where the image or category of each annotation is among the known ones."""
    order, wanted = np.argsort(known), np.array(ids_wanted, dtype=np.int64)
    places: IntArray = order[np.searchsorted(known, wanted, sorter=order).clip(max=len(known) - 1)]
    for row in np.flatnonzero(known[places] != wanted)[:1].tolist():
        raise DataError(f"{file}: annotation {ids[row]}: {kind}_id: there is no {kind} {wanted[row]}")
    return places


def _paths(root: Path, file: Path, images: Sequence[_Image]) -> list[str]:
    for image in images:
        if _OUTSIDE.match(image.file_name):
            what = f"expected a path inside the image folder, got {shown(image.file_name)}"
            raise DataError(f"{file}: image {image.id}: file_name: {what}; write it relative to that folder")
    paths = [posixpath.normpath(image.file_name) for image in images]
    # One listing for each folder is faster than one question for each image.
    folders = [folder for folder in {path.rpartition("/")[0] for path in paths} if os.path.isdir(root / folder)]
    there = {posixpath.join(folder, name) for folder in folders for name in os.listdir(root / folder)}
    if missing := [path for path in paths if path not in there]:
        what = f"{len(missing)} of {len(paths)} images missing: {listed(missing)}"
        raise DataError(f"{root}: {what}; is this the image folder of the annotation file?")
    return paths


def _sizes(root: Path, file: Path, images: Sequence[_Image], paths: Sequence[str], report: DataReport) -> IntArray:
    """(I, 2) int64 height and width in pixels; where they are not stated, those of the image."""
    sizes = np.array([(image.height or 0, image.width or 0) for image in images], dtype=np.float64)
    for row in np.flatnonzero(sizes.clip(1).prod(axis=1) > MAX_PIXELS)[:1].tolist():
        height, width = sizes[row].astype(np.int64).tolist()
        what = f"{width} x {height} pixels are more than the {MAX_PIXELS} that are read"
        raise DataError(f"{file}: image {images[row].id}: {what}; correct width and height, or cut it into tiles")
    for row in np.flatnonzero(sizes.min(axis=1) == 0).tolist():
        report.add(DataIssue.SIZE_NOT_STATED, paths[row])
        sizes[row] = read_image_hw(root / paths[row])
    return sizes.astype(np.int64)


def _numbers(file: Path, ids: IntArray, key: str, texts: list[msgspec.Raw], decoder: Any) -> FloatArray:
    """The numbers that the annotations have under a key; NaN for null."""
    found = [np.zeros(0)]
    for first in range(0, len(texts), _CHUNK):
        chunk = texts[first : first + _CHUNK]
        try:
            numbers = np.array(decoder.decode(b"[%b]" % b",".join(chunk)), dtype=np.float64)
            wrong = np.flatnonzero((np.abs(numbers.reshape(len(chunk), -1)) >= LARGEST).any(axis=1)).tolist()
        except msgspec.ValidationError as error:  # at $[row][column]
            wrong = re.findall(r"\$\[(\d+)\]", str(error))
        if wrong:
            row = int(wrong[0])
            raise _wrong_value(file, f"annotation {ids[first + row]}", key, _value(chunk[row]))
        found.append(numbers.ravel())
    return np.concatenate(found) + 0.0  # -0.0 becomes 0.0


def _segmentations(
    file: Path, version: tuple[int, int], data: bytes, ids: IntArray, entries: Sequence[_Annotation]
) -> Segmentations:
    starts, lengths = np.zeros((2, len(entries)), dtype=np.int64)
    end = 0
    for row, entry in enumerate(entries):  # each lies behind the one before, or an equal text in between
        if (text := entry.segmentation) is not _NULL:
            start = data.find(text, end, end + len(text) + _BETWEEN)
            start = data.index(text, end) if start < 0 else start
            starts[row], lengths[row], end = start, len(text), start + len(text)
    return Segmentations(file, version, ids, starts, lengths)


def _inspect_instances(packed: PackedAnnotations, report: DataReport, skip_bad: bool) -> None:
    indices = np.unique(np.linspace(0, len(packed) - 1, MAX_INSPECTED).astype(np.int64)).tolist()
    bad = list[DataError]()
    for index in indices:
        try:
            masks = packed.image(index).masks
        except DataError as error:
            bad.append(error)
            if not skip_bad or len(bad) == len(indices):
                raise
            continue
        assert masks is not None
        if num_empty := int((masks.areas == 0).sum()):
            report.add(DataIssue.NO_PIXEL, packed.path(index), num_empty)
    if bad:
        what = f"images with wrong masks, which the training will skip: {len(bad)} of {len(indices)}"
        report.note(f"{what}; the first: {one_line(bad[0])}")
    if len(indices) < len(packed):
        report.note(f"images whose masks were decoded when opened: {len(indices)} of {len(packed)}, evenly spread")
