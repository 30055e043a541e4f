"""Reads the COCO layout (Lin et al. 2014): a folder of images and one JSON file of annotations.

The file is decoded into arrays. Segmentations are not: of each only the place in the file is kept, see `Segmentations`.

Letters for dimensions: I images, T annotations.
"""

from __future__ import annotations

import codecs
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any

import msgspec
import numpy as np

from detseg.data.annotations.classes import check_class_name
from detseg.data.annotations.issues import DataIssue, DataReport, report_contents
from detseg.data.annotations.model import PackedAnnotations, pack_paths
from detseg.data.annotations.ragged import running_total
from detseg.data.annotations.regions import LARGEST, Segmentations, file_version
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.images.read import MAX_PIXELS, read_image_hw
from detseg.errors import ClassTableError, DataError
from detseg.messages import did_you_mean, listed, one_line, shown
from detseg.structures import BoolArray, ClassTable, FloatArray, IntArray

_MAX_INSPECTED = 200
"""Images of which masks are decoded when a data set is opened."""

_CHUNK = 1 << 14
"""Annotations whose boxes are decoded together: their Python numbers would take much memory otherwise."""

_EXPECTED = {
    **dict.fromkeys(("id", "image_id", "category_id"), "a whole number"),
    **dict.fromkeys(("height", "width"), "whole pixels"),
    "bbox": "[x, y, width, height] in pixels",
    "area": "a number",
    "iscrowd": "0 or 1",
    "file_name": "a path",
    "name": "a name",
}

_Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_NULL = msgspec.Raw(b"null")


class _Image(msgspec.Struct, gc=False):
    id: _Id
    file_name: str
    height: float | None = None
    width: float | None = None


class _Annotation(msgspec.Struct, gc=False):
    id: _Id
    image_id: _Id
    category_id: _Id
    bbox: msgspec.Raw = _NULL
    area: msgspec.Raw = _NULL
    iscrowd: int | float | bool = 0
    ignore: Any = 0
    segmentation: msgspec.Raw = _NULL


class _Category(msgspec.Struct):
    id: _Id
    name: str


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


_Entries = Sequence[_Image] | Sequence[_Annotation] | Sequence[_Category]
_FILE = msgspec.json.Decoder(_File)
_BOXES = msgspec.json.Decoder(list[tuple[float, float, float, float]])
_AREAS = msgspec.json.Decoder(list[float | None])


def read_coco(
    images_dir: Path | str,
    annotation_file: Path | str,
    classes: ClassTable | Sequence[str] | None = None,
    masks: bool = False,
) -> DetectionDataset:
    """Read a data set in COCO layout; images keep the order of the file, annotations that of their image.

    Args:
        images_dir: the folder that the file's ``file_name`` entries are relative to.
        annotation_file: the JSON file, of the kind ``instances_*.json``; with masks it must stay as it is while the
            data set is used.
        classes: None: all categories of the file, in the order of their ids. Names: these categories in this order;
            annotations of others are left out, with their counts in the report. A table (``train.classes``): likewise,
            and its ids are kept where this file has others for the same names.
        masks: whether to use the segmentations, too: polygons and run lengths of both kinds, crowds included. They are
            decoded when an image is used; a wrong one is an error then.

    Raises:
        DataError: a file is missing, an entry is wrong or refers to nothing, a class is not among the categories, or
            masks are asked for and there are none.
    """
    root, file, report = Path(images_dir), Path(annotation_file), DataReport()
    packed, table = load_coco(
        root, file, report, lambda names: coco_class_table(file, names, classes, report), masks=masks
    )
    report_contents(packed, table, report)
    if masks:
        _inspect_masks(packed, report)
    return DetectionDataset(packed, root, table, report, f"coco {file.stem}")


