"""A strict reader of YAML files and of overrides (``trainer.max_epochs=3``): plain data or one clear line, no guesses.

PyYAML follows YAML 1.1, where ``1e-3`` is text, ``no`` is false, ``010`` is eight and a duplicate key wins in silence.
Here it only parses the text into events; values follow the core schema of YAML 1.2 (section 10.3). Tags, anchors,
aliases and second documents are errors, so that no file can name a class or grow beyond its own size.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from detseg.errors import ConfigError
from detseg.messages import did_you_mean, printable, quoted

YamlValue = bool | int | float | str | list["YamlValue"] | dict[str, "YamlValue"] | None

Position = Callable[[Any], str]  # what an error at a PyYAML mark (None: the whole text) begins with

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def read_yaml(path: Path) -> dict[str, YamlValue]:
    """The mapping that a YAML file holds. ConfigError: the file is missing, not a file, not UTF-8, not YAML, or holds
    no mapping; with line and column."""
    name = printable(str(path))
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        near = did_you_mean(path.name, sorted(other.name for other in path.parent.glob("*.y*ml")))
        raise ConfigError(f"{name}: no such configuration file{near}") from None
    except UnicodeDecodeError as error:
        what = f"not UTF-8 text at byte {error.start}; save the file as UTF-8"
        if path.suffix in (".ckpt", ".safetensors"):
            what = "is a checkpoint; name a configuration file, and --resume=CKPT to go on from one"
        raise ConfigError(f"{name}: {what}") from None
    except (OSError, ValueError) as error:  # a folder, no permission, a NUL in the name, ...
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{name}: cannot be read as a configuration file: {printable(reason)}") from None
    value = _parse(text, lambda mark: f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name)
    if not isinstance(value, dict):
        got = "nothing" if value is None else quoted(value)
        raise ConfigError(f"{name}: expected a mapping such as `seed: 0` at the top, got {got}")
    return value


def key_lines(path: Path) -> dict[str, int]:
    """The line of each key at the top of a file that ``read_yaml`` has read."""
    node: Any = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    return {key.value: key.start_mark.line + 1 for key, _ in node.value}


def parse_value(text: str, where: str) -> YamlValue:
    """The value of an override by the rules of the files; ``where`` begins the ConfigError for no YAML or a comment."""
    value = _parse(text, lambda mark: where)
    last_token = list(yaml.scan(text, Loader=yaml.SafeLoader))[-2]
    if last_token.end_mark.index < len(text.rstrip()):
        raise ConfigError(f"{where}: '#' begins a comment in YAML; put the value in quotes")
    return value


@dataclass(frozen=True)
class Override:
    """A setting of the command line, or of Python."""

    path: tuple[str, ...]  # keys from the top
    value: YamlValue
    where: str  # what an error about it begins with


def parse_overrides(settings: Sequence[str | Override] | Mapping[str, Any]) -> tuple[Override, ...]:
    """Overrides from ``a.b.c=value`` texts, or from Python's ``{"a.b.c": value}``, where a value may be a section;
    those of another file come as they are. ConfigError: an empty key or value; in a text also no YAML, or a section as
    value."""
    if not isinstance(settings, Mapping):
        return tuple(_parse_override(text) if isinstance(text, str) else text for text in settings)
    values = ((name, os.fspath(v) if isinstance(v, os.PathLike) else v) for name, v in settings.items())
    return tuple(Override(_path(name, where := f"setting {printable(name)}"), value, where) for name, value in values)


def _parse_override(text: str) -> Override:
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


def _path(key: str, where: str) -> tuple[str, ...]:
    path = tuple(key.split("."))
    if any(not part or part != part.strip() for part in path):
        raise ConfigError(f"{where}: expected keys joined by single dots, such as trainer.max_epochs=3")
    return path


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


def needs_quotes(text: str) -> bool:
    """Whether text without quotes would be read as a number, a boolean or null."""
    return text in _WORDS or bool(_INTEGER.fullmatch(text) or _FLOAT.fullmatch(text))


def _parse(text: str, position: Position) -> YamlValue:
    try:
        events = iter(yaml.parse(text, Loader=yaml.SafeLoader))
        next(events)  # start of the stream
        if isinstance(next(events), yaml.StreamEndEvent):
            return None
        value = _build(next(events), events, position, depth=0)
        next(events)  # end of the document
        following = next(events)
        if not isinstance(following, yaml.StreamEndEvent):
            raise ConfigError(f"{position(following.start_mark)}: a second document begins; expected one")
    except ConfigError:
        raise
    except yaml.MarkedYAMLError as error:
        context = f" ({error.context})" if error.context else ""
        raise ConfigError(f"{position(error.problem_mark)}: not valid YAML: {error.problem}{context}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a control character, an escape such as \UFFFFFFFF
        first_line, *_ = str(error).splitlines()
        raise ConfigError(f"{position(None)}: not valid YAML: {printable(first_line)}") from None
    return value


def _build(event: yaml.Event, events: Iterator[yaml.Event], position: Position, depth: int) -> YamlValue:
    """The value that begins with ``event``; takes the events that belong to it."""
    where = position(event.start_mark)
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        raise ConfigError(f"{where}: anchors (&) and aliases (*) are not allowed; write the value out, or quote it")
    if getattr(event, "tag", None):
        raise ConfigError(f"{where}: tags (!) are not allowed; remove it, or quote the value")
    if depth > 30:
        raise ConfigError(f"{where}: nested deeper than 30 levels")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event, where)
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[YamlValue] = []
        while not isinstance(item := next(events), yaml.SequenceEndEvent):
            items.append(_build(item, events, position, depth + 1))
        return items
    mapping: dict[str, YamlValue] = {}
    lines: dict[str, int] = {}
    while not isinstance(item := next(events), yaml.MappingEndEvent):
        mark: Any = item.start_mark
        key, where = _build(item, events, position, depth + 1), position(mark)
        if not isinstance(key, str):
            raise ConfigError(f"{where}: expected text as a key, got {quoted(key)}")
        if key in mapping:
            raise ConfigError(f"{where}: duplicate key {quoted(key)}, first on line {lines[key]}; remove one of them")
        lines[key] = mark.line + 1
        mapping[key] = _build(next(events), events, position, depth + 1)
    return mapping


def _scalar(event: yaml.ScalarEvent, where: str) -> bool | int | float | str | None:
    """The value of a scalar; without quotes it follows the core schema of YAML 1.2."""
    text: str = event.value
    if re.search("[\0\ud800-\udfff]", text):
        raise ConfigError(f"{where}: a NUL or half a surrogate pair is not text, got {quoted(text)}")
    if not event.implicit[0]:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        if len(text) > 40 or not -(2**63) <= (number := int(text, base)) < 2**63:
            raise ConfigError(f"{where}: {quoted(text)} is a whole number beyond 64 bits")
        return number
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan")) if _FLOAT.fullmatch(text) else text
