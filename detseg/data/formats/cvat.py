"""Reads and writes CVAT's XML for images, 1.1: one file of shapes for all images of a task or project.

The format: docs.cvat.ai, "XML annotation format". Coordinates are pixels; masks are run lengths, row by row within
their own box, the first of them outside the mask.
"""

from __future__ import annotations

import os
import posixpath
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from detseg.atomic_write import write_errors
from detseg.data.annotations.classes import Classes, check_class_names
from detseg.data.annotations.collect import AnnotationCollector
from detseg.data.annotations.files import parse_number, parse_xml
from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.model import FLAGS, StatedObject, check_polygon
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
from detseg.data.formats.voc_writer import check_xml_text
from detseg.data.images.find import (
    data_folder,
    image_sizes,
    inner_path,
    locate_images,
    split_names,
    stated_size,
)
from detseg.data.images.tree import own_xml_files
from detseg.errors import DataError, MissingSplitError, check_type
from detseg.messages import listed, shown
from detseg.structures import BoolArray

_FILE = "annotations.xml"
_NO_OBJECTS = ("polyline", "points", "cuboid", "skeleton", "tag")
_SHAPES = ("box", "polygon", "mask", "ellipse")
_YES = ("true", "1", "yes")


@dataclass(frozen=True)
class _Image:
    """An image of the file."""

    element: ET.Element
    where: str  # file and image, for messages
    path: str  # relative to the root
    hw: tuple[int, int] | None


def read_cvat(
    root: Path | str,
    split: str = "train",
    classes: Classes = None,
    masks: bool = False,
    report: DataReport | None = None,
) -> DetectionDataset:
    """Read one split; image ids are 1 to I in the order of the file.

    ``split`` is a subset that the file names (``Validation`` and ``val`` mean the same), or an XML file below ``root``,
    with or without its suffix; ``.``: all of the files in ``root``, else in its folders. The other arguments and errors
    are those of `detseg.read_yolo`.
    """
    root, report = data_folder(root), report or DataReport()
    check_type("split", split, str, "a subset or an XML file, such as 'train'")
    files, subset = _find_files(root, split)
    contents = {file: parse_xml(file) for file in files}
    images = list[_Image]()
    for file, content in contents.items():
        images += _images(root, file, _image_elements(file, content, subset), report)
    paths = locate_images(root, [image.path for image in images], report)
    sizes = image_sizes(root, paths, report, [image.hw for image in images])
    names = _label_names(contents)
    collector, seen = AnnotationCollector(files[0] if len(files) == 1 else root, names), set[str]()
    for path, hw, image in zip(paths, sizes, images, strict=True):
        if path is None or hw is None:
            continue
        if path in seen:
            what = f"there is an earlier element of {path}; merge the two, or remove one"
            report.wrong(DataIssue.WRONG_FILE, path, f"{image.where}: {what}")
            continue
        seen.add(path)
        collector.add_image(path, hw)
        report.unread("shape", _unread(image.element))
        collector.add_shapes(image.element, partial(_shape, hw=hw), image.where, "<labels>", report)
    packed, table = collector.pack(classes, report, masks, strict=names is None)
    return DetectionDataset(packed, root, table, report, f"cvat {split}")


def _find_files(root: Path, split: str) -> tuple[list[Path], str | None]:
    """The files of a split, and the subset in it; None: all images."""
    for name in split_names(split) if inner_path(split) not in (None, ".") else ():
        for path in (root / name, root / f"{name}.xml", root / name / _FILE):
            if path.suffix.lower() == ".xml" and path.is_file():
                return [path], None
    in_folders = (own_xml_files(path) for path in sorted(root.iterdir()) if path.is_dir())  # of tasks
    if split == "." and (all_files := own_xml_files(root) or [path for paths in in_folders for path in paths]):
        return [path for path in all_files if _is_cvat(path)] or all_files, None
    found = [root / _FILE] if (root / _FILE).is_file() else own_xml_files(root)
    if len(found) != 1:
        what = f"expected {_FILE} or one XML file, got {listed([path.name for path in found]) or 'none'}"
        raise MissingSplitError(f"{root}: {what}; set data.root to its folder, or the splits to the names of files")
    return found, split


def _is_cvat(path: Path) -> bool:
    with path.open("rb") as file:
        return b"<annotations>" in file.read(4096)


def _image_elements(file: Path, content: ET.Element, subset: str | None) -> list[ET.Element]:
    if content.tag != "annotations":
        what = f"expected <annotations> as the outermost element, got {shown(content.tag)}"
        raise DataError(f"{file}: {what}; export 'CVAT for images 1.1'")
    if content.find("track") is not None:
        raise DataError(f"{file}: this is 'CVAT for video', which is not supported; export 'CVAT for images 1.1'")
    images = content.findall("image")
    if subset is None:
        wanted = images
    else:
        names = [name.casefold() for name in split_names(subset)]
        wanted = [image for image in images if image.get("subset", "").casefold() in names]
        if not any(image.get("subset") for image in images):  # train/a.jpg
            wanted = [image for image in images if image.get("name", "").partition("/")[0].casefold() in names]
    if not wanted:
        subsets = sorted({image.get("subset", "") for image in images} - {""})
        has = f"it has no images of the subset {shown(subset)}" if images and subset else "it lists no images"
        known = f"; the subsets are {listed(subsets) or f'not named: {file.name} as the split is all of it'}"
        raise MissingSplitError(f"{file}: {has}{known if images else ''}; set data.train_split and the like")
    return wanted