def load_coco(
    root: Path,
    file: Path,
    report: DataReport,
    choose: Callable[[dict[int, str]], ClassTable],
    boxes: bool = True,
    masks: bool = True,
) -> tuple[PackedAnnotations, ClassTable]:
    """Decode and check an annotation file; returns the annotations and the class table.

    Args:
        root: the folder of the images, which must be there.
        file: the annotation file.
        report: where to note what is odd about entries.
        choose: makes the class table of the category names by id; annotations of other categories are left out.
        boxes: whether boxes and areas are needed; they are zeros otherwise.
        masks: whether segmentations are needed.

    Raises:
        DataError: see `read_coco`.
    """
    version, data, entries = _read(file)
    names = _category_names(file, entries.categories)
    table = choose(names)
    image_ids = _ids(file, "image", entries.images)
    paths, sizes = _paths_and_sizes(root, file, entries.images, report)
    objects, num = entries.annotations, len(entries.annotations)
    ids = _ids(file, "annotation", objects)
    positions = _find(file, ids, "image", image_ids, [o.image_id for o in objects])
    categories = _find(file, ids, "category", np.array(list(names), dtype=np.int64), [o.category_id for o in objects])
    crowd = _crowd(file, ids, objects)
    xywh, area = np.zeros((num, 4)), np.zeros(num)
    if boxes:
        xywh = _numbers(file, ids, "bbox", [o.bbox for o in objects], _BOXES).reshape(-1, 4)
        area = _numbers(file, ids, "area", [o.area for o in objects], _AREAS)
    ignored = np.fromiter((o.ignore == 1 for o in objects), np.bool_, num) & ~crowd
    regions = _segmentations(file, version, data, ids, objects) if masks else None
    del data, entries, objects  # most of the memory
    labels = _labels(categories, tuple(names.values()), table, report)
    report.add_all(DataIssue.IGNORE_KEY, ids[(labels >= 0) & ignored].tolist())
    report.add_all(DataIssue.AREA_NOT_STATED, ids[(labels >= 0) & np.isnan(area)].tolist())
    order = np.argsort(positions, kind="stable")
    order = order[labels[order] >= 0]
    path_bytes, path_offsets = pack_paths(paths)
    packed = PackedAnnotations(
        image_ids=image_ids,
        sizes_hw=sizes,
        path_bytes=path_bytes,
        path_offsets=path_offsets,
        offsets=running_total(np.bincount(positions[order], minlength=len(paths))),
        boxes=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)[order],
        labels=labels[order],
        crowd=crowd[order],
        difficult=np.zeros(len(order), dtype=np.bool_),
        truncated=np.zeros(len(order), dtype=np.bool_),
        area=(area if masks else np.where(np.isnan(area), xywh[:, 2] * xywh[:, 3], area))[order],
        regions=regions and regions.select(order),
    )
    return packed, table


def coco_class_table(
    file: Path, names: dict[int, str], classes: ClassTable | Sequence[str] | None, report: DataReport
) -> ClassTable:
    """The table of the categories that are used.

    Args:
        file: for messages.
        names: the file's category names by id.
        classes: as `read_coco` takes them.
        report: told where the file has other ids than a given table.

    Raises:
        ClassTableError: a given name is not among the categories, or given twice.
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


def _read(file: Path) -> tuple[tuple[int, int], bytes, _File]:
    """The version of the file, its bytes, and its entries."""
    try:
        with file.open("rb") as source:
            version, data = file_version(source), source.read()
        text = memoryview(data)[len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0 :]
        try:
            entries = _FILE.decode(text)
        except msgspec.ValidationError as error:
            raise _wrong_entry(file, text, str(error)) from None
    except FileNotFoundError:
        raise DataError(f"{file}: there is no such annotation file; correct data.root or the annotation path") from None
    except OSError as error:
        raise DataError(f"{file}: cannot read the annotation file: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        place = re.search(r"\(byte (\d+)\)", str(error))
        near = bytes(text[max(int(place[1]) - 40, 0) :][:60]) if place else b""
        hint = "; save it as UTF-8" if b"\0" in data[:4] else ""
        hint = "; JSON has no NaN and no Infinity, write a number" if re.search(rb"NaN|Infinity", near) else hint
        near_it = f", near {shown(near.decode(errors='replace'))}" if place else ""
        raise DataError(f"{file}: not a readable JSON file: {one_line(error)}{near_it}{hint}") from None
    if not entries.images:
        raise DataError(f"{file}: it lists no images")
    return version, data, entries


def _wrong_entry(file: Path, text: memoryview, error: str) -> DataError:
    """What msgspec says of an entry of another type, with the id of the entry and the value."""
    lists: dict[str, msgspec.Raw] = _value(text, dict[str, msgspec.Raw]) or {}
    if _value(lists.get("categories", _NULL)) == []:
        return _no_categories(file)
    kind, place, key = "", "", None
    if found := re.search(r"\$\.(images|annotations|categories)\[(\d+)\](?:\.(\w+))?", error):
        kind, place, key = found.groups()
    missing = re.search(r"required field `(\w+)`", error)
    entries = _value(lists.get(kind, _NULL), list[msgspec.Raw])
    entry = _value(entries[int(place)], dict[str, msgspec.Raw]) if entries else None
    if entry is None:
        wrong = [k for k in _File.__struct_fields__ if _value(lists.get(k, _NULL), list[Any]) is None]
        kind = kind or (wrong or ["images"])[0]
        return DataError(f"{file}: expected a list of objects under '{kind}'; is this a COCO instances file?")
    key, one = missing[1] if missing else key, "category" if kind == "categories" else kind[:-1]
    entry_id = None if key == "id" else _value(entry.get("id", _NULL), int)
    where = f"{one} number {place}" if entry_id is None else f"{one} {entry_id}"
    return _wrong_value(file, where, str(key), _value(entry.get(key, _NULL)) if key else None)


def _value(text: msgspec.Raw | memoryview, kind: Any = Any) -> Any:
    """A JSON value of some kind; None for another kind, and the text itself where there is no Python value."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError):  # the latter: a number of thousands of digits
        return None if kind is not Any else bytes(text).decode(errors="replace")


