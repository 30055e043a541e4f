"""One annotation file of Pascal VOC (Everingham et al. 2010): XML, 1-based inclusive corners.

Letters for dimensions: N objects of the image.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detseg.data.annotations.classes import check_class_name, printable
from detseg.data.annotations.regions import are_numbers
from detseg.errors import DataError, shown
from detseg.structures import BoolArray, FloatArray

# XML 1.0, section 2.2, without the control characters that readers drop or turn into spaces.
_XML_TEXT = re.compile(r"[\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")


@dataclass(frozen=True, eq=False)
class VocAnnotation:
    """What an annotation file says.

    Attributes:
        filename: the image's name; empty when not stated.
        hw: height and width in pixels; None when not stated, or stated as 0.
        names: N class names.
        boxes: (N, 4) float64 xyxy, 0-based and half-open: (xmin - 1, ymin - 1, xmax, ymax).
        difficult: (N,) bool.
        truncated: (N,) bool.
    """

    filename: str
    hw: tuple[int, int] | None
    names: tuple[str, ...]
    boxes: FloatArray
    difficult: BoolArray
    truncated: BoolArray


def read_voc_xml(path: Path) -> VocAnnotation:
    """Read an annotation file.

    Args:
        path: the file; a document type or entities in it are refused, so that nothing expands.

    Raises:
        DataError: the file is missing, is no VOC annotation, or an object lacks its name or a corner.
    """
    root = _parse(path)
    if root.tag != "annotation":
        raise DataError(f"{path}: expected <annotation> as the outermost element, got <{printable(root.tag)}>")
    objects = root.findall("object")  # direct children: the <part>s of an object have boxes, too
    names = tuple(_name(path, item) for item in objects)
    corners = [_corners(path, name, item) for name, item in zip(names, objects, strict=True)]
    return VocAnnotation(
        filename=_text(root, "filename"),
        hw=_size(path, root),
        names=names,
        boxes=np.array(corners, dtype=np.float64).reshape(-1, 4) - np.array([1.0, 1.0, 0.0, 0.0]),
        difficult=np.array([_flag(path, item, "difficult") for item in objects], dtype=np.bool_),
        truncated=np.array([_flag(path, item, "truncated") for item in objects], dtype=np.bool_),
    )


def write_voc_xml(
    path: Path,
    annotation: VocAnnotation,
    folder: str = "",
    segmented: bool = False,
    scores: Sequence[float] | None = None,
) -> None:
    """Write an annotation file, corners to a thousandth of a pixel; ``read_voc_xml`` reads the same back, but for boxes
    thinner than a pixel, which inclusive corners cannot state: they become a pixel wide (high) about their centre.

    Args:
        path: the file; an existing one is replaced.
        annotation: what it shall say; its size must be known.
        folder: name of the folder of the image; empty: none is stated.
        segmented: whether the image has masks beside it.
        scores: N scores in [0, 1] of detections, written as ``<score>``, which readers of VOC pass over; None: none.

    Raises:
        ValueError: the size is not known, there is not one score for each object, or a name holds what XML cannot say.
        OSError: the file could not be written.
    """
    if annotation.hw is None:
        raise ValueError("an annotation is written with the size of its image; got none")
    if scores is not None and len(scores) != len(annotation.names):
        raise ValueError(f"expected a score for each of {len(annotation.names)} objects, got {len(scores)}")
    root = ET.Element("annotation")
    if folder:
        _leaf(root, "folder", folder)
    _leaf(root, "filename", annotation.filename)
    size = ET.SubElement(root, "size")
    for tag, value in (("width", annotation.hw[1]), ("height", annotation.hw[0]), ("depth", 3)):
        _leaf(size, tag, value)
    _leaf(root, "segmented", int(segmented))
    for i, (name, (x1, y1, x2, y2)) in enumerate(zip(annotation.names, annotation.boxes.tolist(), strict=True)):
        entry = ET.SubElement(root, "object")
        _leaf(entry, "name", name)
        _leaf(entry, "pose", "Unspecified")
        _leaf(entry, "truncated", int(annotation.truncated[i]))
        _leaf(entry, "difficult", int(annotation.difficult[i]))
        corners = ET.SubElement(entry, "bndbox")
        xmin, xmax = _inclusive(x1, x2, annotation.hw[1])
        ymin, ymax = _inclusive(y1, y2, annotation.hw[0])
        for tag, corner in (("xmin", xmin), ("ymin", ymin), ("xmax", xmax), ("ymax", ymax)):
            rounded = round(corner, 3)
            _leaf(corners, tag, int(rounded) if rounded == int(rounded) else rounded)
        if scores is not None:
            _leaf(entry, "score", f"{scores[i]:.6f}")
    ET.indent(root)
    ET.ElementTree(root).write(path, encoding="utf-8")


def _inclusive(start: float, end: float, side: int) -> tuple[float, float]:
    """0-based half-open → 1-based inclusive along an axis of ``side`` pixels: the last pixel end - 1 is number end."""
    if end - start >= 1:
        return start + 1, end
    middle = min(max((start + 1 + end) / 2, 1.0), float(side))  # the pixel about the centre, inside the image
    return middle, middle


def check_xml_text(what: str, text: str) -> None:
    """Refuse a text that no XML file can hold.

    Raises:
        ValueError: it has such characters.
    """
    if not _XML_TEXT.fullmatch(text):
        raise ValueError(f"{what}: XML has no place for some of the characters of {shown(text)}")


def _leaf(parent: ET.Element, tag: str, value: str | float) -> None:
    text = str(value)
    check_xml_text(tag, text)
    ET.SubElement(parent, tag).text = text


class _PlainTree(ET.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Called by the parser before it reads the declarations of a document type."""
        raise DataError("document types and entities are not read; remove <!DOCTYPE ...>")


def _parse(path: Path) -> ET.Element:
    try:
        return ET.fromstring(path.read_bytes(), parser=ET.XMLParser(target=_PlainTree()))
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such annotation file; add it or take the image off the list") from None
    except OSError as error:
        raise DataError(f"{path}: cannot read the annotation file: {error.strerror}") from None
    except (ET.ParseError, DataError, ValueError, LookupError) as error:  # the last two: unknown encodings
        raise DataError(f"{path}: not a readable XML file: {error}") from None


def _text(element: ET.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _name(path: Path, item: ET.Element) -> str:
    name = _text(item, "name")
    if not name:
        raise DataError(f"{path}: an <object> has no <name>; add its class or remove the object")
    check_class_name(str(path), name)
    return name


def _corners(path: Path, name: str, item: ET.Element) -> list[float]:
    box = item.find("bndbox")
    if box is None:
        raise DataError(
            f"{path}: the object {shown(name)} has no <bndbox>; add xmin, ymin, xmax, ymax or remove the object"
        )
    where = f"of the object {shown(name)}"
    return [_number(path, f"{tag} {where}", _text(box, tag)) for tag in ("xmin", "ymin", "xmax", "ymax")]


def _size(path: Path, root: ET.Element) -> tuple[int, int] | None:
    size = root.find("size")
    if size is None:
        return None
    height, width = (_number(path, f"{tag} of <size>", _text(size, tag) or "0") for tag in ("height", "width"))
    return (int(height), int(width)) if height > 0 and width > 0 else None


def _flag(path: Path, item: ET.Element, tag: str) -> bool:
    text = _text(item, tag)
    if text.lower() in ("", "unspecified"):
        return False
    return _number(path, f"<{tag}>", text) != 0


def _number(path: Path, what: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not are_numbers([value]):
        raise DataError(f"{path}: {what}: expected a number, got {shown(text)}")
    return value