def _images(root: Path, file: Path, elements: Sequence[ET.Element], report: DataReport) -> list[_Image]:
    folder = file.parent.relative_to(root).as_posix()
    found = []
    for number, element in enumerate(elements):
        name, subset = element.get("name", ""), element.get("subset", "")
        where = f"{file}: image {shown(name) if name else number}"
        path = inner_path(name.replace("\\", "/"))
        if path in (None, ".") or inner_path(subset or ".") is None:
            message = f"{where}: name: expected the path of an image inside {root}, got {shown(name)}; correct it"
            report.wrong(DataIssue.WRONG_FILE, name, message)
            continue
        assert path is not None
        places = image_places(folder, file.stem, path, subset)
        place = next((place for place in places if os.path.isfile(root / place)), places[0])
        hw = stated_size(where, element.get("height"), element.get("width"))
        found.append(_Image(element, where, place, hw))
    return found


def image_places(folder: str, stem: str, path: str, subset: str) -> list[str]:
    """Where an image of a file may lie below the root, by the folder and stem of the file, and the path and subset that
    it states."""
    of_subset = [f"images/{subset}", subset] if subset else []
    inside = [*of_subset[:1], f"images/{stem}", "images", *of_subset[1:], "."]
    bases = dict.fromkeys((folder, posixpath.join(folder, stem), "."))  # beside the file, in a folder of its name, ...
    return [posixpath.normpath(posixpath.join(base, other, path)) for base in bases for other in inside]


def _label_names(contents: Mapping[Path, ET.Element]) -> list[str] | None:
    """The classes that the tasks or projects of some files list; None if one of them lists none."""
    found = dict[str, None]()
    for file, content in contents.items():
        labels = content.findall("meta/*/labels/label") or content.findall("meta/labels/label")
        names = [label.findtext("name") or "" for label in labels if not (label.findtext("parent") or "").strip()]
        if not names:
            return None
        check_class_names(f"{file}: <labels>", names)
        found |= dict.fromkeys(names)
    return list(found)


def _unread(image: ET.Element) -> Iterator[str]:
    for shape in (item for item in image if item.tag in _SHAPES):
        yield from (key for key in ("occluded", "z_order") if shape.get(key, "0") != "0")
        values = {item.get("name", ""): (item.text or "").strip() for item in shape.iter("attribute")}
        yield from (f"attribute {key}" for key, text in values.items() if is_unread(key) and text not in ("", "false"))


def _shape(element: ET.Element, hw: tuple[int, int]) -> Shape | None:
    if element.tag in _NO_OBJECTS:
        return None
    if element.tag not in _SHAPES:
        raise ValueError(f"expected {', '.join(_SHAPES)}, got {shown(element.tag)}")
    box, outline = _geometry(element, hw)
    values = {item.get("name", ""): (item.text or "").strip().lower() in _YES for item in element.iter("attribute")}
    group = element.get("group_id")
    return Shape(element.get("label", ""), box, outline, None if group in ("", "0") else group, flags_of(values))


def _geometry(element: ET.Element, hw: tuple[int, int]) -> tuple[Box, Outline | None]:
    turned = _number(element, "rotation", "0")
    match element.tag:
        case "box":
            x1, y1, x2, y2 = (_number(element, key) for key in ("xtl", "ytl", "xbr", "ybr"))
            if turned % 360:
                raise RotatedError(f"rotated boxes are not supported (rotation {turned:g}); draw a polygon instead")
            return (x1, y1, x2, y2), None
        case "ellipse":
            x, y, rx, ry = (_number(element, key) for key in ("cx", "cy", "rx", "ry"))
            polygon = ellipse_polygon((x, y), (rx, ry), turned)
        case "polygon":
            pairs = [pair.split(",") for pair in element.get("points", "").split(";")]
            if not all(len(pair) == 2 for pair in pairs):
                raise ValueError(f"points: expected 'x,y;x,y;...', got {shown(element.get('points'))}")
            polygon = [parse_number(value) for pair in pairs for value in pair]
        case _:
            outline = part_outline(*_mask(element, hw), hw)
            return outline_bounds(outline, hw), outline
    check_polygon(polygon)
    return outline_bounds([polygon], hw), [polygon]


