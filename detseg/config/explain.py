"""What pydantic found wrong, as one line for each mistake, in terms of the user's own file.

pydantic's location of an error names branches of unions (``data, voc, root``) and its message speaks of arrays and
objects; here the location is walked along the schema, so that path and expectation are those of the documentation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from detseg.config.describe import every_setting, in_words
from detseg.config.overrides import Override
from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.section import Section, kind_name, sections
from detseg.messages import did_you_mean, printable, quoted

_MAX_LINES = 10
_LONGEST_KEY = 100
_MISSING = object()

Keys = tuple[str | int, ...]
"""Keys and list positions from the top to a setting."""


@dataclass(frozen=True)
class Origin:
    """Where the settings came from.

    Attributes:
        where: the file, or what else an error begins with.
        data: what the file holds.
        overrides: what was set over it.
    """

    where: str
    data: Mapping[str, Any]
    overrides: tuple[Override, ...]

    def of(self, path: Keys) -> str:
        """The override that brought the setting at ``path``, or the file."""
        for override in reversed(self.overrides):
            own, common = override.path, min(len(override.path), len(path))
            is_above = len(path) < len(own)  # the override may have created this section on its way
            if own[:common] == path[:common] and not (is_above and self.holds(path)):
                return override.where
        return self.where

    def holds(self, path: Keys) -> bool:
        """Whether the file itself sets ``path``."""
        return _value_at(self.data, path) is not _MISSING


@dataclass(frozen=True)
class _Place:
    """A place in the schema.

    Attributes:
        path: keys and positions as the user wrote them.
        annotation: what may stand there; None: there is no such setting.
        field: pydantic's record of the last key, if the place is that of a key.
        section: the section that the last key belongs to.
        siblings: the other kinds of that section.
    """

    path: Keys
    annotation: Any
    field: FieldInfo | None = None
    section: type[Section] = ExperimentConfig
    siblings: tuple[type[Section], ...] = ()

    @property
    def expected(self) -> str:
        """What may stand there, in words."""
        return in_words(self.annotation, self.field.metadata if self.field else ())


def explain(errors: Sequence[ErrorDetails], data: Mapping[str, Any], origin: Origin) -> list[str]:
    """One line for each mistake, unknown keys first, since a misspelt key is often why another one is missing.

    Args:
        errors: pydantic's.
        data: what was validated.
        origin: where that came from.
    """
    unknown = [error for error in errors if error["type"] == "extra_forbidden"]
    others = [error for error in errors if error["type"] != "extra_forbidden"]
    lines = _unknown_keys(unknown, data, origin) + [_other(error, data, origin) for error in others]
    lines = list(dict.fromkeys(lines))  # both branches of a plain union complain about one value
    if len(lines) > _MAX_LINES:
        lines[_MAX_LINES:] = [f"{origin.where}: and {len(lines) - _MAX_LINES} more"]
    return [printable(line) for line in lines]


def _locate(location: Keys) -> _Place:
    place = _Place((), ExperimentConfig)
    for part in location:
        kinds = sections(place.annotation)
        if len(kinds) > 1:  # pydantic puts the name of the kind here
            chosen = next(kind for kind in kinds if kind_name(kind) == part)
            place = _Place(place.path, chosen, None, chosen, tuple(kind for kind in kinds if kind is not chosen))
        elif kinds:
            field = kinds[0].model_fields.get(str(part))
            siblings = place.siblings if place.section is kinds[0] else ()
            place = _Place((*place.path, part), field.annotation if field else None, field, kinds[0], siblings)
        elif isinstance(part, int) and (items := _tuple_items(place.annotation)):
            place = _Place((*place.path, part), items[min(part, len(items) - 1)])
        else:  # a branch of a plain union: the value as a whole is what is wrong
            break
    return place


def _tuple_items(annotation: Any) -> list[Any]:
    """The types of a tuple's items, where the annotation is a tuple or an optional one."""
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is not tuple and len(parts) == 1:
        annotation = parts[0]
    if get_origin(annotation) is not tuple:
        return []
    return [item for item in get_args(annotation) if item is not ...]