def _wrong_value(file: Path, where: str, key: str, value: object) -> DataError:
    return DataError(f"{file}: {where}: {key}: expected {_EXPECTED[key]}, got {shown(value)}")


def _no_categories(file: Path) -> DataError:
    return DataError(f"{file}: it has no categories; is it an image_info file instead of an instances file?")


def _category_names(file: Path, entries: Sequence[_Category]) -> dict[int, str]:
    """Names by id, in the order of the ids."""
    if not entries:
        raise _no_categories(file)
    _ids(file, "category", entries)
    for entry in entries:
        if not entry.name:
            raise _wrong_value(file, f"category {entry.id}", "name", entry.name)
        check_class_name(f"{file}: category {entry.id}", entry.name)
    twice = sorted(name for name, count in Counter(entry.name for entry in entries).items() if count > 1)
    if twice:
        raise DataError(f"{file}: several categories have the same name: {listed(twice)}; rename or merge them")
    return {entry.id: entry.name for entry in sorted(entries, key=lambda entry: entry.id)}


def _ids(file: Path, kind: str, entries: _Entries) -> IntArray:
    """The ids of some entries, which must differ; ``kind`` is what messages call them."""
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


def _labels(categories: IntArray, names: Sequence[str], table: ClassTable, report: DataReport) -> IntArray:
    """(T,) int64 labels of the annotations, -1 where the table has no such class, which is reported."""
    label_of_name = {name: label for label, name in enumerate(table.names)}
    labels = np.array([label_of_name.get(name, -1) for name in names], dtype=np.int64)[categories]
    excluded, first, counts = np.unique(categories[labels < 0], return_index=True, return_counts=True)
    for place in np.argsort(first).tolist():  # in the order of the file
        report.add(DataIssue.LEFT_OUT, names[excluded[place]], int(counts[place]))
    return labels


def _paths_and_sizes(
    root: Path, file: Path, images: Sequence[_Image], report: DataReport
) -> tuple[list[str], IntArray]:
    """The paths of the I images, which must be there, and their (I, 2) int64 heights and widths in pixels."""
    paths, sizes = [_path(file, image) for image in images], _stated_sizes(file, images)
    listings: dict[str, set[str]] = {}  # one listing for each folder instead of one question for each image
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
    for path, count in Counter(paths).items():
        if count > 1:
            report.add(DataIssue.SHARED_IMAGE, path, count - 1)
    for row in np.flatnonzero(sizes.min(axis=1) == 0).tolist():
        report.add(DataIssue.SIZE_NOT_STATED, paths[row])
        sizes[row] = read_image_hw(root / paths[row])
    return paths, sizes


def _path(file: Path, image: _Image) -> str:
    """An image's ``file_name``, which must lie inside the image folder, with forward slashes."""
    name = image.file_name
    if not name:
        raise _wrong_value(file, f"image {image.id}", "file_name", name)
    if ".." not in name and "\\" not in name and ":" not in name and name[0] != "/":
        return posixpath.normpath(name)  # nearly all; what follows takes ten times as long
    if name.startswith(("/", "\\")) or PureWindowsPath(name).drive or ".." in PureWindowsPath(name).parts:
        raise DataError(
            f"{file}: image {image.id}: file_name: expected a path inside the image folder, got {shown(name)}; "
            "write it relative to that folder"
        )
    return posixpath.normpath(name)


