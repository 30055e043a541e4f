"""Reads and writes LabelMe's JSON: a file of shapes for each image, usually beside it."""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import os
import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detseg.atomic_write import write_text
from detseg.data.annotations.classes import NO_CLASSES, Classes, check_class_names
from detseg.data.annotations.collect import AnnotationCollector
from detseg.data.annotations.files import parse_json, read_list, read_text
from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.model import StatedObject, check_polygon
from detseg.data.annotations.outlines import (
    Box,
    Outline,
    RotatedError,
    Shape,
    ellipse_polygon,
    flags_of,
    is_unread,
    outline_bounds,
    outline_part,
    part_outline,
)
from detseg.data.annotations.report import DataReport
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.copies import Losses, copy_images
from detseg.data.images.find import (
    Files,
    data_folder,
    find_images,
    image_sizes,
    inner_path,
    is_absolute,
    locate_images,
    split_names,
    stated_size,
)
from detseg.errors import DataError, MissingSplitError, check_type
from detseg.messages import listed, shown
from detseg.structures import BoolArray

_LABELS = "labels.txt"
_NO_OBJECTS = ("point", "points", "line", "linestrip")
_OF_FILE = (
    "version",
    "flags",
    "shapes",
    "imagePath",
    "imageData",
    "imageHeight",
    "imageWidth",
    "lineColor",
    "fillColor",
)
_OF_SHAPE = ("label", "points", "shape_type", "group_id", "flags", "mask", "difficult", "line_color", "fill_color")
_VERSION = "5.5.0"  # of LabelMe, whose shapes these are


@dataclass(frozen=True)
class _File:
    """The content of a JSON file."""

    path: Path
    stated: str  # the path of the image, relative to the file
    image: str  # the same, relative to the root
    hw: tuple[int, int] | None
    shapes: Sequence[Any]
    embedded: bool


def read_labelme(
    root: Path | str,
    split: str = "train",
    classes: Classes = None,
    masks: bool = False,
    report: DataReport | None = None,
) -> DetectionDataset:
    """Read one split; image ids are 1 to I in the order of the paths of the JSON files.

    ``root`` is the folder of the data; ``labels.txt`` in it, if there, gives the order of the classes. ``split`` is a
    folder below it (``.``: all of it; several joined by ``+``; ``val`` is also found as ``valid`` or ``validation``),
    or a list of images in a text file, each with its JSON file beside it, or one of its name elsewhere below ``root``.
    The other arguments and errors are those of `detseg.read_yolo`.
    """
    root, report = data_folder(root), report or DataReport()
    check_type("split", split, str, "a folder or a list, such as 'train'")
    places = [_find_split(root, part) for part in ([split] if (root / split).exists() else split.split("+"))]
    paths = [path for place in places for path in _json_files(root, place, report)]
    files = [file for path in paths if (file := _read(root, path, report)) is not None]
    if not files:
        raise DataError(f"none of the LabelMe files of {root / split} can be read; the first: {report.first_wrong}")
    files = _without_embedded(root, _with_own_images(root, files, report), report)
    images = locate_images(root, [file.image for file in files], report)
    known = set(images)
    for place in (place for place in places if (root / place).is_dir()):
        for found in find_images(root / place):
            if (path := (Path(place) / found).as_posix()) not in known:
                report.add(DataIssue.UNLABELLED, path)
    sizes = image_sizes(root, images, report, [file.hw for file in files])
    names = _read_labels(root / _LABELS)
    collector, seen = AnnotationCollector(root / places[0], names), dict[str, Path]()
    for image, hw, file in zip(images, sizes, files, strict=True):
        if image is None or hw is None:
            continue
        if seen.setdefault(image, file.path) != file.path:
            what = f"imagePath: {image} is the image of {seen[image]}, too; correct one of them, or merge the two"
            report.wrong(DataIssue.WRONG_FILE, file.path.relative_to(root).as_posix(), f"{file.path}: {what}")
            continue
        if is_absolute(file.stated):
            report.add(DataIssue.OTHER_PLACE, f"{file.stated} is {image}")
        collector.add_image(image, hw, file.path)
        collector.add_shapes(file.shapes, partial(_shape, hw=hw), str(file.path), _LABELS, report)
    packed, table = collector.pack(classes, report, masks, strict=names is None)
    return DetectionDataset(packed, root, table, report, f"labelme {split}")


