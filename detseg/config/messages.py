"""How error messages word things: values, types and near misses, safe for a terminal."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from detseg.config.schema.section import Section

_MAX_QUOTE = 60


def printable(text: str) -> str:
    """``text`` with everything that could move a terminal's cursor or change its colour written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def quoted(value: object) -> str:
    """A value as it would stand in a file, on one line, cut after 60 characters."""
    if isinstance(value, str):
        text = f"'{value}'"
    elif isinstance(value, float) and not math.isfinite(value):
        text = ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    elif isinstance(value, dict) and value:
        text = "a mapping with " + ", ".join(value)
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    text = printable(text)
    return text if len(text) <= _MAX_QUOTE else text[: _MAX_QUOTE - 3] + "..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` with the known word nearest to ``word``, or nothing where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


def sections(annotation: Any) -> tuple[type[Section], ...]:
    """The section classes that a field may hold; several where ``name`` tells them apart, none for a plain value."""
    parts = [part for part in _parts(annotation) if isinstance(part, type) and issubclass(part, Section)]
    return tuple(parts)


def kind_name(section: type[Section]) -> str:
    """The ``name`` by which a section is picked from its union."""
    return str(get_args(section.model_fields["name"].annotation)[0])


def in_words(annotation: Any, constraints: Iterable[Any] = ()) -> str:
    """What a type of the schema accepts, e.g. ``a whole number of at least 1``.

    Args:
        annotation: the annotation of a field, or a part of one.
        constraints: what pydantic keeps beside it: ``FieldInfo.metadata``.
    """
    if get_origin(annotation) is Annotated:
        annotation, *extras = get_args(annotation)
        constraints = [c for extra in extras for c in (extra.metadata if isinstance(extra, FieldInfo) else [extra])]
    members = sections(annotation)
    if len(members) > 1:
        return "a section whose name is one of " + ", ".join(f"'{kind_name(member)}'" for member in members)
    if members:
        return "a section of settings"
    if get_origin(annotation) in (Union, UnionType):
        return ", or ".join(in_words(part, constraints) for part in get_args(annotation))
    if get_origin(annotation) is Literal:
        choices = [quoted(choice) for choice in get_args(annotation)]
        return choices[0] if len(choices) == 1 else "one of " + ", ".join(choices)
    if get_origin(annotation) is tuple:
        item, *rest = get_args(annotation)
        length = "a list" if rest == [...] else f"a list of {1 + len(rest)}"
        return f"{length} (each {in_words(item)})"
    if annotation in (int, float):
        return _number_in_words(annotation, list(constraints))
    return {bool: "true or false", str: "text", Path: "a path", NoneType: "null"}[annotation]


def _parts(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [part for member in get_args(annotation) for part in _parts(member)]
    return [annotation]


def _number_in_words(number: type[int] | type[float], constraints: list[Any]) -> str:
    bounds: dict[str, Any] = {}
    for constraint in constraints:
        for bound in ("ge", "gt", "le", "lt", "multiple_of"):
            if isinstance(constraint, annotated_types.BaseMetadata) and hasattr(constraint, bound):
                bounds[bound] = getattr(constraint, bound)
    noun = "a whole number" if number is int else "a number"
    if "multiple_of" in bounds:
        noun = f"a multiple of {bounds['multiple_of']}"
    if "ge" in bounds and "le" in bounds:
        return f"{noun} from {bounds['ge']} to {bounds['le']}"
    words = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    limits = [f"{words[bound]} {bounds[bound]}" for bound in words if bound in bounds]
    return " ".join([noun, " and ".join(limits)]) if limits else noun
