"""From a YAML file and overrides to a validated ``ExperimentConfig``, and back to plain data. Does not import torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from detseg.config.consistency import contradictions
from detseg.config.error_messages import Origin, explain
from detseg.config.renamed import old_names
from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.section import Section, kind_name, sections
from detseg.config.strict_yaml import (
    YamlValue,
    apply_overrides,
    named_overrides,
    needs_quotes,
    parse_override,
    read_yaml,
)
from detseg.errors import ConfigError, SettingsError
from detseg.messages import printable

Settings = Sequence[str] | Mapping[str, Any]
"""Overrides: ``a.b.c=value`` texts, whose values are YAML, or Python's values by their dotted names."""


def load_config(path: str | Path, overrides: Settings = ()) -> ExperimentConfig:
    """The experiment that a YAML file describes, with overrides.

    Raises:
        ConfigError: anything is wrong; one line for each mistake: where, which setting, what was expected and got.
    """
    return _validate(read_yaml(Path(path)), printable(str(path)), overrides)


def config_from_dict(data: Mapping[str, Any], where: str = "checkpoint", overrides: Settings = ()) -> ExperimentConfig:
    """The experiment that plain data describes, as ``config_to_dict`` gave it; ``where`` begins its errors.

    ConfigError as in ``load_config``, also where ``data`` holds anything but plain data.
    """
    return _validate(dict(data), where, overrides)


def without_download(data: Mapping[str, Any]) -> dict[str, Any]:
    """Plain settings of a checkpoint or a bundle with ``data.download`` off: only the user's own configuration file or
    override may start a download."""
    if isinstance(section := data.get("data"), Mapping) and "download" in section:
        return {**data, "data": {**section, "download": False}}
    return dict(data)


def config_to_dict(config: ExperimentConfig) -> dict[str, Any]:
    """Every setting as plain data: dicts, lists, text, numbers, booleans, None."""
    return config.model_dump(mode="json")


def config_to_yaml(config: ExperimentConfig) -> str:
    """Every setting as YAML; ``load_config`` reads the same configuration from it."""
    return yaml.dump(config_to_dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _validate(data: dict[str, YamlValue], where: str, settings: Settings) -> ExperimentConfig:
    """Validates through JSON: pydantic's strict mode of it tells 3, "3", 3.0 and true apart, but takes lists as tuples
    and text as paths."""
    overrides = (
        named_overrides(settings) if isinstance(settings, Mapping) else tuple(parse_override(text) for text in settings)
    )
    origin = Origin(where, data, overrides)
    data = apply_overrides(data, overrides)
    _raise(old_names(data), origin)
    data = _name_default_kinds(data, ExperimentConfig)
    try:
        text = json.dumps(data)
        json.loads(text, parse_int=_check_integer)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: the configuration is not plain data: {error}") from None
    try:
        config = ExperimentConfig.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise SettingsError("\n".join(explain(error.errors(include_url=False), data, origin))) from None
    _raise(contradictions(config), origin)
    return config


def _raise(wrong: Iterable[tuple[str, str]], origin: Origin) -> None:
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


class _Dumper(yaml.SafeDumper):
    """Writes lists on one line, and quotes text that YAML 1.2 would read as a number."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # PyYAML would fold Unicode's line breaks into spaces
    style = '"' if not text.isprintable() else "'" if needs_quotes(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_list(dumper: _Dumper, items: list[Any]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_list)