def _find_split(root: Path, split: str) -> str:
    for name in split_names(split):
        for place in (name, f"{name}.txt"):
            if inner_path(place) is not None and (root / place).exists():
                return place
    folders = sorted(item.name for item in root.iterdir() if item.is_dir())
    what = f"there is no split {shown(split)}; folders are {listed(folders) or 'none'}"
    raise MissingSplitError(f"{root}: {what}; set data.train_split and the like to one of these ('.' is all of them)")


def _json_files(root: Path, place: str, report: DataReport) -> list[Path]:
    """The JSON files of a folder, at any depth, or of the images of a list."""
    if (root / place).is_dir():
        there = [root / place / path for path in find_images(root / place, suffixes={".json", ".xml"})]
        files = [path for path in there if path.suffix.lower() == ".json"]
        if not there:  # images/train, and all JSON files in another folder
            by_stem = _by_stem(root)
            found = [by_stem.get(path.stem, []) for path in find_images(root / place)]
            files = [paths[0] for paths in found if len(paths) == 1]
        if there and not files:
            what = f"{len(there)} XML files, but no JSON of LabelMe; its old XML is not supported"
            raise DataError(f"{root / place}: {what}; export JSON, or set data.name=voc if this is Pascal VOC")
    else:
        files, elsewhere = [], dict[str, list[Path]]()
        for number, image in read_list(root / place, lambda line: True):
            if (path := inner_path(image)) is None:
                what = f"expected the path of an image below {root}, got {shown(image)}"
                raise DataError(f"{root / place}:{number}: {what}")
            own = [(root / path).with_suffix(".json")]
            if not own[0].is_file():
                elsewhere = elsewhere or _by_stem(root)
                own = elsewhere.get(own[0].stem, [])
            if len(own) == 1:
                files.append(own[0])
            else:
                report.add(DataIssue.UNLABELLED, path)
    if not files:
        raise DataError(f"{root / place}: there is no JSON file of LabelMe; is this the folder of the data?")
    return files