def _unknown_keys(errors: Sequence[ErrorDetails], data: Mapping[str, Any], origin: Origin) -> list[str]:
    lines: list[str] = []
    stranded: dict[Keys, list[_Place]] = {}  # keys of the file that an override of `name` has left behind
    for error in errors:
        place = _locate(error["loc"])
        section_path, key = place.path[:-1], str(place.path[-1])
        owners = [kind_name(kind) for kind in place.siblings if key in kind.model_fields]
        switched = any(override.path == (*section_path, "name") for override in origin.overrides)
        if owners and switched and origin.of(place.path) == origin.where:
            stranded.setdefault(section_path, []).append(place)
        elif owners:
            belongs = " and ".join(f"'{owner}'" for owner in owners)
            chosen = kind_name(place.section)
            lines.append(
                f"{origin.of(place.path)}: {dotted(place.path)}: unknown key of '{chosen}', it belongs to {belongs}; "
                f"remove it or set {dotted((*section_path, 'name'))}"
            )
        else:
            lines.append(f"{origin.of(place.path)}: {dotted(place.path)}: unknown key{_nearest(key, place.section)}")
    for section_path, places in stranded.items():
        keys = ", ".join(str(place.path[-1]) for place in places)
        lines.append(
            f"{origin.of((*section_path, 'name'))}: {dotted(section_path)}: {origin.where} sets {keys}, which "
            f"'{kind_name(places[0].section)}' does not have; remove that from the file"
        )
    return lines


def _nearest(key: str, section: type[Section]) -> str:
    """A hint at the known key that ``key`` may stand for: one beside it, or its name elsewhere."""
    if near := did_you_mean(key, section.model_fields):
        return near
    elsewhere = [f"'{setting.path}'" for setting in every_setting() if setting.path.rpartition(".")[2] == key]
    if elsewhere:
        return f" (did you mean {' or '.join(dict.fromkeys(elsewhere))}?)"
    return "; known here: " + ", ".join(section.model_fields)


def _other(error: ErrorDetails, data: Mapping[str, Any], origin: Origin) -> str:
    kind, place = error["type"], _locate(error["loc"])
    if kind == "value_error":  # settings that contradict each other; the schema words it
        where = f"{origin.where} with its overrides" if origin.overrides else origin.where
        prefix = f"{dotted(place.path)}: " if place.path else ""
        return f"{where}: {prefix}{error['ctx']['error']}"
    if not place.path:  # text that JSON cannot hold
        return f"{origin.where}: {error['msg']}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_kind(place, data, origin)
    got = _value_at(data, place.path)
    if kind == "missing" and got is _MISSING and place.field:
        return f"{origin.where}: {dotted(place.path)}: missing; expected {place.expected}"
    if kind == "missing":  # a list that is too short
        place = _locate(error["loc"][:-1])
        got = _value_at(data, place.path)
    hint = ""
    if kind == "string_type" and isinstance(got, int | float):
        hint = f"; put it in quotes: '{quoted(got)}'"
    elif got is None and sections(place.annotation) and place.field and not place.field.is_required():
        hint = "; leave the key out for the defaults"
    elif isinstance(got, str) and isinstance(choices := error.get("ctx", {}).get("expected"), str):
        hint = did_you_mean(got, re.findall("'([^']*)'", choices))
    return f"{origin.of(place.path)}: {dotted(place.path)}: expected {place.expected}, got {quoted(got)}{hint}"


def _wrong_kind(place: _Place, data: Mapping[str, Any], origin: Origin) -> str:
    path = (*place.path, "name")
    names = [kind_name(kind) for kind in sections(place.annotation)]
    expected = "one of " + ", ".join(f"'{name}'" for name in names)
    got = _value_at(data, path)
    if got is _MISSING:
        return f"{origin.where}: {dotted(path)}: missing; expected {expected}"
    hint = did_you_mean(got, names) if isinstance(got, str) else ""
    return f"{origin.of(path)}: {dotted(path)}: expected {expected}, got {quoted(got)}{hint}"


def _value_at(data: Any, path: Keys) -> Any:
    for key in path:
        is_there = key in data if isinstance(data, Mapping) else isinstance(data, list) and isinstance(key, int)
        if not is_there or (isinstance(data, list) and int(key) >= len(data)):
            return _MISSING
        data = data[key]
    return data


def dotted(path: Keys) -> str:
    """``("a", "b", 1)`` → ``a.b[1]``; keys that are far too long for settings are cut."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{_cut(part)}" for part in path).removeprefix(".")


def _cut(key: str) -> str:
    return key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}..."
