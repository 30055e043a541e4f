"""From a YAML file and overrides to a validated ``ExperimentConfig``, and back to plain data. Does not import torch.

What is wrong is one line for each mistake, in terms of the user's own file: pydantic's location of an error names
branches of unions (``data, voc, root``) and is followed along the schema here.
"""

from __future__ import annotations

import json
import re
import sysconfig
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from detseg.config.consistency import contradictions
from detseg.config.describe import every_setting, in_words
from detseg.config.schema.experiment import CHOSEN_SETTINGS, ExperimentConfig
from detseg.config.schema.section import Section, kind_name, rename_settings, sections
from detseg.config.strict_yaml import Override, YamlValue, apply_overrides, needs_quotes, parse_overrides, read_yaml
from detseg.errors import ConfigError, SettingsError
from detseg.messages import did_you_mean, printable, quoted

Settings = Sequence[str] | Mapping[str, Any]
"""Overrides: ``a.b.c=value`` texts, whose values are YAML, or Python's values by their dotted names."""

_Keys = tuple[str | int, ...]  # keys and list positions from the top to a setting

_MAX_LINES = 10
_MISSING = object()


def load_config(path: str | Path, overrides: Settings = ()) -> ExperimentConfig:
    """The experiment that a YAML file, or an example by its name (``yolo_shapes``), describes, with overrides.
    ConfigError: anything is wrong; one line for each mistake: where, which setting, what was expected and got."""
    path = file_of(path)
    return _validate(read_yaml(path), printable(str(path)), overrides)


def file_of(path: str | Path) -> Path:
    """The YAML file itself, where an example may be given by its name."""
    path = Path(path)
    return _example(path.name) if not path.exists() and not path.suffix and len(path.parts) == 1 else path


def _example(name: str) -> Path:
    """The file of an example: in the repository, or where the wheel has put it; ConfigError if there is none."""
    folders = [Path(__file__).parents[2] / "configs", Path(sysconfig.get_path("data")) / "share" / "detseg" / "configs"]
    examples = {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}
    if name not in examples:
        what = f"{printable(repr(name))} is neither a file nor an example{did_you_mean(name, examples)}"
        raise ConfigError(f"{what}; the examples are {', '.join(examples)}")
    return examples[name]


def config_from_dict(
    data: Mapping[str, Any], where: str = "checkpoint", overrides: Settings | Sequence[str | Override] = ()
) -> ExperimentConfig:
    """The experiment that plain data describes, as ``config_to_dict`` gave it; ``where`` begins its errors.

    ConfigError as in ``load_config``, also where ``data`` holds anything but plain data.
    """
    return _validate(dict(data), where, overrides)


def without_download(data: Mapping[str, Any]) -> dict[str, Any]:
    """Plain settings of a checkpoint with ``data.download`` off: only the user's own file or override may start one."""
    if isinstance(section := data.get("data"), Mapping) and "download" in section:
        return {**data, "data": {**section, "download": False}}
    return dict(data)


def config_to_dict(config: ExperimentConfig) -> dict[str, Any]:
    """Every setting as plain data: dicts, lists, text, numbers, booleans, None."""
    return config.model_dump(mode="json")


def is_stated(config: ExperimentConfig, path: str) -> bool:
    """Whether a setting, or a part of that section, was given."""
    section: Any = config
    for key in path.split("."):
        if key not in section.model_fields_set:
            return False
        section = getattr(section, key)
    return True


def printed(config: ExperimentConfig) -> str:
    """The settings for ``--print-config`` as YAML, without those that a training chooses, which a comment names: so
    that what is printed trains as the file does."""
    settings, names = config_to_dict(config), list[str]()
    for name in CHOSEN_SETTINGS:
        *parents, key = name.split(".")
        section = settings
        for parent in parents:
            section = section.get(parent, {})
        if key in section and not is_stated(config, name):
            del section[key]
            names.append(name)
    text = f"left out, so that a training may choose them from the data (docs/recipes.md): {', '.join(names)}"
    lines = textwrap.wrap(text, 110, initial_indent="# ", subsequent_indent="# ") if names else []
    return "".join(f"{line}\n" for line in lines) + plain_to_yaml(settings)


def stated_settings(config: ExperimentConfig) -> dict[str, Any]:
    """The settings that were given, with the names of the sections' kinds, as plain data; a training may choose others
    than the defaults for the rest."""
    return _stated(config, config_to_dict(config))


def _stated(section: Section, plain: dict[str, Any]) -> dict[str, Any]:
    stated = dict[str, Any]()
    for key, value in plain.items():
        if key in section.model_fields_set or key == "name":
            part = getattr(section, key)
            stated[key] = _stated(part, value) if isinstance(part, Section) else value
    return stated


def config_to_yaml(config: ExperimentConfig) -> str:
    """Every setting as YAML; ``load_config`` reads the same configuration from it."""
    return plain_to_yaml(config_to_dict(config))


def differences(then: Any, now: Any, may_differ: Collection[str] = (), path: str = "") -> Iterator[str]:
    """The settings below ``path`` that differ and must not; of another kind of section (``name``), that alone."""
    if path in may_differ:
        return
    if not isinstance(then, Mapping) or not isinstance(now, Mapping):
        if then != now:
            yield f"{path} was {quoted(then)} and is {quoted(now)}"
        return
    for key in ["name"] if then.get("name") != now.get("name") else {**then, **now}:
        yield from differences(then.get(key), now.get(key), may_differ, f"{path}.{key}".lstrip("."))