def _by_stem(root: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in find_images(root, suffixes={".json"}):
        found.setdefault(path.stem, []).append(root / path)
    return found


def _read(root: Path, path: Path, report: DataReport) -> _File | None:
    """A JSON file; None if it is wrong, and the report accepts that."""
    try:
        content = parse_json(path)
        file = _file_of(root, path, content)
    except DataError as error:
        report.wrong(DataIssue.WRONG_FILE, path.relative_to(root).as_posix(), str(error))
        return None
    report.unread("file", _unread(content, _OF_FILE))
    for shape in file.shapes:
        report.unread("shape", _unread(shape, _OF_SHAPE))
    return file


def _unread(entry: Any, known: Collection[str]) -> Iterator[str]:
    """The keys of an entry that say something, and are not read; of flags the names."""
    entry = entry if isinstance(entry, dict) else {}
    yield from (key for key, value in entry.items() if key not in known and value not in (None, "", [], {}, False))
    flags = entry.get("flags")
    yield from (
        (f"flag {key}" for key, value in flags.items() if value and is_unread(key)) if isinstance(flags, dict) else ()
    )


def _file_of(root: Path, path: Path, content: Any) -> _File:
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise DataError(f"{path}: expected LabelMe's 'shapes' and 'imagePath'; is this another kind of JSON?")
    name = content.get("imagePath")
    if not isinstance(name, str) or not name:
        raise DataError(f"{path}: imagePath: expected the path of the image, got {shown(name)}")
    hw = stated_size(str(path), content.get("imageHeight"), content.get("imageWidth"))
    folder = path.parent.relative_to(root).as_posix()
    image = _image_path(root, folder, name)
    if image is None:
        what = f"expected a path inside {root}, got {shown(name)}"
        raise DataError(f"{path}: imagePath: {what}; correct it, or set data.root to a folder that holds both")
    return _File(path, name, image, hw, content["shapes"], isinstance(content.get("imageData"), str))


def _image_path(root: Path, folder: str, name: str) -> str | None:
    """The path of an image relative to the root, from that relative to the folder of its JSON file; None outside."""
    if "\\" in name and not os.path.isfile(root / folder / name):
        name = name.replace("\\", "/")
    if is_absolute(name):  # of another machine: its base name may be found
        name = name.rpartition("/")[2]
    return inner_path(posixpath.join(folder, name))


def _with_own_images(root: Path, files: Sequence[_File], report: DataReport) -> list[_File]:
    """Files whose image is not there have another one, where the report accepts another spelling: of its name, in the
    folder that is most like theirs; or beside them, of their own name, since both were renamed."""
    lost = [file for file in files if not os.path.isfile(root / file.image)]
    if not lost:
        return list(files)
    images = Files(root / path for path in find_images(root))
    located = locate_images(root, [file.image for file in lost], DataReport(True))
    missing = {file.path for file, path in zip(lost, located, strict=True) if path is None}
    found = list[_File]()
    for file in files:
        own, how = list[Path](), ""
        if file.path in missing:
            own, how = images.named(posixpath.basename(file.image), file.path), "has its name"
            if not own:
                own, how = images.with_stem(file.path.stem, file.path), "has the name of this file"
                own = [image for image in own if image.parent == file.path.parent]
        if len(own) == 1:
            image = own[0].relative_to(root).as_posix()
            what = f"imagePath: there is no {shown(file.image)}, but {image} {how}"
            fix = "correct imagePath, or set data.file_names=relaxed to take that"
            report.wrong(DataIssue.OTHER_SPELLING, image, f"{file.path}: {what}; {fix}")
            found.append(replace(file, image=image))
        else:
            found.append(file)
    return found


def _without_embedded(root: Path, files: Sequence[_File], report: DataReport) -> list[_File]:
    """The files but those whose image is in the JSON alone, where the report accepts that."""
    inside = [file for file in files if file.embedded and not os.path.isfile(root / file.image)]
    found = locate_images(root, [file.image for file in inside], DataReport(True))
    lost = [file for file, path in zip(inside, found, strict=True) if path is None]
    for file in lost:
        what = f"{len(lost)} of {len(files)} images are in their JSON files alone (imageData), which is not read"
        fix = f"write each beside its JSON, this one as {shown(Path(file.image).name)} (labelme_export_json does)"
        report.wrong(DataIssue.EMBEDDED_IMAGE, file.path.name, f"{file.path}: {what}; {fix}")
    gone = {file.path for file in lost}
    return [file for file in files if file.path not in gone]


def _read_labels(path: Path) -> list[str] | None:
    if not path.is_file():
        return None
    lines = [line for line in read_text(path, "file of class names").split("\n") if line.strip()]
    names = [line for line in lines if line not in NO_CLASSES]
    check_class_names(str(path), names)
    return names


def _shape(entry: Any, hw: tuple[int, int]) -> Shape | None:
    name = entry.get("label") if isinstance(entry, dict) else None
    if isinstance(entry, dict) and (entry.get("shape_type") in _NO_OBJECTS or name in NO_CLASSES):
        return None
    if not isinstance(name, str) or not name:
        raise ValueError(f"label: expected the name of a class, got {shown(name)}")
    kind, points = entry.get("shape_type") or "polygon", entry.get("points")  # old files have polygons alone
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise ValueError(f"points: expected [[x, y], ...], got {shown(points)}")
    numbers = [value for point in points for value in point]
    if len(points) in (1, 2):
        check_polygon(numbers * 3)  # the same rules for numbers
    elif kind != "polygon" or numbers:
        check_polygon(numbers)
    flat = [float(value) for value in numbers]
    flags = entry.get("flags") if isinstance(entry.get("flags"), dict) else {}
    flags = {"difficult": entry.get("difficult")} | flags  # the former is X-AnyLabeling's
    box, outline = _geometry(kind, flat, entry, hw)
    group = entry.get("group_id")
    group = group if isinstance(group, int | str) else None
    return Shape(name, box, outline, group, flags_of(flags))


def _geometry(kind: Any, flat: list[float], entry: dict[str, Any], hw: tuple[int, int]) -> tuple[Box, Outline | None]:
    """Box and outline of a shape from its points x, y, x, y, ..."""
    num = len(flat) // 2
    match kind:
        case "rectangle" if num == 2 or (num == 4 and len(set(flat[::2])) <= 2 and len(set(flat[1::2])) <= 2):
            return outline_bounds([flat], hw), None
        case "rectangle" | "rotation" | "oriented_rectangle":
            what = f"a rectangle has 2 points; {num} points: a polygon?"
            raise RotatedError(f"rotated boxes are not supported, and {what}")
        case "polygon" if num >= 3:
            outline: Outline = [flat]
        case "circle" if num == 2:
            radius = math.hypot(flat[2] - flat[0], flat[3] - flat[1])
            outline = [ellipse_polygon(flat[:2], (radius, radius))]
            check_polygon(outline[0])
        case "mask" if num:
            outline = part_outline(_decoded(entry.get("mask"), hw), (round(flat[1]), round(flat[0])), hw)
        case _:
            raise ValueError(f"expected a rectangle, polygon, circle or mask, got {shown(kind)} of {num} points")
    return outline_bounds(outline, hw), outline


def _decoded(text: Any, hw: tuple[int, int]) -> BoolArray:
    """The pixels of a mask, a PNG in base64; a ValueError if it is not that, or larger than its image."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as image:
            if image.height <= hw[0] and image.width <= hw[1]:
                return np.asarray(image.convert("L"), dtype=np.bool_)
            what = f"{image.width} x {image.height} pixels do not fit into its image"
    except (TypeError, binascii.Error, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        what = "not a PNG in base64, or damaged"
    raise ValueError(f"mask: {what}")


def write_labelme(splits: Mapping[str, DetectionDataset], target: Path, link: bool = False) -> list[str]:
    """Write a folder of images and JSON files for each split, and ``labels.txt``; see `WRITERS`."""
    losses, classes = Losses("LabelMe"), next(iter(splits.values())).classes
    check_labelme_names(classes.names)
    for image in copy_images(splits, target, "{}", link, losses, lambda name: Path(name).with_suffix(".json")):
        shapes = []
        for number, stated in enumerate(image.objects, start=1):
            shapes += labelme_shapes(stated, classes.names[stated.label], number, image.hw, losses)
        write_labelme_file(image.path.with_suffix(".json"), image.path.name, image.hw, shapes)
    write_text(target / _LABELS, "".join(f"{name}\n" for name in classes.names))
    return losses.lines()


def check_labelme_names(names: Sequence[str]) -> None:
    """Raise a DataError for names of classes that LabelMe takes for none."""
    for name in set(NO_CLASSES) & set(names):
        raise DataError(f"the class name {shown(name)}: LabelMe's mark for what is no class; rename it by data.classes")


def write_labelme_file(path: Path, image: str, hw: tuple[int, int], shapes: list[dict[str, Any]]) -> None:
    """Write the file of an image with shapes; ``image`` is its path relative to the file, which LabelMe opens. A
    DataError if it cannot be written."""
    content: dict[str, Any] = {"version": _VERSION, "flags": {}, "shapes": shapes, "imagePath": image}
    content |= {"imageData": None, "imageHeight": hw[0], "imageWidth": hw[1]}
    write_text(path, json.dumps(content, indent=1))


def labelme_shapes(
    stated: StatedObject, name: str, number: int, hw: tuple[int, int], losses: Losses
) -> list[dict[str, Any]]:
    """The shapes of an object of class ``name`` in an image of height and width ``hw``: several of one group, its
    ``number`` in the image, if it has several polygons."""
    outline, bounds = losses.outline_of(stated, hw)
    shape = {"label": name, "group_id": None, "description": "", "flags": dict.fromkeys(stated.flags, True)}
    if outline is None:
        x1, y1, x2, y2 = bounds
        if x2 < x1 or y2 < y1:
            losses.add("order of the corners of {}, of which the second is the smaller: LabelMe has none")
        return [shape | {"shape_type": "rectangle", "points": [[x1, y1], [x2, y2]]}]
    if isinstance(outline, dict):
        part, (top, left) = outline_part(outline, hw)
        file = io.BytesIO()
        Image.fromarray(part.astype(np.uint8)).save(file, "PNG")
        corners = [[left, top], [left + part.shape[1] - 1, top + part.shape[0] - 1]]
        mask = base64.b64encode(file.getvalue()).decode()
        return [shape | {"shape_type": "mask", "points": corners, "mask": mask}]
    group = number if len(outline) > 1 else None
    return [
        shape | {"group_id": group, "shape_type": "polygon", "points": np.reshape(polygon, (-1, 2)).tolist()}
        for polygon in outline
    ]
