"""What pydantic found wrong, as one line for each mistake, in terms of the user's own file.

pydantic's location of an error names branches of unions (``data, voc, root``); here it is followed along the schema.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from detseg.config.describe import every_setting, in_words
from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.section import Section, kind_name, sections
from detseg.config.strict_yaml import Override
from detseg.messages import did_you_mean, printable, quoted

Keys = tuple[str | int, ...]
"""Keys and list positions from the top to a setting."""

_MAX_LINES = 10
_MISSING = object()


@dataclass(frozen=True)
class Origin:
    """Where the settings came from."""

    where: str  # the file, or what else an error begins with
    data: Mapping[str, Any]  # its content
    overrides: tuple[Override, ...]

    def of(self, path: Keys) -> str:
        """The override that set what is at ``path``, or the file."""
        for override in reversed(self.overrides):
            own, common = override.path, min(len(override.path), len(path))
            is_above = len(path) < len(own)  # the override may have created this section on its way
            if own[:common] == path[:common] and not (is_above and _value_at(self.data, path) is not _MISSING):
                return override.where
        return self.where


@dataclass(frozen=True)
class _Place:
    """A place in the schema."""

    path: Keys = ()  # as the user wrote it
    annotation: Any = ExperimentConfig  # what may stand there; None: there is no such setting
    field: FieldInfo | None = None  # of the last key; None: an item of a list
    section: type[Section] = ExperimentConfig  # that the last key belongs to
    kinds: tuple[type[Section], ...] = ()  # all of that section, where there are several


def explain(errors: Sequence[ErrorDetails], data: Mapping[str, Any], origin: Origin) -> list[str]:
    """One line for each of pydantic's errors about ``data``, unknown keys first: a misspelt key is often why another is
    missing."""
    unknown = [_unknown_key(error, origin) for error in errors if error["type"] == "extra_forbidden"]
    wrong = [_wrong_value(error, data, origin) for error in errors if error["type"] != "extra_forbidden"]
    lines = list(dict.fromkeys(unknown + wrong))  # both branches of a plain union complain about one value
    if len(lines) > _MAX_LINES:
        lines[_MAX_LINES:] = [f"{origin.where}: and {len(lines) - _MAX_LINES} more"]
    return [printable(line) for line in lines]


def dotted(path: Keys) -> str:
    """``("a", "b", 1)`` → ``a.b[1]``; keys that are far too long are cut."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(part if len(part) <= 100 else f"{part[:100]}..." for part in parts).removeprefix(".")


def _locate(location: Keys) -> _Place:
    place = _Place()
    for part in location:
        path, kinds = (*place.path, part), sections(place.annotation)
        if len(kinds) > 1:  # pydantic puts the name of the kind here
            chosen = next(kind for kind in kinds if kind_name(kind) == part)
            place = _Place(place.path, chosen, None, chosen, kinds)
        elif kinds:
            (section,), field = kinds, kinds[0].model_fields.get(str(part))
            all_kinds = place.kinds if place.section is section else ()
            place = _Place(path, field.annotation if field else None, field, section, all_kinds)
        elif isinstance(part, int) and (items := _tuple_items(place.annotation)):
            place = _Place(path, items[min(part, len(items) - 1)])
        else:  # a branch of a plain union: the value as a whole is wrong
            break
    return place


def _tuple_items(annotation: Any) -> list[Any]:
    """The types of a tuple's items, where the annotation is a tuple or an optional one."""
    if get_origin(annotation) is tuple:
        return [item for item in get_args(annotation) if item is not ...]
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return _tuple_items(parts[0]) if len(parts) == 1 else []


def _unknown_key(error: ErrorDetails, origin: Origin) -> str:
    place = _locate(error["loc"])
    key, fields = str(place.path[-1]), place.section.model_fields
    begin = f"{origin.of(place.path)}: {dotted(place.path)}: unknown key"
    if owners := [f"'{kind_name(kind)}'" for kind in place.kinds if key in kind.model_fields]:
        name = dotted((*place.path[:-1], "name"))
        return f"{begin} of '{kind_name(place.section)}', it belongs to {' and '.join(owners)}; remove it or set {name}"
    if near := did_you_mean(key, fields):
        return begin + near
    if elsewhere := [f"'{setting.path}'" for setting in every_setting() if setting.path.split(".")[-1] == key]:
        return f"{begin} (did you mean {' or '.join(dict.fromkeys(elsewhere))}?)"
    return f"{begin}; known here: {', '.join(fields)}"


def _wrong_value(error: ErrorDetails, data: Mapping[str, Any], origin: Origin) -> str:
    kind, location = error["type"], error["loc"]
    if kind == "missing" and isinstance(location[-1], int):  # a list that is too short
        location = location[:-1]
    place = _locate(location)
    path, expected = place.path, in_words(place.annotation, place.field.metadata if place.field else ())
    if kind.startswith("union_tag"):
        path, expected = (*path, "name"), expected.removeprefix("a section whose name is ")
    if not path:  # text that JSON cannot hold
        return f"{origin.where}: {error['msg']}"
    got = _value_at(data, path)
    if got is _MISSING:
        return f"{origin.where}: {dotted(path)}: missing; expected {expected}"
    begin = f"{origin.of(path)}: {dotted(path)}"
    if kind == "value_error":  # of the schema's own validators
        return f"{begin}: {error['ctx']['error']}"
    return f"{begin}: expected {expected}, got {quoted(got)}{_hint(error, place, got)}"


def _hint(error: ErrorDetails, place: _Place, got: Any) -> str:
    if error["type"] == "string_type" and isinstance(got, int | float):
        return f"; put it in quotes: '{quoted(got)}'"
    if got is None and sections(place.annotation) and place.field and not place.field.is_required():
        return "; leave the key out for the defaults"
    context = error.get("ctx", {})
    choices = context.get("expected") or context.get("expected_tags")
    return did_you_mean(got, re.findall("'([^']*)'", str(choices))) if isinstance(got, str) else ""


def _value_at(data: Any, path: Keys) -> Any:
    try:
        for key in path:
            data = data[key]
    except (KeyError, IndexError, TypeError):
        return _MISSING
    return data
