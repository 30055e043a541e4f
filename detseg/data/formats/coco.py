"""Reads the COCO layout (Lin et al. 2014): folders of I images and JSON files, mostly one, of T annotations.

The file is decoded into arrays. Segmentations are not: of each only the place in the file is kept, see `Segmentations`.
"""

from __future__ import annotations

import codecs
import os
import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import msgspec
import numpy as np

from detseg.data.annotations.classes import Classes, check_class_name, choose_labels, placeholders, split_background
from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.model import (
    LARGEST,
    PackedAnnotations,
    Segmentations,
    check_region,
    file_version,
    pack_images,
    running_total,
)
from detseg.data.annotations.report import DataReport, Example, report_contents
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import MAX_INSPECTED, SegmentationDataset, draw_objects, inspect_masks
from detseg.data.images.find import check_num_pixels, image_sizes, inner_path, locate_images, report_heic
from detseg.data.images.read import MAX_PIXELS, why_unread
from detseg.errors import DataError, MissingSplitError, path_of
from detseg.messages import listed, one_line, shown
from detseg.structures import BoolArray, ClassTable, FloatArray, IntArray

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

_EMPTY = {
    "images": "it lists no images",
    "categories": "it has no categories; is it an image_info file instead of an instances file?",
}

_Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Side = Annotated[float, msgspec.Meta(ge=0, lt=LARGEST, multiple_of=1)] | None
_Flag = Annotated[float, msgspec.Meta(ge=0, le=1, multiple_of=1)] | bool
_Name = Annotated[str, msgspec.Meta(min_length=1)]
_NULL = msgspec.Raw(b"null")
_YES = (b"1", b"1.0", b"true")
_NO_VALUE = (b"null", b'""', b"[]", b"{}", b'"none"')


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
    ignore: msgspec.Raw = _NULL
    truncated: msgspec.Raw = _NULL
    segmentation: msgspec.Raw = _NULL


class _Category(msgspec.Struct):
    id: _Id
    name: _Name
    supercategory: Any = None


class _File(msgspec.Struct):
    images: Annotated[list[_Image], msgspec.Meta(min_length=1)]
    annotations: list[_Annotation]
    categories: Annotated[list[_Category], msgspec.Meta(min_length=1)]


_FILE = msgspec.json.Decoder(_File)
_BOXES = msgspec.json.Decoder(list[tuple[float, float, float, float]])
_AREAS = msgspec.json.Decoder(list[float | None])


Places = Path | str | Sequence[Path | str]
"""One path, or several."""


def read_coco(
    images_dir: Places | None,
    annotation_file: Places,
    classes: Classes = None,
    masks: bool = False,
    skip_bad: bool = False,
    report: DataReport | None = None,
) -> DetectionDataset:
    """Read a data set in COCO layout; images keep the order of the file, annotations that of their image.

    Args:
        images_dir: the folder that the file's ``file_name`` entries are relative to; of several files that of all, or
            one for each. None: no image is looked for, as where results of another program are scored; the file
            must state the images' sizes.
        annotation_file: the JSON file, ``instances_*.json``, or several, whose categories are matched by name; with
            masks it must stay as it is while it is used.
        classes: None: all categories, in the order of their ids. Names, or a table (``train.classes``), whose ids are
            kept: these categories in this order; annotations of others are left out and reported.
        masks: whether to use the segmentations, too: polygons and run lengths of both kinds. Those of up to
            `MAX_INSPECTED` images are decoded now, the others when their image is used; a wrong one is an error then.
        skip_bad: whether wrong ones are reported instead of raised now, since the training skips them.
        report: gets what is found; None: a new one, for which everything wrong is an error. A tolerant one keeps the
            segmentations, whatever ``masks`` says; those that cannot be used are left out of it.

    Raises:
        DataError: a file or image is missing, an entry is wrong or refers to nothing, a class is not among the
            categories, or masks are asked for and there are none.
    """
    report = report or DataReport()
    root, file, content = _read_all(images_dir, annotation_file, report, masks=masks or report.tolerant)
    packed, table = _pack(content, file, classes, report, masks=masks)
    report_contents(packed, table, report)
    if masks and not report.tolerant:
        _inspect_instances(packed, report, skip_bad)
    return DetectionDataset(packed, root, table, report, f"coco {file.stem}")