def plain_to_yaml(data: Mapping[str, Any]) -> str:
    """Plain settings as YAML, which ``load_config`` reads as they are."""
    return yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _validate(
    data: dict[str, YamlValue], where: str, settings: Settings | Sequence[str | Override]
) -> ExperimentConfig:
    """Validates through JSON: pydantic's strict mode of it tells 3, "3", 3.0 and true apart, but takes lists as tuples
    and text as paths."""
    origin = _Origin(where, parse_overrides(settings))
    data = apply_overrides(data, origin.overrides)
    _raise(rename_settings(data)[1], origin)
    data = _name_default_kinds(data, ExperimentConfig)
    try:
        text = json.dumps(data)
        json.loads(text, parse_int=_check_integer)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: the configuration is not plain data: {error}") from None
    try:
        config = ExperimentConfig.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(error.errors(include_url=False), data, origin))) from None
    _raise(contradictions(config), origin)
    return config


def _raise(wrong: Iterable[tuple[str, str]], origin: _Origin) -> None:
    if lines := [printable(f"{origin.of(tuple(path.split('.')))}: {path}: {message}") for path, message in wrong]:
        raise SettingsError("\n".join(lines))


def _check_integer(digits: str) -> None:
    if not -(2**63) <= int(digits) < 2**63:
        raise ValueError("a whole number beyond 64 bits")


def _name_default_kinds(data: dict[str, YamlValue], schema: type[Section]) -> dict[str, YamlValue]:
    """``data`` with the default ``name`` of each section that leaves it out, such as unet's ``model.backbone``."""
    result = dict(data)
    for key, field in schema.model_fields.items():
        value, kinds = data.get(key), sections(field.annotation)
        if not kinds or not isinstance(value, dict):
            continue
        if "name" not in value and isinstance(name := getattr(field.default, "name", None), str):
            value = {"name": name, **value}
        chosen = [kind for kind in kinds if len(kinds) == 1 or kind_name(kind) == value.get("name")]
        result[key] = _name_default_kinds(value, chosen[0]) if chosen else value
    return result


@dataclass(frozen=True)
class _Origin:
    """Where the settings came from."""

    where: str  # the file, or what else an error begins with
    overrides: tuple[Override, ...]

    def of(self, path: _Keys) -> str:
        """The override that set what is at ``path``, or the file."""
        for override in reversed(self.overrides):
            if all(mine == other for mine, other in zip(override.path, path, strict=False)):
                return override.where
        return self.where


@dataclass(frozen=True)
class _Place:
    """A place in the schema."""

    path: _Keys = ()  # as the user wrote it
    annotation: Any = ExperimentConfig  # what may stand there; None: there is no such setting
    field: FieldInfo | None = None  # of the last key; None: an item of a list
    section: type[Section] = ExperimentConfig  # that the last key belongs to
    kinds: tuple[type[Section], ...] = ()  # all of that section, where there are several


def _explain(errors: Sequence[ErrorDetails], data: Mapping[str, Any], origin: _Origin) -> list[str]:
    """One line for each of pydantic's errors about ``data``, unknown keys first: a misspelt key is often why another is
    missing."""
    unknown = [_unknown_key(error, origin) for error in errors if error["type"] == "extra_forbidden"]
    wrong = [_wrong_value(error, data, origin) for error in errors if error["type"] != "extra_forbidden"]
    lines = list(dict.fromkeys(unknown + wrong))  # both branches of a plain union complain about one value
    if len(lines) > _MAX_LINES:
        lines[_MAX_LINES:] = [f"{origin.where}: and {len(lines) - _MAX_LINES} more"]
    return [printable(line) for line in lines]


def _dotted(path: _Keys) -> str:
    """``("a", "b", 1)`` → ``a.b[1]``; keys that are far too long are cut."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(part if len(part) <= 100 else f"{part[:100]}..." for part in parts).removeprefix(".")


def _locate(location: _Keys) -> _Place:
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


def _unknown_key(error: ErrorDetails, origin: _Origin) -> str:
    place = _locate(error["loc"])
    key, fields = str(place.path[-1]), place.section.model_fields
    begin = f"{origin.of(place.path)}: {_dotted(place.path)}: unknown key"
    if owners := [f"'{kind_name(kind)}'" for kind in place.kinds if key in kind.model_fields]:
        name = _dotted((*place.path[:-1], "name"))
        return f"{begin} of '{kind_name(place.section)}', it belongs to {' and '.join(owners)}; remove it or set {name}"
    if near := did_you_mean(key, fields):
        return begin + near
    if elsewhere := [f"'{setting.path}'" for setting in every_setting() if setting.path.split(".")[-1] == key]:
        return f"{begin} (did you mean {' or '.join(dict.fromkeys(elsewhere))}?)"
    return f"{begin}; known here: {', '.join(fields)}"


def _wrong_value(error: ErrorDetails, data: Mapping[str, Any], origin: _Origin) -> str:
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
        return f"{origin.where}: {_dotted(path)}: missing; expected {expected}"
    begin = f"{origin.of(path)}: {_dotted(path)}"
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


def _value_at(data: Any, path: _Keys) -> Any:
    try:
        for key in path:
            data = data[key]
    except (KeyError, IndexError, TypeError):
        return _MISSING
    return data


class _Dumper(yaml.SafeDumper):
    """Writes lists on one line, and quotes text that YAML 1.2 would read as a number."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # PyYAML would fold Unicode's line breaks into spaces
    style = '"' if not text.isprintable() else "'" if needs_quotes(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(
    list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)
)
