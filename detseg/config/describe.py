"""The schema as text: what ``detseg config explain`` prints and what stands in docs/configuration.md.

``python -m detseg.config.describe docs/configuration.md`` writes the settings of that page.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from detseg.config.schema.experiment import CHOSEN_SETTINGS, ExperimentConfig
from detseg.config.schema.section import Section, kind_name, sections
from detseg.errors import ConfigError
from detseg.messages import did_you_mean, quoted, shown


@dataclass(frozen=True)
class Setting:
    """One setting."""

    path: str
    kinds: tuple[str, ...]  # names of the kinds of its section that have it in this form; empty: all of them
    type: str  # what it accepts, in words
    default: str | None  # as a file has it; None: it must be given
    meaning: str

    @property
    def form(self) -> str:
        """Kinds, type and default."""
        kinds = f" ({', '.join(self.kinds)})" if self.kinds else ""
        chosen = " (left out: may be chosen from the data)" if self.path in CHOSEN_SETTINGS else ""
        return f"{kinds}: {self.type}; {'required' if self.default is None else f'default {self.default}{chosen}'}"


def every_setting() -> list[Setting]:
    """All settings, in the order of the schema."""
    return _settings_of((ExperimentConfig,), "")


def help_text(path: str = "") -> str:
    """A setting, those of a section, or all of them for a terminal; ConfigError where there is none of this path."""
    settings = every_setting()
    found = [setting for setting in settings if not path or f"{setting.path}.".startswith(f"{path}.")]
    if not found:
        known = {setting.path for setting in settings} | {setting.path.rpartition(".")[0] for setting in settings}
        raise ConfigError(f"there is no setting {shown(path)}{did_you_mean(path, known)}; see detseg config explain")
    lines = ["settings (in the file, or as key.key=value after it):"]
    for setting in found:
        lines.append(f"  {setting.path}{setting.form}")
        lines += textwrap.wrap(setting.meaning, width=110, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def settings_page(page: str) -> str:
    """The text of docs/configuration.md with the settings of today below its introduction."""
    parts = [page.partition("\n## ")[0].rstrip()]
    for section, settings in groupby(every_setting(), key=lambda setting: setting.path.rpartition(".")[0]):
        parts.append(f"\n## `{section}`\n" if section else "\n## Top level\n")
        for setting in settings:
            parts.append(f"- **`{setting.path.rpartition('.')[2]}`**{setting.form}.  \n  {setting.meaning}")
    return "\n".join(parts) + "\n"


def in_words(annotation: Any, constraints: Iterable[Any] = ()) -> str:
    """What the annotation of a field accepts, with its ``FieldInfo.metadata``: ``a whole number of at least 1``."""
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
    if get_origin(annotation) is dict:
        return f"a mapping of names, each to {in_words(get_args(annotation)[1])}"
    return {bool: "true or false", str: "text", Path: "a path", NoneType: "null"}[annotation]


def _settings_of(kinds: tuple[type[Section], ...], prefix: str) -> list[Setting]:
    """The settings of a section of one or several kinds: its own values first, then those of the sections in it."""
    own: dict[tuple[str, str, str | None, str], list[str]] = {}
    below: dict[str, tuple[type[Section], ...]] = {}
    for kind in kinds:
        for key, field in kind.model_fields.items():
            if inner := sections(field.annotation):
                below[key] = inner
            elif key != "name" or len(kinds) == 1:
                type_, meaning = in_words(field.annotation, field.metadata), _folded(field.description)
                form = key, type_, _default_text(field), meaning
                own.setdefault(form, []).append(kind_name(kind) if len(kinds) > 1 else "")
    settings = [
        Setting(prefix + key, () if len(names) == len(kinds) else tuple(names), type_, default, meaning)
        for (key, type_, default, meaning), names in own.items()
    ]
    for key, inner in below.items():
        if len(inner) > 1:
            names = ", ".join(f"'{kind_name(kind)}'" for kind in inner)
            usual = kinds[0].model_fields[key].default
            default = kind_name(type(usual)) if isinstance(usual, Section) else None
            meaning = " ".join(f"`{kind_name(kind)}`: {_folded(kind.__doc__)}" for kind in inner)
            settings.append(Setting(f"{prefix}{key}.name", (), f"one of {names}", default, meaning))
        settings += _settings_of(inner, f"{prefix}{key}.")
    return settings


def _default_text(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    default: Any = field.default
    if isinstance(default, str):
        return default
    return quoted(list(default) if isinstance(default, tuple) else default)


def _folded(text: str | None) -> str:
    return " ".join((text or "").split())


def _number_in_words(number: type[int] | type[float], constraints: list[Any]) -> str:
    words = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    bounds = {bound: getattr(c, bound) for c in constraints for bound in words if hasattr(c, bound)}
    noun = "a whole number" if number is int else "a number"
    if bounds.keys() == {"ge", "le"}:
        return f"{noun} from {bounds['ge']} to {bounds['le']}"
    limits = " and ".join(f"{words[bound]} {bounds[bound]}" for bound in words if bound in bounds)
    return f"{noun} {limits}" if limits else noun


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(settings_page(page.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