def read_coco_masks(
    images_dir: Places,
    annotation_file: Places,
    classes: Classes = None,
    skip_bad: bool = False,
    report: DataReport | None = None,
) -> SegmentationDataset:
    """Read a data set in COCO layout as semantic maps; arguments and errors as in `read_coco`. The first class is the
    background, which is no category: of given names the first, else ``background``. So are, and are reported, regions
    of categories that are not among the classes."""
    report = report or DataReport()
    background, wanted = split_background(classes)
    root, file, content = _read_all(images_dir, annotation_file, report, boxes=False)
    packed, table = _pack(content, file, wanted, report, boxes=False)
    if packed.regions is None:
        raise DataError(f"{file}: no annotation has a usable segmentation; a box is no mask")
    objects = DetectionDataset(packed, root, table, report, f"coco {file.stem}")
    dataset = draw_objects(objects, file, background, classes)
    inspect_masks(dataset, skip_bad=skip_bad)
    return dataset


@dataclass(frozen=True, eq=False)
class _Content:
    """What files say: I images with T annotations of C categories."""

    names: dict[int, str]  # of the categories by their ids, which ascend; C
    image_ids: IntArray  # (I,)
    paths: list[str]  # of the images, relative to the root; I
    sizes: IntArray  # (I, 2) int64 height and width
    ids: IntArray  # (T,)
    images: IntArray  # (T,) position of the image
    categories: IntArray  # (T,) position of the category in the names
    flags: BoolArray  # (T, 3) crowd, ignored, truncated
    xywh: FloatArray  # (T, 4)
    area: FloatArray  # (T,) NaN where it is not stated
    regions: Segmentations | None

    def with_objects(self, rows: IntArray) -> _Content:
        """The same images with some of the objects."""
        names = ("ids", "images", "categories", "flags", "xywh", "area")
        columns = {name: getattr(self, name)[rows] for name in names}
        return replace(self, **columns, regions=self.regions and self.regions.select(rows))


def _read_all(
    images_dir: Places | None, annotation_file: Places, report: DataReport, boxes: bool = True, masks: bool = True
) -> tuple[Path, Path, _Content]:
    """The root of the images, the annotation file, of several the first, and what they say."""
    files, look = _each("annotation_file", annotation_file), images_dir is not None
    roots = [file.parent for file in files] if images_dir is None else _each("images_dir", images_dir)
    if not files or len(roots) not in (1, len(files)):
        what = f"expected one folder of images, or one for each of {len(files)} annotation files, got {len(roots)}"
        raise DataError(f"{listed([str(root) for root in roots])}: {what}")
    roots = roots if len(roots) > 1 else roots * len(files)
    found = [_read_content(root, file, report, boxes, masks, look) for root, file in zip(roots, files, strict=True)]
    if len(files) == 1:
        return roots[0], files[0], found[0]
    root, content = _joined(roots, files, found, report)
    return root, files[0], content


def _each(what: str, given: Places) -> list[Path]:
    if isinstance(given, list | tuple):
        return [path_of(what, path) for path in given]
    return [path_of(what, cast("Path | str", given))]


