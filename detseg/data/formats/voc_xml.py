"""Reads one annotation file of Pascal VOC (Everingham et al. 2010): XML, 1-based inclusive corners."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detseg.data.annotations.classes import check_class_name
from detseg.data.annotations.regions import LARGEST
from detseg.errors import DataError
from detseg.messages import shown
from detseg.structures import BoolArray, FloatArray

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, eq=False)
class VocAnnotation:
    """The content of an annotation file with N objects.

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
        DataError: the file is missing, wrong, or has a document type, so that no entity expands.
    """
    root = _parse(path)
    if root.tag != "annotation":
        raise DataError(f"{path}: expected <annotation> as the outermost element, got {shown(root.tag)}")
    # Direct children only: the <part>s of an object have boxes too.
    objects = root.findall("object")
    named = [_name_and_corners(path, item) for item in objects]
    return VocAnnotation(
        filename=_text(root, "filename"),
        hw=_read_size(path, root),
        names=tuple(name for name, _ in named),
        boxes=np.array([corners for _, corners in named]).reshape(-1, 4) - np.array([1.0, 1.0, 0.0, 0.0]),
        difficult=_flags(path, objects, "difficult"),
        truncated=_flags(path, objects, "truncated"),
    )


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


def _name_and_corners(path: Path, item: ET.Element) -> tuple[str, list[float]]:
    """The class of an object, and its corners, 1-based as the file has them."""
    if not (name := _text(item, "name")):
        raise DataError(f"{path}: an <object> has no <name>; add its class or remove the object")
    check_class_name(str(path), name)
    if (box := item.find("bndbox")) is None:
        raise DataError(f"{path}: the object {shown(name)} has no <bndbox>; add it or remove the object")
    return name, [_number(path, f"{tag} of the object {shown(name)}", _text(box, tag)) for tag in _CORNERS]


def _read_size(path: Path, root: ET.Element) -> tuple[int, int] | None:
    tags = ("height", "width")
    height, width = (int(_number(path, f"{tag} of <size>", _text(root, f"size/{tag}") or "0")) for tag in tags)
    return (height, width) if height > 0 and width > 0 else None


def _flags(path: Path, objects: Sequence[ET.Element], tag: str) -> BoolArray:
    """(N,) bool; a flag that is not there, empty, or "Unspecified" is not set."""
    texts = [_text(item, tag) for item in objects]
    unset = ("", "unspecified")
    return np.array([t.lower() not in unset and _number(path, f"<{tag}>", t) != 0 for t in texts], dtype=np.bool_)


def _number(path: Path, what: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < LARGEST:  # NaN is not less
        raise DataError(f"{path}: {what}: expected a number, got {shown(text)}")
    return value
