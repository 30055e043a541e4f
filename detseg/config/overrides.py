"""Overrides: ``trainer.max_epochs=3`` of the command line, its value read by the rules of the files, or Python's values
by the same dotted names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detseg.config.strict_yaml import YamlValue, parse_value
from detseg.errors import ConfigError
from detseg.messages import printable, quoted


@dataclass(frozen=True)
class Override:
    """The keys from the top to a setting, its value, and what an error about it begins with."""

    path: tuple[str, ...]
    value: YamlValue
    where: str


def parse_override(text: str) -> Override:
    """``a.b.c=value`` → its path and value.

    Raises:
        ConfigError: no equals sign, an empty key or value, a value that is not YAML, or a whole section as value.
    """
    key, equals, value_text = text.partition("=")
    where = f"override {printable(text if len(text) <= 200 else f'{text[:200]}...')}"
    if not equals:
        raise ConfigError(f"argument {quoted(text)}: expected an override such as trainer.max_epochs=3")
    path = _path(key, where)
    if not value_text.strip():
        raise ConfigError(f"{where}: no value after '='; write null for none, or '\"\"' for empty text")
    value = parse_value(value_text, where)
    if isinstance(value, dict):
        raise ConfigError(f"{where}: expected a value or a list; set a section key by key: {printable(key)}.key=value")
    return Override(path, value, where)


def named_overrides(settings: Mapping[str, Any]) -> tuple[Override, ...]:
    """Python's ``{"trainer.max_epochs": 3}``; a section may be given whole, as a dictionary.

    Raises:
        ConfigError: a name has an empty part.
    """
    return tuple(
        Override(_path(name, where := f"setting {printable(name)}"), _plain(value), where)
        for name, value in settings.items()
    )


def _path(key: str, where: str) -> tuple[str, ...]:
    path = tuple(key.split("."))
    if any(not part or part != part.strip() for part in path):
        raise ConfigError(f"{where}: expected keys joined by single dots, such as trainer.max_epochs=3")
    return path


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def apply_overrides(data: dict[str, YamlValue], overrides: Sequence[Override]) -> dict[str, YamlValue]:
    """A copy of ``data`` with the overrides set in their order; ConfigError where a path leads through a value."""
    result = dict(data)
    for override in overrides:
        section = result
        for depth, key in enumerate(override.path[:-1], start=1):
            below = section.get(key, {})
            if not isinstance(below, dict):
                name = printable(".".join(override.path[:depth]))
                raise ConfigError(f"{override.where}: {name} is {quoted(below)}, not a section; it has no keys to set")
            section[key] = section = dict(below)
        section[override.path[-1]] = override.value
    return result