def _pack(
    content: _Content,
    file: Path,
    classes: Classes,
    report: DataReport,
    boxes: bool = True,
    masks: bool = True,
) -> tuple[PackedAnnotations, ClassTable]:
    """The annotations, labelled by ``classes``. ``boxes`` False: boxes and areas are zeros."""
    names, area, xywh, ids = content.names, content.area, content.xywh, content.ids
    source = ClassTable(tuple(names.values()), tuple(names))
    counts = np.bincount(content.categories, minlength=len(names))
    table, label_of = choose_labels(source, counts, classes, str(file), report, declared=True, strict=False)
    labels = label_of[content.categories]
    for annotation_id in ids[(labels >= 0) & np.isnan(area)].tolist():
        report.add(DataIssue.AREA_NOT_STATED, f"annotation {annotation_id}")
    order = np.argsort(content.images, kind="stable")
    order = order[labels[order] >= 0]
    regions = content.regions and content.regions.select(order)
    if regions is not None and report.tolerant:
        regions = _usable_regions(regions, content.sizes[content.images[order]], report)
        regions = regions if regions.lengths.any() else None
    of_boxes, stated = xywh[:, 2] * xywh[:, 3], ~np.isnan(area)
    if regions is not None:  # else that of the mask
        stated[order[regions.lengths > 0]] = True
    packed = PackedAnnotations(
        **vars(pack_images(content.paths, content.image_ids)),
        sizes_hw=content.sizes,
        offsets=running_total(np.bincount(content.images[order], minlength=len(content.paths))),
        boxes=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)[order],
        labels=labels[order],
        crowd=content.flags[order, 0],
        difficult=content.flags[order, 1],
        truncated=content.flags[order, 2],
        area=np.where(stated, area, of_boxes)[order],
        regions=regions,
    )
    if regions is None or report.tolerant:
        return packed, table
    if len(short := np.flatnonzero(regions.lengths < _SHORTEST)):  # null, [[]]
        wrong = listed([str(i) for i in regions.annotation_ids[short].tolist()])
        hint = "; model.name=faster_rcnn needs no masks" if boxes else ""
        what = f"{len(short)} of {len(order)} annotations have no usable segmentation (ids {wrong})"
        raise DataError(f"{file}: {what}; fix or remove them{hint}")
    return packed, table


def _read_content(root: Path, file: Path, report: DataReport, boxes: bool, masks: bool, look: bool) -> _Content:
    version, data, entries = _read(file)
    if report.tolerant:
        _report_other_keys(data, report)
    names = _category_names(file, entries, report)
    images, image_ids = _with_own_ids(file, "image", entries.images, report)
    objects, ids = _with_own_ids(file, "annotation", entries.annotations, report)
    category_ids = np.array(list(names), dtype=np.int64)
    positions = _find(file, ids, "image", image_ids, [o.image_id for o in objects], report)
    categories = _find(file, ids, "category", category_ids, [o.category_id for o in objects], report)
    paths = _paths(root, file, images, report) if look else [image.file_name for image in images]
    sizes = _sizes(root, file, images, paths, report, look)
    there = np.flatnonzero(sizes.min(axis=1) > 0)
    if not len(there):
        reason = why_unread(Path(images[0].file_name))
        what = f"they {reason}" if reason else report.first_wrong.removeprefix(f"{root}: ")
        raise DataError(f"{root}: none of the {len(paths)} images of {file} can be used; {what}")
    if len(there) < len(paths):
        place = np.full(len(paths) + 1, -1, dtype=np.int64)  # the last one is that of objects without an image
        place[there] = np.arange(len(there))
        positions, image_ids, sizes = place[positions], image_ids[there], sizes[there]
    usable = (positions >= 0) & (categories >= 0)
    crowd = np.array([o.iscrowd for o in objects], dtype=np.bool_)
    # Most files have no such keys, and to ask each annotation takes a tenth of the time.
    ignored, cut = (
        np.array([text is not _NULL and bytes(text) in _YES for text in map(attrgetter(key), objects)], dtype=np.bool_)
        if b'"%b"' % key.encode() in data
        else np.zeros(len(ids), dtype=np.bool_)
        for key in ("ignore", "truncated")
    )
    xywh, area = np.zeros((len(ids), 4)), np.zeros(len(ids))
    if boxes:
        xywh, right = _numbers(file, ids, "bbox", [o.bbox for o in objects], report)
        area, known = _numbers(file, ids, "area", [o.area for o in objects], report)
        xywh, area, usable = xywh.reshape(-1, 4), area.ravel(), usable & right & known
    regions = _segmentations(file, version, data, ids, objects) if masks else None
    kept_paths = [path for row in there.tolist() if (path := paths[row]) is not None]
    flags = np.stack([crowd, ignored, cut], axis=1)
    content = _Content(names, image_ids, kept_paths, sizes, ids, positions, categories, flags, xywh, area, regions)
    return content if usable.all() else content.with_objects(np.flatnonzero(usable))


