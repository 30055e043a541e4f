"""Reads YOLO text: for each image a file of lines, ``class x y width height`` for a box about its centre, or
``class x1 y1 x2 y2 x3 y3 ...`` for a polygon. Classes count from 0, coordinates are fractions of the image's sides.

``data.yaml`` names classes and splits (Roboflow, Label Studio and others), or darknet's ``obj.data`` and ``obj.names``.
"""

from __future__ import annotations

import math
import os
import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from detseg.data.annotations.classes import Classes, check_class_names, selection_of
from detseg.data.annotations.collect import AnnotationCollector
from detseg.data.annotations.files import read_list, read_text
from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.model import check_polygon
from detseg.data.annotations.outlines import Box, Polygons, RotatedError, outline_bounds
from detseg.data.annotations.report import DataReport, Example
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.yolo_writer import label_folder
from detseg.data.images.find import (
    data_folder,
    find_images,
    find_listed,
    image_sizes,
    inner_path,
    is_absolute,
    is_made,
    locate_images,
    split_names,
    split_words,
)
from detseg.errors import DataError, MissingSplitError, check_type
from detseg.messages import listed, one_line, shown

NAME_FILES = ("classes.txt", "obj.names", "classes.names")
LABEL_FOLDERS = ("labels", "Labels", "annotations", "Annotations")  # in the place of a folder "images"
_ROUNDING = 1e-4  # how far fractions may lie outside 0 to 1
_DIGITS = 9  # pixels are rounded to so many: whole ones come back whole
_ABSENT = ("", "~", "null", "Null", "NULL")
_LINE = "expected 'class x y width height', or 'class x1 y1 x2 y2 x3 y3 ...' with at least 3 corners"
_CORNERS_HINT = "write 'class x1 y1 ... x4 y4' in fractions of the image's sides, a polygon, or the upright box"


@dataclass(frozen=True)
class YoloFiles:
    """What ``data.yaml``, or the files in its place, say of a set in YOLO text."""

    file: Path  # for messages
    names: Mapping[int, str] | None = None
    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)  # folders, lists and images of each
    folder: str = ""  # that these are relative to: ``path`` of data.yaml
    task: str = ""  # as ultralytics calls it


@dataclass(frozen=True)
class _Line:
    number: int
    label: int
    values: tuple[float, ...]  # 4 of a box, 6 or more of a polygon


def read_yolo(
    root: Path | str,
    split: str = "train",
    classes: Classes = None,
    masks: bool = False,
    report: DataReport | None = None,
) -> DetectionDataset:
    """Read one split; image ids are 1 to I in the order of the paths, or of the lists.

    Args:
        root: the folder of the data.
        split: a key of ``data.yaml`` (``val`` is also found as ``valid`` or ``validation``), a folder (``.``: all of
            them; several joined by ``+``), or a list of images in a text file.
        classes: see `detseg.read_voc`; without any file of names, their order is that of the class numbers.
        masks: whether to read outlines, too.
        report: gets what is found; None: a new one, for which everything wrong is an error.

    Raises:
        DataError: a file is missing or wrong.
    """
    root, report = data_folder(root), report or DataReport()
    check_type("split", split, str, "a key of data.yaml, a folder or a list, such as 'train'")
    layout = read_yolo_files(root)
    names = layout.names or _given_names(root, classes)
    images = _split_images(root, layout, split, report)
    labels = _find_labels(root, images, report)
    sizes = image_sizes(root, images, report)
    lines = [None if file is None else _read_lines(root, file, layout.task == "obb", report) for file in labels]
    used = {line.label for found in lines for line in found or ()}
    if used and not layout.task and all(len(line.values) == 8 for found in lines for line in found or ()):
        first = next(file for file, found in zip(labels, lines, strict=True) if file and found)
        report.add(DataIssue.FOUR_CORNERS, first, sum(len(found or ()) for found in lines))
    from_1 = bool(used) and 0 not in used and max(used) == len(names)
    collector = AnnotationCollector(layout.file, list(names.values()), centred=True)
    for image, file, hw, found in zip(images, labels, sizes, lines, strict=True):
        if hw is None or (file is not None and found is None):
            continue
        if file is None:
            report.add(DataIssue.NO_LABEL_FILE, image)
        path = root / (file or image)
        collector.add_image(image, hw, path)
        for line in found or ():
            if line.label not in names:
                hint = "do ids count from 1? they count from 0" if from_1 else "correct the line, or the names"
                known = f"the {len(names)} classes are 0 to {max(names)}"
                what = f"there is no class {line.label}: {known}; {hint}"
                place = Example(str(line.label), detail=f"{file}:{line.number}: {what}")
                report.wrong(DataIssue.UNKNOWN_CLASS, place, f"{path}:{line.number}: {what}")
            else:
                box, outline = _in_pixels(line.values, hw)
                collector.add_object(names[line.label], box, segmentation=outline)
    packed, table = collector.pack(classes, report, masks, strict=False)
    return DetectionDataset(packed, root, table, report, f"yolo {split}")