def _mask(element: ET.Element, hw: tuple[int, int]) -> tuple[BoolArray, tuple[int, int]]:
    left, top, width, height = (_number(element, key) for key in ("left", "top", "width", "height"))
    if any(value != int(value) or value < 0 for value in (left, top, width, height)):
        raise ValueError("left, top, width, height: expected whole pixels")
    if left + width > hw[1] or top + height > hw[0]:
        raise ValueError(f"the mask reaches beyond its image of {hw[1]} x {hw[0]} pixels")
    words = [word.strip() for word in element.get("rle", "").split(",")]
    if not all(word.isascii() and word.isdecimal() and len(word) < 10 for word in words):
        raise ValueError(f"rle: expected whole numbers, got {shown(element.get('rle'))}")
    runs = np.array([int(word) for word in words], dtype=np.int64)
    if runs.sum() != width * height:
        raise ValueError(f"rle: the run lengths must add up to {width * height:.0f} pixels, got {runs.sum()}")
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return pixels.reshape(int(height), int(width)), (int(top), int(left))


def _number(element: ET.Element, key: str, default: str | None = None) -> float:
    try:
        return parse_number(element.get(key, default))
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def write_cvat(splits: Mapping[str, DetectionDataset], target: Path, link: bool = False) -> list[str]:
    """Write ``annotations.xml`` of all splits, as subsets, and ``images/SPLIT``; see `WRITERS`."""
    losses, classes = Losses("CVAT"), next(iter(splits.values())).classes
    file = CvatFile(classes.names)
    for image in copy_images(splits, target, "images/{}", link, losses):
        element = file.add_image(image.name, image.hw, image.split)
        for k, stated in enumerate(image.objects, start=1):
            add_cvat_object(element, stated, classes.names[stated.label], k, image.hw, losses)
    file.write(target / _FILE)
    return losses.lines()


class CvatFile:
    """The content of an XML file, to which images are added one by one. DataError: XML cannot hold a class name."""

    def __init__(self, names: Sequence[str]) -> None:
        self._root = ET.Element("annotations")
        self._num_images = 0
        ET.SubElement(self._root, "version").text = "1.1"
        labels = ET.SubElement(ET.SubElement(ET.SubElement(self._root, "meta"), "project"), "labels")
        for name in names:
            label = ET.SubElement(labels, "label")
            ET.SubElement(label, "name").text = _text("class", name)
            attributes = ET.SubElement(label, "attributes")
            for flag in FLAGS:
                attribute = ET.SubElement(attributes, "attribute")
                values = {"name": flag, "mutable": "False", "input_type": "checkbox"}
                for tag, text in (values | {"default_value": "false", "values": "false"}).items():
                    ET.SubElement(attribute, tag).text = text

    def add_image(self, name: str, hw: tuple[int, int], subset: str | None = None) -> ET.Element:
        """The element of one more image, without objects. DataError: XML cannot hold its name."""
        values = {"id": str(self._num_images), "name": _text("image", name)}
        values |= {} if subset is None else {"subset": _text("split", subset)}
        self._num_images += 1
        return ET.SubElement(self._root, "image", values | {"width": str(hw[1]), "height": str(hw[0])})

    def write(self, path: Path) -> None:
        """Write the file. DataError: it could not be written."""
        ET.indent(self._root)
        with write_errors(path):
            ET.ElementTree(self._root).write(path, encoding="utf-8", xml_declaration=True)


def _text(what: str, text: str) -> str:
    try:
        check_xml_text(what, text)
    except ValueError as error:
        raise DataError(f"{text.encode('utf-8', 'replace').decode()}: {error}; rename it") from None
    return text


def add_cvat_object(
    image: ET.Element,
    stated: StatedObject,
    name: str,
    number: int,
    hw: tuple[int, int],
    losses: Losses,
    source: str = "manual",
) -> None:
    """Add an object of class ``name``, the one of that ``number`` in the image, to the element of the image, of height
    and width ``hw``; ``source``: who drew it, ``manual`` or ``auto``."""
    outline, bounds = losses.outline_of(stated, hw)
    shapes: list[tuple[str, dict[str, str]]] = []
    if outline is None:
        shapes.append(("box", dict(zip(("xtl", "ytl", "xbr", "ybr"), map(repr, bounds), strict=True))))
    elif isinstance(outline, dict):
        part, (top, left) = outline_part(outline, hw)
        ends = np.flatnonzero(np.diff(part.ravel())) + 1
        runs = np.diff(ends, prepend=0, append=part.size).tolist()
        rle = ", ".join(map(str, [0, *runs] if part.flat[0] else runs))
        place = {"left": left, "top": top, "width": part.shape[1], "height": part.shape[0]}
        shapes.append(("mask", {"rle": rle} | {key: str(value) for key, value in place.items()}))
    else:
        group = {"group_id": str(number)} if len(outline) > 1 else {}
        for polygon in outline:
            points = ";".join(f"{x!r},{y!r}" for x, y in zip(polygon[::2], polygon[1::2], strict=True))
            shapes.append(("polygon", {"points": points} | group))
    for tag, values in shapes:
        common = {"label": name, "source": source, "occluded": "0"}
        shape = ET.SubElement(image, tag, common | values | {"z_order": "0"})
        for flag in stated.flags:
            ET.SubElement(shape, "attribute", name=flag).text = "true"