def _joined(
    roots: Sequence[Path], files: Sequence[Path], parts: Sequence[_Content], report: DataReport
) -> tuple[Path, _Content]:
    """The contents of several files, which are matched by names of categories and paths of images, and the folder that
    holds all images."""
    try:
        root = Path(os.path.commonpath(roots))
    except ValueError:  # some are absolute, some are not
        root = Path(os.path.commonpath([os.path.abspath(one) for one in roots]))
    places, ids, sizes = dict[str, int](), list[int](), list[IntArray]()
    categories = dict[str, int]()  # name → id
    images_of, categories_of = list[IntArray](), list[IntArray]()
    for folder, part in zip(roots, parts, strict=True):
        inside = Path(os.path.relpath(folder, root)).as_posix()
        own = [posixpath.normpath(posixpath.join(inside, path)) for path in part.paths]
        for row, path in enumerate(own):
            if path in places and len(images_of):
                report.add(DataIssue.LISTED_TWICE, path)
            elif path not in places:
                places[path] = len(ids)
                ids.append(int(part.image_ids[row]))
                sizes.append(part.sizes[row])
        images_of.append(np.array([places[path] for path in own], dtype=np.int64)[part.images])
        for number, name in part.names.items():
            categories.setdefault(name, number)
        order = {name: k for k, name in enumerate(categories)}
        categories_of.append(np.array([order[name] for name in part.names.values()], dtype=np.int64)[part.categories])
    if len(set(ids)) < len(ids):
        report.note(f"images of several files have the same ids: all {len(ids)} are numbered from 1")
        ids = list(range(1, len(ids) + 1))
    if len(set(categories.values())) < len(categories):
        report.note(f"categories of several files have the same ids: all {len(categories)} are numbered from 1")
        categories = {name: k for k, name in enumerate(categories, start=1)}
    ascending = sorted(categories, key=lambda name: categories[name])
    rank = np.array([ascending.index(name) for name in categories], dtype=np.int64)
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "flags", "xywh", "area")
    }
    return root, _Content(
        names={categories[name]: name for name in ascending},
        image_ids=np.array(ids, dtype=np.int64),
        paths=list(places),
        sizes=np.array(sizes).reshape(-1, 2),
        images=np.concatenate(images_of),
        categories=rank[np.concatenate(categories_of)],
        regions=_joined_regions(files[0], [part.regions for part in parts if part.regions is not None]),
        **columns,
    )


def _joined_regions(file: Path, parts: Sequence[Segmentations]) -> Segmentations | None:
    if not parts:
        return None
    texts = [text for part in parts for text in part.texts(range(len(part)))]
    return Segmentations.of_texts(file, np.concatenate([part.annotation_ids for part in parts]), texts)