def read_yolo_files(root: Path) -> YoloFiles:
    """What describes a set: ``data.yaml`` or the only YAML file with names of classes, darknet's ``obj.data``, or names
    in ``NAME_FILES``. A DataError if it cannot be read, or there are several with names."""
    found = [root / name for name in ("data.yaml", "data.yml") if (root / name).is_file()]
    found = found[:1] or sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    if len(found) > 1:
        found = [path for path in found if re.search("(?m)^names:", read_text(path))]
    if len(found) > 1:
        what = f"several files may describe the data: {listed([path.name for path in found])}"
        raise DataError(f"{root}: {what}; name the one to read data.yaml")
    if found:
        return _from_yaml(root, found[0])
    if data := sorted(root.glob("*.data")):
        return _from_darknet(root, data[0])
    if (file := _name_file(root)) is not None:
        return YoloFiles(file, _read_names(file))
    return YoloFiles(root)


def _name_file(root: Path) -> Path | None:
    """The file of the names of classes in the root; or that in its folders of labels or splits, where labelImg and
    Roboflow write it. A DataError if those of several folders differ."""
    places = [*root.glob("labels"), *root.glob("*/labels"), *root.glob("labels/*")]
    places += [path for path in root.glob("*") if split_words(path.name)]
    found = [root / name for name in NAME_FILES if (root / name).is_file()][:1]
    names = (NAME_FILES[0], "_darknet.labels")  # of labelImg, and of Roboflow
    found += [path for place in sorted(places) for name in names if (path := place / name).is_file()]
    for path in found[1:]:
        if path.read_bytes().strip() and path.read_bytes().split() != found[0].read_bytes().split():
            raise DataError(f"{path}: expected the classes of {found[0]}; write one list, {root / NAME_FILES[0]}")
    return found[0] if found else None


def _from_yaml(root: Path, path: Path) -> YoloFiles:
    try:
        # Scalars stay text, since a class may be called "no".
        content = yaml.load(read_text(path), Loader=yaml.BaseLoader)  # noqa: S506  # it makes text, lists, mappings alone
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a readable YAML file: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected keys such as names, train and val, got {shown(content)}")
    if "kpt_shape" in content:
        raise DataError(f"{path}: kpt_shape: keypoints are not supported; export boxes or polygons")
    names = _names_of(path, content["names"]) if content.get("names") else None
    count = content.get("nc")
    if names and count and str(len(names)) != str(count).strip():
        raise DataError(f"{path}: nc is {shown(count)}, but names has {len(names)} classes; correct one of them")
    splits = {}
    for key, value in content.items():
        entries = value if isinstance(value, list) else [value]
        entries = [entry for entry in entries if isinstance(entry, str) and entry not in _ABSENT]
        if isinstance(key, str) and entries and key not in ("names", "nc", "path", "task"):
            splits[key] = entries
    if names is None:
        there = _name_file(root)
        names = None if there is None else _read_names(there)
    folder = content.get("path")
    base = folder if isinstance(folder, str) and folder not in _ABSENT else ""
    return YoloFiles(path, names, splits, base, str(content.get("task", "")))


def _names_of(path: Path, names: Any) -> dict[int, str]:
    """A list or a mapping from class numbers, as text → names by number."""
    if isinstance(names, list):
        names = {str(number): name for number, name in enumerate(names)}
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise DataError(f"{path}: names: expected a list of names, or 0: name, 1: name, ..., got {shown(names)}")
    found = dict[int, str]()
    for key, name in names.items():
        if not (isinstance(key, str) and key.strip().isdecimal() and len(key) < 10):
            raise DataError(f"{path}: names: expected class numbers from 0, got {shown(key)}")
        found[int(key)] = name
    check_class_names(str(path), found.values())
    return dict(sorted(found.items()))