def _stated_sizes(file: Path, images: Sequence[_Image]) -> IntArray:
    """(I, 2) int64 height and width in pixels, 0 where they are not stated."""
    sizes = np.array([(image.height or 0, image.width or 0) for image in images], dtype=np.float64)
    for row, column in np.argwhere((sizes < 0) | (sizes != np.floor(sizes)) | (sizes >= LARGEST))[:1].tolist():
        key = ("height", "width")[column]
        raise _wrong_value(file, f"image {images[row].id}", key, getattr(images[row], key))
    for row in np.flatnonzero(sizes.clip(1).prod(axis=1) > MAX_PIXELS)[:1].tolist():
        height, width = sizes[row].astype(np.int64).tolist()
        raise DataError(
            f"{file}: image {images[row].id}: width, height: {width} x {height} pixels are more than the {MAX_PIXELS} "
            "that are read; correct them, or cut the image into tiles"
        )
    return sizes.astype(np.int64)


def _crowd(file: Path, ids: IntArray, entries: Sequence[_Annotation]) -> BoolArray:
    flags = [entry.iscrowd for entry in entries]
    for row in [row for row, flag in enumerate(flags) if flag not in (0, 1)][:1]:
        raise _wrong_value(file, f"annotation {ids[row]}", "iscrowd", flags[row])
    return np.array(flags, dtype=np.bool_)


def _numbers(file: Path, ids: IntArray, key: str, texts: list[msgspec.Raw], decoder: Any) -> FloatArray:
    """The numbers that the annotations have under a key; NaN for null."""
    found = [np.zeros(0)]
    for first in range(0, len(texts), _CHUNK):
        chunk = texts[first : first + _CHUNK]
        try:
            numbers = np.array(decoder.decode(b"[%b]" % b",".join(chunk)), dtype=np.float64)
            wrong = np.flatnonzero((np.abs(numbers.reshape(len(chunk), -1)) >= LARGEST).any(axis=1)).tolist()
        except msgspec.ValidationError as error:
            wrong = re.findall(r"\$\[(\d+)\]", str(error))
        if wrong:
            row = int(wrong[0])
            raise _wrong_value(file, f"annotation {ids[first + row]}", key, _value(chunk[row]))
        found.append(numbers.ravel())
    return np.concatenate(found) + 0.0  # -0.0 becomes 0.0


def _segmentations(
    file: Path, version: tuple[int, int], data: bytes, ids: IntArray, entries: Sequence[_Annotation]
) -> Segmentations:
    """Where the segmentations lie in the file; msgspec's raw values are views of its bytes."""

    def address(buffer: bytes | msgspec.Raw) -> int:
        return int(np.frombuffer(buffer, np.uint8).__array_interface__["data"][0])

    texts = [entry.segmentation for entry in entries]
    starts = np.fromiter(map(address, texts), np.int64, len(texts)) - address(data)
    lengths = np.fromiter((0 if text is _NULL else len(text) for text in texts), np.int64, len(texts))
    starts[lengths == 0] = 0
    assert ((starts >= 0) & (starts + lengths <= len(data))).all()
    return Segmentations(file, version, ids, starts, lengths)


def _inspect_masks(packed: PackedAnnotations, report: DataReport) -> None:
    """Decode the masks of some images, so that a file without masks is noticed before training."""
    indices = np.unique(np.linspace(0, len(packed) - 1, _MAX_INSPECTED).astype(np.int64)).tolist()
    wrong: list[DataError] = []
    usable = 0
    for index in indices:
        try:
            masks = packed.image(index).masks
        except DataError as error:
            wrong.append(error)
            continue
        areas = np.zeros(0) if masks is None else masks.areas
        usable += len(areas)
        if (areas == 0).any():
            report.add(DataIssue.NO_PIXEL, packed.path(index), int((areas == 0).sum()))
    if wrong and not usable:
        raise DataError(
            f"{wrong[0]}; none of the {len(wrong)} images with objects that were looked at can be used; "
            "model.name=faster_rcnn needs no masks"
        )
    if len(indices) < len(packed):
        report.note(f"images whose masks were decoded when opened: {len(indices)} of {len(packed)}, evenly spread")
    if wrong:
        report.note(f"images with a wrong segmentation: {len(wrong)} of {len(indices)}; the first: {wrong[0]}")