def _usable_regions(regions: Segmentations, sizes_hw: IntArray, report: DataReport) -> Segmentations:
    """The segmentations without those that cannot be used; ``sizes_hw``, (T, 2), is that of each one's image."""
    lengths = regions.lengths.copy()
    for row, text in enumerate(regions.texts(range(len(regions)))):
        try:
            if segmentation := msgspec.json.decode(text or b"null"):
                height, width = sizes_hw[row].tolist()
                check_region(segmentation, (height, width))
            else:
                lengths[row] = 0
        except (ValueError, RecursionError) as error:
            lengths[row] = 0
            where = f"annotation {regions.annotation_ids[row]}"
            report.add(DataIssue.BAD_MASK, Example(where, detail=one_line(error)))
    return replace(regions, lengths=lengths)


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
        what = "there is no such annotation file; correct data.root or the annotation path"
        raise MissingSplitError(f"{file}: {what}") from None
    except OSError as error:
        raise DataError(f"{file}: cannot read the annotation file: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        hint = "; save it as UTF-8" if b"\0" in data[:4] else ""
        if place := re.search(r"\(byte (\d+)\)", str(error)):
            near = bytes(text[max(int(place[1]) - 40, 0) :][:60]).decode(errors="replace")
            number = "; JSON has no NaN and no Infinity, write a number"
            near_there = f", near {shown(near)}{number if re.search('NaN|Infinity', near) else ''}"
            hint = hint or near_there
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


def _report_other_keys(data: bytes, report: DataReport) -> None:
    """What the entries of each list have, and the file beside them, that is not read."""
    lists = _value(memoryview(data.removeprefix(codecs.BOM_UTF8)), dict[str, msgspec.Raw]) or {}
    for key in sorted(set(lists) - set(_File.__struct_fields__)):
        if bytes(lists[key]) not in _NO_VALUE:
            report.add(DataIssue.OTHER_KEYS, key)
    for kind, known in (("images", _Image), ("annotations", _Annotation), ("categories", _Category)):
        read, numbers = set(known.__struct_fields__) - {"supercategory"}, Counter[str]()
        for entry in _value(lists[kind], list[msgspec.Raw]) or ():
            values = _value(entry, dict[str, msgspec.Raw]) or {}
            numbers.update(key for key in values.keys() - read if bytes(values[key]) not in _NO_VALUE)
        for key in sorted(numbers):
            report.add(DataIssue.OTHER_KEYS, f"{kind}: {key}", numbers[key])


def _value(text: msgspec.Raw | memoryview, kind: Any = Any) -> Any:
    """A JSON value of some kind; None for another kind, and the text itself where there is no Python value."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError):  # the latter: a number of thousands of digits
        return None if kind is not Any else bytes(text).decode(errors="replace")


def _wrong_value(file: Path, where: str, key: str, value: object) -> DataError:
    return DataError(f"{file}: {where}: {key}: expected {_EXPECTED[key]}, got {shown(value)}")


def _category_names(file: Path, content: _File, report: DataReport) -> dict[int, str]:
    entries, _ = _with_own_ids(file, "category", content.categories, report)
    for entry in entries:
        check_class_name(f"{file}: category {entry.id}", entry.name)
    if twice := {name for name, count in Counter(entry.name for entry in entries).items() if count > 1}:
        # Roboflow lists a category 0 without objects, which may have the name of a class.
        used = {o.category_id for o in content.annotations}
        same = [entry for entry in entries if entry.name in twice]
        if unused := [str(entry.id) for entry in same if entry.id not in used]:
            report.note(f"categories without objects that have the name of another, left out: ids {listed(unused)}")
        entries = [entry for entry in entries if entry.name not in twice or entry.id in used]
        if len({entry.name for entry in entries}) < len(entries) or not twice <= {entry.name for entry in entries}:
            what = f"several categories have the same name: {listed(sorted(twice))}"
            raise DataError(f"{file}: {what}; rename or merge them")
    parents = [(entry.id, entry.name, entry.supercategory) for entry in entries]
    if placeholders(parents, ()) and (no := placeholders(parents, {o.category_id for o in content.annotations})):
        names = [entry.name for entry in entries if entry.id in no]
        report.note(f"categories that stand for no object, and have none, left out: {listed(names)}")
        entries = [entry for entry in entries if entry.id not in no]
    return {entry.id: entry.name for entry in sorted(entries, key=lambda entry: entry.id)}


_Entry = TypeVar("_Entry", _Image, _Annotation, _Category)


def _with_own_ids(file: Path, kind: str, entries: list[_Entry], report: DataReport) -> tuple[list[_Entry], IntArray]:
    """The entries without those that have the id of an earlier one, and their ids."""
    ids = np.fromiter((entry.id for entry in entries), np.int64, len(entries))
    ascending = np.sort(ids)
    twice = ascending[1:][ascending[1:] == ascending[:-1]].tolist()
    if not twice:
        return entries, ids
    message = f"{file}: two entries have the {kind} id {twice[0]}; ids must differ"
    report.wrong(DataIssue.DUPLICATE_ID, f"{kind} {twice[0]}", message, len(twice))
    firsts = np.sort(np.unique(ids, return_index=True)[1])
    return [entries[row] for row in firsts.tolist()], ids[firsts]


def _find(file: Path, ids: IntArray, kind: str, known: IntArray, ids_wanted: list[int], report: DataReport) -> IntArray:
    """(T,) int64 where the image or category of each annotation is among the known ones; -1: nowhere."""
    order, wanted = np.argsort(known), np.array(ids_wanted, dtype=np.int64)
    places: IntArray = order[np.searchsorted(known, wanted, sorter=order).clip(max=len(known) - 1)]
    if len(unknown := np.flatnonzero(known[places] != wanted)):
        row = unknown[0]
        message = f"{file}: annotation {ids[row]}: {kind}_id: there is no {kind} {wanted[row]}"
        issue = {"image": DataIssue.UNKNOWN_IMAGE, "category": DataIssue.UNKNOWN_CATEGORY}[kind]
        for number, count in zip(*np.unique(wanted[unknown], return_counts=True), strict=True):
            report.wrong(issue, f"{kind} {number}", message, int(count))
        places[unknown] = -1
    return places


def _paths(root: Path, file: Path, images: Sequence[_Image], report: DataReport) -> list[str | None]:
    names = [image.file_name for image in images]
    outside = [row for row, name in enumerate(names) if inner_path(name.replace("\\", "/")) is None]
    bases = [names[row].replace("\\", "/").rpartition("/")[2].rpartition(":")[2] or names[row] for row in outside]
    found = locate_images(root, bases, DataReport(True)) if outside else []
    for row, base, path in zip(outside, bases, found, strict=True):
        what = f"expected a path inside the image folder, got {shown(names[row])}; write it relative to that folder"
        message = f"{file}: image {images[row].id}: file_name: {what}, or set data.file_names=relaxed"
        report.wrong(DataIssue.OTHER_SPELLING, f"{shown(names[row])} is {path or base}", message)
        names[row] = path or base
    located = locate_images(root, names, report)
    heic = report_heic(root, [path for path in located if path is not None], report)
    return [None if path in heic else path for path in located]


def _sizes(
    root: Path, file: Path, images: Sequence[_Image], paths: Sequence[str | None], report: DataReport, look: bool
) -> IntArray:
    """(I, 2) int64 height and width in pixels; where they are not stated, those of the image, if there is a ``look`` at
    it; 0 where that is missing or cannot be read."""
    sizes = np.array([(image.height or 0, image.width or 0) for image in images], dtype=np.float64)
    for row in np.flatnonzero(sizes.clip(1).prod(axis=1) > MAX_PIXELS)[:1].tolist():
        check_num_pixels(f"{file}: image {images[row].id}", *sizes[row].astype(np.int64).tolist())
    sizes[[row for row, path in enumerate(paths) if path is None]] = 0
    rows = np.flatnonzero(sizes.min(axis=1) == 0).tolist()
    if rows and not look:
        what = f"expected {_EXPECTED['height']}, since the images are not looked at"
        raise DataError(f"{file}: image {images[rows[0]].id}: height and width: {what}; state them")
    own = image_sizes(root, [paths[row] for row in rows], report, [None] * len(rows))
    sizes[rows] = np.array([hw or (0, 0) for hw in own]).reshape(-1, 2)
    return sizes.astype(np.int64)


def _numbers(
    file: Path, ids: IntArray, key: str, texts: list[msgspec.Raw], report: DataReport
) -> tuple[FloatArray, BoolArray]:
    """The numbers that the annotations have under a key, (T, 4) or (T, 1), NaN for null; and (T,) whether they are
    right."""
    decoder, width = (_BOXES, 4) if key == "bbox" else (_AREAS, 1)
    found, right = [np.zeros((0, width))], np.ones(len(texts), dtype=np.bool_)
    for first in range(0, len(texts), _CHUNK):
        chunk = texts[first : first + _CHUNK]
        numbers = _decoded(chunk, decoder, width)
        if numbers is None:
            each = [_decoded([text], decoder, width) for text in chunk]
            wrong = [row for row, one in enumerate(each) if one is None]
            where, value = f"annotation {ids[first + wrong[0]]}", _value(chunk[wrong[0]])
            report.wrong(DataIssue.WRONG_OBJECT, where, str(_wrong_value(file, where, key, value)), len(wrong))
            numbers = np.concatenate([np.full((1, width), np.nan) if one is None else one for one in each])
            right[[first + row for row in wrong]] = False
        found.append(numbers)
    return np.concatenate(found) + 0.0, right  # -0.0 becomes 0.0


def _decoded(texts: Sequence[msgspec.Raw], decoder: Any, width: int) -> FloatArray | None:
    try:
        numbers = np.array(decoder.decode(b"[%b]" % b",".join(texts)), dtype=np.float64).reshape(len(texts), width)
    except msgspec.ValidationError:
        return None
    return None if (np.abs(numbers) >= LARGEST).any() else numbers


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