def _from_darknet(root: Path, path: Path) -> YoloFiles:
    pairs = [line.partition("=") for line in read_text(path).split("\n") if "=" in line and line.strip()[0] != "#"]
    content = {key.strip(): value.strip() for key, _, value in pairs}
    names = _existing(root, _tails(content.get("names", "")))
    splits = {key: [content[key]] for key in ("train", "val", "valid", "test") if content.get(key)}
    return YoloFiles(path, None if names is None else _read_names(root / names), splits)


def _read_names(path: Path) -> dict[int, str]:
    lines = [line.strip() for line in read_text(path, "file of class names").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if "" in lines:
        raise DataError(f"{path}:{lines.index('') + 1}: expected a class name, got an empty line; remove it")
    check_class_names(str(path), lines)
    return dict(enumerate(lines))


def _given_names(root: Path, classes: Classes) -> dict[int, str]:
    if classes is None:
        what = "names: [first class, second class, ...]"
        raise DataError(f"{root}: nothing names the classes; write data.yaml with '{what}', or set data.classes")
    return dict(enumerate(selection_of(classes).label_of))


def _tails(path: str) -> list[str]:
    """A path that may be one of another machine, without ``..`` at its beginning, and what is left of it when its first
    folders are cut off one by one; all of them are inside the root."""
    parts = [part for part in posixpath.normpath(path.replace("\\", "/")).split("/") if part not in ("", ".", "..")]
    return ["/".join(parts[first:]) for first in range(len(parts))]


def _existing(root: Path, candidates: Sequence[str]) -> str | None:
    return next((path for path in candidates if os.path.exists(root / path)), None)


def _split_images(root: Path, layout: YoloFiles, split: str, report: DataReport) -> list[str]:
    for name in split_names(split):
        if name in layout.splits:
            places = [_place(root, layout, name, entry, report) for entry in layout.splits[name]]
            break
    else:
        parts = [split] if (root / split).exists() else split.split("+")
        places = [_place_without_key(root, layout, part) for part in parts]
    images = [image for place in places for image in _images_at(root, place, report)]
    if not images:
        raise DataError(f"{layout.file}: split {shown(split)}: there are no images in {listed(places)}")
    unique = list(dict.fromkeys(images))
    if len(unique) < len(images):
        twice = [image for image, number in Counter(images).items() if number > 1]
        report.add(DataIssue.LISTED_TWICE, twice[0], len(images) - len(unique))
    return unique


def _place(root: Path, layout: YoloFiles, name: str, entry: str, report: DataReport) -> str:
    """Where a folder, list or image of a split lies below the root."""
    stated = entry if is_absolute(entry) or not layout.folder else f"{layout.folder}/{entry}"
    candidates = _tails(stated)
    if not is_absolute(entry) and candidates:
        whole = _tails(entry)[:1]  # nothing of a relative path is left out, but for the name of the root
        candidates = [path for path in candidates if path.endswith(tuple(whole))]
        candidates += _tails(entry)[1:] if layout.file.suffix == ".data" else []
    others = [
        "/".join(other if part in split_names(other) else part for part in path.split("/"))
        for path in candidates
        for other in split_names("val")
    ]
    place = _existing(root, candidates) or _existing(root, others)
    if place is None:
        what = f"{name}: there is no {shown(entry)} below {root}"
        raise DataError(f"{layout.file}: {what}; correct the entry, or data.root")
    if place not in _tails(stated)[:1]:
        report.add(DataIssue.OTHER_PLACE, f"{stated} is {place}")
    return place


def _place_without_key(root: Path, layout: YoloFiles, split: str) -> str:
    if split == ".":
        return "images" if (root / "images").is_dir() else "."
    inside = [name for name in split_names(split) if inner_path(name) is not None]
    candidates = [path for name in inside for path in (f"{name}/images", f"images/{name}", name, f"{name}.txt")]
    if (place := _existing(root, candidates)) is not None:
        return place
    keys = f"{layout.file.name} names {listed(list(layout.splits)) or 'none'}, " if layout.file != root else ""
    folders = sorted(item.name for item in root.iterdir() if item.is_dir())
    what = f"there is no split {shown(split)}: {keys}folders are {listed(folders) or 'none'}"
    raise MissingSplitError(f"{root}: {what}; set data.train_split and the like to one of these ('.' is all images)")


def _images_at(root: Path, place: str, report: DataReport) -> list[str]:
    if (root / place).is_dir():
        found = [(Path(place) / image).as_posix() for image in find_images(root / place)]
        made = [image for image in found if is_made(posixpath.dirname(image)) and not _has_own_labels(root, image)]
        if made and len(made) < len(found):
            where = listed(sorted({posixpath.dirname(image) for image in made}))
            report.note(f"images in folders of masks and the like, not taken: {len(made)} ({where})")
            found = sorted(set(found) - set(made), key=Path)
        return found
    if not place.endswith(".txt"):
        return [place]
    return [path for path in locate_images(root, _listed_names(root, place), report) if path is not None]


def _has_own_labels(root: Path, image: str) -> bool:
    """Whether the label file of an image lies beside it, or where its folder is called labels instead of images."""
    folder, stem = posixpath.dirname(image), _stem(image)
    places = [folder, *(label_folder(folder, name) for name in LABEL_FOLDERS)]
    return any((root / place / f"{stem}.txt").is_file() for place in places)


def _listed_names(root: Path, file: str) -> list[str]:
    """The paths of a list relative to the root: they may be those of another folder or machine, all cut alike."""
    folders = ["", posixpath.dirname(file)]
    cuts = dict[str, str]()  # what a path begins with, with its slash → what stands there instead
    names = []
    for number, line in read_list(root / file, lambda line: True):
        if not (tails := _tails(line)):
            raise DataError(f"{root / file}:{number}: expected the path of an image below {root}, got {shown(line)}")
        whole = tails[0]
        cut = next((start for start in cuts if whole.startswith(start)), None)
        if cut is None:
            pairs = [(folder, tail) for tail in tails for folder in folders]
            exists = [(f, tail) for f, tail in pairs if os.path.isfile(root / f / tail)]
            if exists:
                cut = whole[: len(whole) - len(exists[0][1])]
                cuts[cut] = exists[0][0]
        names.append(whole if cut is None else posixpath.join(cuts[cut], whole[len(cut) :]))
    return find_listed(root, names)


def _find_labels(root: Path, images: Sequence[str], report: DataReport) -> list[str | None]:
    """The label file of each image: where the last folder ``images`` of its path is ``labels``, or beside it."""
    stems_in: dict[str, set[str]] = {}
    for image in images:
        stems_in.setdefault(posixpath.dirname(image), set()).add(_stem(image))
    labels_in = {folder: _label_folder(root, folder, stems) for folder, stems in stems_in.items()}
    elsewhere = _labels_elsewhere(root, stems_in, labels_in, report)
    labels_in |= elsewhere
    found = list[str | None]()
    for image in images:
        folder, stems = labels_in[posixpath.dirname(image)]
        found.append(posixpath.join(folder, f"{_stem(image)}.txt") if _stem(image) in stems else None)
    if not any(found):
        where = posixpath.join(label_folder(posixpath.dirname(images[0])), f"{_stem(images[0])}.txt")
        raise DataError(
            f"{root}: none of {len(images)} images has a label file; expected {where}, or one beside the image "
            "(an empty one where there are no objects), with .txt in small letters"
        )
    for file, number in Counter(found).items():
        if number > 1 and file is not None:
            report.add(DataIssue.SHARED_LABELS, file, number)
    for folder, (place, stems) in labels_in.items():
        if folder in elsewhere:  # where labels of other splits may lie, too
            continue
        files = os.listdir(root / folder)
        there = {_stem(name) for name in files if place != folder or not name.endswith(".txt")}
        for stem in sorted(stems - there - {_stem(name) for name in NAME_FILES}):
            file = posixpath.normpath(posixpath.join(place, f"{stem}.txt"))
            if place != folder or _has_labels(root / file):  # texts of other kinds may lie beside images
                report.add(DataIssue.NO_IMAGE, file)
    return found


def _labels_elsewhere(
    root: Path, stems_in: Mapping[str, set[str]], known: Mapping[str, tuple[str, set[str]]], report: DataReport
) -> dict[str, tuple[str, set[str]]]:
    """For folders of images without labels in a usual place: the folder with the most label files of their names, which
    is not that of other images, and of no other split; the report gets a line."""
    texts: dict[str, set[str]] = {}
    if all(there for _, there in known.values()):
        return {}
    for path in find_images(root, suffixes={".txt"}):
        texts.setdefault(path.parent.as_posix(), set()).add(path.stem)
    taken, found = {place for place, there in known.values() if there}, dict[str, tuple[str, set[str]]]()
    for folder, stems in stems_in.items():
        if known[folder][1]:
            continue
        own = split_words(folder)
        fits = {
            place: len(stems & there)
            for place, there in texts.items()
            if place not in taken and stems & there and (not own or split_words(place) <= own)
        }
        words = {word for place in fits for word in split_words(place)}
        if not own and len(words) > 1:
            what = f"its images lie in one folder, {folder}, and label files in several, {listed(sorted(fits))}"
            raise DataError(f"{root}: {what}; put the images into folders of the same names, or write lists of splits")
        usual = {place: number for place, number in fits.items() if posixpath.basename(place).lower() == "labels"}
        fits = usual or fits
        best = [place for place, number in fits.items() if number == max(fits.values())]
        if len(best) == 1:
            found[folder] = best[0], texts[best[0]]
            report.note(f"the label files of {folder} are taken from {best[0]}")
    return found


def _has_labels(path: Path) -> bool:
    try:
        _parse(read_text(path, "label file").partition("\n")[0].split(), oriented=False)
    except (DataError, ValueError):
        return False
    return True


def _stem(path: str) -> str:
    return posixpath.splitext(posixpath.basename(path))[0]


def _label_folder(root: Path, folder: str, stems: set[str]) -> tuple[str, set[str]]:
    """The first folder that has a label file of an image, and the names of its files without suffix."""
    candidates = [*(label_folder(folder, name) for name in LABEL_FOLDERS), folder]
    candidates += [posixpath.join("labels", folder), posixpath.join(folder, "labels")]
    for place in dict.fromkeys(candidates):
        if (root / place).is_dir():
            there = {_stem(name) for name in os.listdir(root / place) if name.endswith(".txt") and name[0] != "."}
            if there & stems:
                return place, there
    return folder, set()


def _read_lines(root: Path, file: str, oriented: bool, report: DataReport) -> list[_Line] | None:
    """The lines of a label file; None if it cannot be read at all, and the report accepts that."""
    path = root / file
    try:
        text = read_text(path, "label file")
    except DataError as error:
        report.wrong(DataIssue.WRONG_FILE, file, str(error))
        return None
    lines = []
    for number, line in enumerate(text.split("\n"), start=1):
        if words := line.split():
            try:
                lines.append(_Line(number, *_parse(words, oriented)))
            except ValueError as error:
                issue = DataIssue.ROTATED if isinstance(error, RotatedError) else DataIssue.WRONG_OBJECT
                report.wrong(issue, f"{file}:{number}", f"{path}:{number}: {error}")
    return lines


def _parse(words: Sequence[str], oriented: bool) -> tuple[int, tuple[float, ...]]:
    """The class and the coordinates of a line; a ValueError says what is wrong with it."""
    numbers = [_number(word) for word in words]
    if len(words) >= 9 and None not in numbers[:8] and None in numbers[8:]:
        raise RotatedError(f"oriented boxes, 'x1 y1 ... x4 y4 class', are not supported; {_CORNERS_HINT}")
    for word, number in zip(words, numbers, strict=True):
        if number is None:
            hint = "; a class is its place among the names, from 0" if numbers[0] is None else ""
            raise ValueError(f"expected numbers, got {shown(word)}{hint}")
    label, *values = (number for number in numbers if number is not None)
    if label != int(label) or label < 0:
        raise ValueError(f"expected the number of a class from 0, got {shown(words[0])}")
    if len(words) == 6:
        hint = "take the sixth away; is it a score, a track id or the angle of a rotated box, which is not supported?"
        raise ValueError(f"{_LINE}, got 6 numbers; {hint}")
    if len(words) < 5 or len(words) % 2 == 0:
        raise ValueError(f"{_LINE}, got {len(words)} numbers")
    if oriented and len(words) == 9:
        what = "oriented boxes (task: obb) are not supported; without 'task: obb' they are read as polygons"
        raise RotatedError(what)
    low, high = min(values), max(values)
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        pixels = "are these pixels? divide x by the width and y by the height of the image"
        what = f"from 0 to 1, got {shown(high if high > 1 else low)}; {pixels if high > 2 else 'correct the line'}"
        raise ValueError(f"expected fractions of the image's sides, {what}")
    return int(label), tuple(values)


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _in_pixels(values: Sequence[float], hw: tuple[int, int]) -> tuple[Box, Polygons | None]:
    """The box of a line, xyxy, and its polygon, if it is one."""
    height, width = hw
    if len(values) == 4:
        x, y, w, h = values
        box = _rounded([(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height])
        return (box[0], box[1], box[2], box[3]), None
    polygon = _rounded([value * (height if place % 2 else width) for place, value in enumerate(values)])
    check_polygon(polygon)
    return outline_bounds([polygon], hw), [polygon]


def _rounded(values: Sequence[float]) -> list[float]:
    rounded: list[float] = (np.array(values).round(_DIGITS) + 0.0).tolist()  # -0.0 becomes 0.0
    return rounded
