"""Reads text, JSON and XML of annotations: what is wrong with a file is one line that names it."""

from __future__ import annotations

import codecs
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from detseg.data.annotations.model import LARGEST
from detseg.errors import DataError
from detseg.messages import one_line, shown


def read_text(path: Path, what: str = "annotation file") -> str:
    """A text file in UTF-8, with or without a byte order mark; all line ends become ``\\n``. A DataError if it is
    missing or something else."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such {what}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot read the {what}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        is_utf_16 = path.read_bytes()[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        where = "it is UTF-16" if is_utf_16 else f"byte {error.start} is not UTF-8"
        raise DataError(f"{path}: not a readable {what}: {where}; save it as UTF-8") from None


def read_list(path: Path, is_name: Callable[[str], bool], what: str = "list") -> list[tuple[int, str]]:
    """Number, from 1, and text of each line that is neither empty nor a comment: a line that begins with # of which
    ``is_name`` does not say that it is the name of something. A DataError as `read_text`."""
    lines = enumerate(map(str.strip, read_text(path, what).split("\n")), start=1)
    return [(number, line) for number, line in lines if line and (line[0] != "#" or is_name(line))]


def parse_json(path: Path) -> Any:
    """The content of a JSON file; a DataError if it is missing, cut short, or not JSON, which has no NaN."""

    def no_number(name: str) -> NoReturn:
        raise ValueError(f"JSON has no {name}, write a number")

    try:
        return json.loads(read_text(path), parse_constant=no_number)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:  # JSONDecodeError is a ValueError
        raise DataError(f"{path}: not a readable JSON file: {one_line(error)}") from None


def parse_number(value: object) -> float:
    """A number as JSON or text states it; a ValueError if it is none, or too large to be one of pixels."""
    try:
        number = float(value) if isinstance(value, str | int | float) else float("nan")
    except (ValueError, OverflowError):
        number = float("nan")
    if not abs(number) < LARGEST:  # NaN is not less
        raise ValueError(f"expected a number, got {'nothing' if value is None else shown(value)}")
    return number


class _PlainTree(ET.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Called by the parser before it reads the declarations of a document type."""
        raise DataError("document types and entities are not supported; remove <!DOCTYPE ...>")


def parse_xml(path: Path, fix: str = "correct data.root") -> ET.Element:
    """The outermost element of an XML file; a DataError if it is missing (``fix`` says what to do then), not XML, or
    has a document type: no entity expands."""
    try:
        return ET.fromstring(path.read_bytes(), parser=ET.XMLParser(target=_PlainTree()))
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such annotation file; {fix}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot read the annotation file: {error.strerror}") from None
    except (ET.ParseError, DataError, ValueError, LookupError) as error:  # the last two: unknown encodings
        raise DataError(f"{path}: not a readable XML file: {error}") from None
