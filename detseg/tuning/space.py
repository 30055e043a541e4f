"""The space of a search: a YAML file that names the settings that vary, and the values that they may take.

::

    optimizer.lr: {log_uniform: [1e-4, 1e-2]}
    data.image_size: {integer: [256, 512], step: 32}
    data.augmentation.mosaic: {uniform: [0, 1]}
    model.backbone.name: {categorical: [csp_nano, resnet18]}
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detseg.config.load import config_to_dict
from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.strict_yaml import Override, YamlValue, key_lines, read_yaml
from detseg.errors import ConfigError
from detseg.messages import did_you_mean, printable, quoted

if TYPE_CHECKING:
    from optuna.trial import Trial

_KINDS = ("uniform", "log_uniform", "integer", "categorical")
_SAME = "trials are compared by the same images"
_NOT_SEARCHED = {
    "run_dir": "each trial has a folder of its own",
    "trainer.monitor": "it names what is searched for",
    "evaluation": "trials are compared by it",
    **dict.fromkeys((f"data.{key}" for key in ("name", "root", "classes", "split_seed", "split_group")), _SAME),
    **dict.fromkeys((f"data.val_{key}" for key in ("fraction", "split", "images", "annotations", "masks")), _SAME),
    "trainer.max_time": "--time ends a search",
    **dict.fromkeys(("trainer.fast_dev_run", "trainer.overfit_batches"), "a trial is a whole training"),
    **dict.fromkeys(("trainer.devices", "trainer.num_nodes", "trainer.strategy"), "a trial has one device"),
}


@dataclass(frozen=True)
class Range:
    """A setting that is a number between two others."""

    name: str  # dotted
    where: str  # file and line
    low: float  # all three are whole numbers where the setting is one
    high: float
    step: float | None = None  # from one value to the next; None: every number
    log: bool = False

    @property
    def ends(self) -> tuple[float, ...]:
        """The values to check before a search: a first step, too, since settings may have to be multiples."""
        return self.low, self.high, *([] if self.step is None else [self.low + self.step])

    def suggest(self, trial: Trial) -> None:
        """Have Optuna propose a value."""
        if isinstance(self.low, int):
            trial.suggest_int(self.name, self.low, int(self.high), step=int(self.step or 1))
        else:
            trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def setting_of(self, value: Any) -> YamlValue:
        """The setting that a value of Optuna's stands for."""
        setting: YamlValue = value
        return setting

    def value_of(self, setting: Any) -> Any:
        """The value that stands for a setting; None: the space does not have it."""
        if not _is_number(setting) or not self.low <= setting <= self.high:
            return None
        return setting if self.step is None or _divides(self.step, setting - self.low) else None

    def grid_values(self) -> Sequence[Any]:
        """All values; ConfigError: there is no end of them."""
        if self.step is None:
            fix = "give a step, or categorical values"
            raise ConfigError(f"{self.where}: {self.name}: a grid needs single values; {fix}")
        return [self.low + i * self.step for i in range(round((self.high - self.low) / self.step) + 1)]


@dataclass(frozen=True)
class Choice:
    """A setting that is one of a list; a section may be, too."""

    name: str  # dotted
    where: str  # file and line
    settings: tuple[YamlValue, ...]

    @cached_property
    def by_text(self) -> dict[str, YamlValue]:
        """The settings by the texts that stand for them: Optuna's databases hold no lists or sections."""
        return {_text(setting): setting for setting in self.settings}

    @property
    def ends(self) -> tuple[str, ...]:
        """The values to check before a search."""
        return tuple(self.by_text)

    def suggest(self, trial: Trial) -> None:
        """Have Optuna propose a value."""
        trial.suggest_categorical(self.name, list(self.by_text))

    def setting_of(self, value: Any) -> YamlValue:
        """The setting that a value of Optuna's stands for."""
        return self.by_text[value]

    def value_of(self, setting: Any) -> Any:
        """The value that stands for a setting; None: the space does not have it."""
        return text if (text := _text(setting)) in self.by_text else None

    def grid_values(self) -> Sequence[Any]:
        """All values."""
        return self.ends


Parameter = Range | Choice
Space = Sequence[Parameter]


