"""Reads and writes one annotation file of Pascal VOC (Everingham et al. 2010): XML, 1-based inclusive corners.

Letters for dimensions: N objects of the image.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detseg.data.annotations.classes import check_class_name
from detseg.data.annotations.regions import are_numbers
from detseg.errors import DataError
from detseg.messages import shown
from detseg.structures import BoolArray, FloatArray

# XML 1.0, section 2.2, without the control characters that readers drop or turn into spaces.
_XML_TEXT = re.compile(r"[\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, eq=False)
class VocAnnotation:
    """The content of an annotation file.

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

    Raises:
        DataError: the file is missing or no VOC annotation, has a document type (so that no entity expands), or an
            object lacks its name or a corner.
    """
    root = _parse(path)
    if root.tag != "annotation":
        raise DataError(f"{path}: expected <annotation> as the outermost element, got {shown(root.tag)}")
    # Direct children only: the <part>s of an object have boxes too.
    objects = [_read_object(path, item) for item in root.findall("object")]
    return VocAnnotation(
        filename=_text(root, "filename"),
        hw=_read_size(path, root),
        names=tuple(name for name, *_ in objects),
        boxes=np.array([corners for _, corners, *_ in objects]).reshape(-1, 4) - np.array([1.0, 1.0, 0.0, 0.0]),
        difficult=np.array([difficult for *_, difficult, _ in objects], dtype=np.bool_),
        truncated=np.array([truncated for *_, truncated in objects], dtype=np.bool_),
    )


def write_voc_xml(
    path: Path,
    annotation: VocAnnotation,
    folder: str = "",
    segmented: bool = False,
    scores: Sequence[float] | None = None,
) -> None:
    """Write an annotation file, with corners to a thousandth of a pixel.

    ``read_voc_xml`` reads the same back, but for boxes thinner than a pixel, which inclusive corners cannot state: they
    become one pixel wide (high) about their centre.

    Args:
        path: the file; an existing one is replaced.
        annotation: what to write; its size must be known.
        folder: name of the folder of the image; empty: none is stated.
        segmented: whether the image has masks.
        scores: N scores in [0, 1] of detections, written as ``<score>``, which VOC's readers ignore; None: none.

    Raises:
        ValueError: the size is not known, there is not one score for each object, or a name has characters that XML
            cannot hold.
        OSError: the file could not be written.
    """
    if annotation.hw is None:
        raise ValueError("an annotation is written with the size of its image; got none")
    if scores is not None and len(scores) != len(annotation.names):
        raise ValueError(f"expected a score for each of {len(annotation.names)} objects, got {len(scores)}")
    height, width = annotation.hw
    root = ET.Element("annotation")
    if folder:
        _add(root, "folder", folder)
    _add(root, "filename", annotation.filename)
    size = ET.SubElement(root, "size")
    for tag, value in (("width", width), ("height", height), ("depth", 3)):
        _add(size, tag, value)
    _add(root, "segmented", int(segmented))
    for i, (name, (x1, y1, x2, y2)) in enumerate(zip(annotation.names, annotation.boxes.tolist(), strict=True)):
        item = ET.SubElement(root, "object")
        _add(item, "name", name)
        _add(item, "pose", "Unspecified")
        _add(item, "truncated", int(annotation.truncated[i]))
        _add(item, "difficult", int(annotation.difficult[i]))
        box = ET.SubElement(item, "bndbox")
        (xmin, xmax), (ymin, ymax) = _inclusive(x1, x2, width), _inclusive(y1, y2, height)
        for tag, corner in zip(_CORNERS, (xmin, ymin, xmax, ymax), strict=True):
            rounded = round(corner, 3)
            _add(box, tag, int(rounded) if rounded == int(rounded) else rounded)
        if scores is not None:
            _add(item, "score", f"{scores[i]:.6f}")
    ET.indent(root)
    ET.ElementTree(root).write(path, encoding="utf-8")


def _inclusive(start: float, end: float, side: int) -> tuple[float, float]:
    """0-based half-open → 1-based inclusive along an axis of ``side`` pixels: the last pixel end - 1 is number end."""
    if end - start >= 1:
        return start + 1, end
    middle = min(max((start + 1 + end) / 2, 1.0), float(side))  # the pixel about the centre, inside the image
    return middle, middle


def check_xml_text(what: str, text: str) -> None:
    """Check that XML can hold a text.

    Raises:
        ValueError: it cannot; the message begins with ``what``.
    """
    if not _XML_TEXT.fullmatch(text):
        raise ValueError(f"{what}: XML has no place for some of the characters of {shown(text)}")


def _add(parent: ET.Element, tag: str, value: str | float) -> None:
    check_xml_text(tag, str(value))
    ET.SubElement(parent, tag).text = str(value)


class _PlainTree(ET.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Called by the parser before it reads the declarations of a document type."""
        raise DataError("document types and entities are not supported; remove <!DOCTYPE ...>")


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


def _read_object(path: Path, item: ET.Element) -> tuple[str, list[float], bool, bool]:
    """Class name, 1-based corners, difficult, truncated."""
    name = _text(item, "name")
    if not name:
        raise DataError(f"{path}: an <object> has no <name>; add its class or remove the object")
    check_class_name(str(path), name)
    box = item.find("bndbox")
    if box is None:
        fix = f"add {', '.join(_CORNERS)} or remove the object"
        raise DataError(f"{path}: the object {shown(name)} has no <bndbox>; {fix}")
    corners = [_number(path, tag, _text(box, tag), name) for tag in _CORNERS]
    return name, corners, _flag(path, item, "difficult"), _flag(path, item, "truncated")


def _read_size(path: Path, root: ET.Element) -> tuple[int, int] | None:
    tags = ("height", "width")
    height, width = (_number(path, f"{tag} of <size>", _text(root, f"size/{tag}") or "0") for tag in tags)
    return (int(height), int(width)) if height > 0 and width > 0 else None


def _flag(path: Path, item: ET.Element, tag: str) -> bool:
    text = _text(item, tag)
    return text.lower() not in ("", "unspecified") and _number(path, f"<{tag}>", text) != 0


def _number(path: Path, what: str, text: str, name: str = "") -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not are_numbers([value]):
        owner = f" of the object {shown(name)}" if name else ""
        raise DataError(f"{path}: {what}{owner}: expected a number, got {shown(text)}")
    return value