def read_space(path: Path) -> tuple[Parameter, ...]:
    """The parameters of a space file. ConfigError: the file is no YAML, or a parameter is wrong."""
    content = read_yaml(path)
    if not content:
        raise ConfigError(f"{printable(str(path))}: names no setting that varies")
    lines = key_lines(path)
    return tuple(_parameter(f"{printable(str(path))}:{lines[name]}", name, value) for name, value in content.items())


def check_space(space: Space, load: Callable[[Sequence[Override]], object]) -> None:
    """Put the ends of each range and all choices into the configuration, beside the first values of the others.

    Args:
        space: the parameters.
        load: validates the configuration with overrides.

    Raises:
        ConfigError: a value is no valid setting.
    """
    first = {parameter.name: parameter.ends[0] for parameter in space}
    for parameter in space:
        for value in parameter.ends:
            load(overrides_of(space, {**first, parameter.name: value}))


def overrides_of(space: Space, values: Mapping[str, Any]) -> list[Override]:
    """The overrides that values of Optuna's stand for; sections before what is in them."""
    ordered = sorted(space, key=lambda parameter: parameter.name.count("."))
    return [Override(tuple(p.name.split(".")), p.setting_of(values[p.name]), p.where) for p in ordered]


def values_of(space: Space, config: ExperimentConfig) -> dict[str, Any] | None:
    """The values that stand for the settings of a configuration; None: the space does not have them."""
    values = {parameter.name: parameter.value_of(_setting(config, parameter.name)) for parameter in space}
    return None if None in values.values() else values


def _setting(config: ExperimentConfig, name: str) -> Any:
    found: Any = config_to_dict(config)
    for key in name.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _parameter(where: str, name: str, content: YamlValue) -> Parameter:
    begin = f"{where}: {printable(name)}"
    for fixed, why in _NOT_SEARCHED.items():
        if f"{name}.".startswith(f"{fixed}."):
            raise ConfigError(f"{begin}: is not searched, {why}; remove it")
        if fixed.startswith(f"{name}."):
            raise ConfigError(f"{begin}: has {fixed}, which is not searched, {why}; name its settings one by one")
    kinds = [key for key in _KINDS if isinstance(content, dict) and key in content]
    if not isinstance(content, dict) or len(kinds) != 1:
        expected = f"one of {', '.join(_KINDS)}, such as {{uniform: [0, 1]}}"
        raise ConfigError(f"{begin}: expected {expected}, got {quoted(content)}")
    (kind,) = kinds
    allowed = (kind, "step") if kind in ("uniform", "integer") else (kind,)
    if unknown := [key for key in content if key not in allowed]:
        raise ConfigError(f"{begin}: {kind} has no {quoted(unknown[0])}{did_you_mean(unknown[0], allowed)}; remove it")
    values = content[kind]
    if kind != "categorical":
        return _range(begin, name, where, kind, values, content.get("step"))
    if not isinstance(values, list) or len({_text(value) for value in values}) < max(len(values), 2):
        raise ConfigError(f"{begin}: categorical: expected two or more different values, got {quoted(values)}")
    return Choice(name, where, tuple(values))


def _range(begin: str, name: str, where: str, kind: str, values: Any, step: Any) -> Range:
    fits = _is_whole if kind == "integer" else _is_number
    noun = "whole numbers" if kind == "integer" else "numbers"
    if not isinstance(values, list) or len(values) != 2 or not all(map(fits, values)) or values[0] >= values[1]:
        raise ConfigError(f"{begin}: {kind}: expected two {noun}, the smaller one first, got {quoted(values)}")
    low, high = values
    if kind == "log_uniform" and low <= 0:
        raise ConfigError(f"{begin}: log_uniform: expected numbers above 0, got {quoted(values)}")
    if step is not None and (not fits(step) or step <= 0 or not _divides(step, high - low)):
        raise ConfigError(f"{begin}: step: expected one that leads from {low} to {high}, got {quoted(step)}")
    if kind == "integer":
        return Range(name, where, low, high, step or 1)
    return Range(name, where, float(low), float(high), None if step is None else float(step), kind == "log_uniform")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _divides(step: float, distance: float) -> bool:
    return math.isclose(distance / step, round(distance / step), abs_tol=1e-9)


def _text(setting: YamlValue) -> str:
    return setting if isinstance(setting, str) else json.dumps(setting)
