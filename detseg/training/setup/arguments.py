"""What Python gives to a training, checked, as settings: a model or settings, data sets, dotted names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from detseg.config.load import config_from_dict, load_config, stated_settings
from detseg.config.schema.data import CustomDataConfig, DataSection
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.datasets.contract import EvalSource, check_source, check_truth, checked_sample
from detseg.errors import ConfigError, check_type
from detseg.factory import BuiltFrom
from detseg.messages import listed
from detseg.tasks import kind_of
from detseg.training.setup.build import DataSets, Own

_METHODS = ("losses", "predict", "losses_and_predictions")


def from_arguments(
    where: str,
    model: nn.Module | ExperimentConfig | str | Path,
    train_set: EvalSource | None,
    val_set: EvalSource | None,
    named: Mapping[str, Any],
    settings: Mapping[str, Any] | None,
    task: str | None,
) -> tuple[ExperimentConfig, Path, Own]:
    """The settings of a training, what it is named after, and what it takes from Python as it is.

    Args:
        where: the function that was called, with which errors begin: ``detseg.train``.
        named: settings that have arguments of their own; None: not given.
        model, train_set, val_set, settings, task: as ``detseg.train`` takes them.

    Raises:
        ConfigError: one of them is wrong; one line for each setting.
        DetsegError: the data is wrong, or does not fit the model.
    """
    check_type(f"{where}: settings", settings, Mapping | None, 'a mapping, such as {"optimizer.lr": 1e-3}')
    given = {**(settings or {}), **{name: value for name, value in named.items() if value is not None}}
    if (train_set is None) != (val_set is None):
        raise ConfigError(f"{where}: got one of train_set and val_set; give both, or neither for those of settings")
    data = None if train_set is None or val_set is None else _checked_data(where, train_set, val_set)
    if isinstance(model, nn.Module):
        config = _settings_of(where, model, data, task, given)
        name = Path(type(model).__name__ if config.model.name == "custom" else config.model.name)
    else:
        config, name = _load(where, model, data is not None, given)
    _check_fit(where, config, data, task)
    return config, name, Own(model if isinstance(model, nn.Module) else None, data)


def _check_fit(where: str, config: ExperimentConfig, data: DataSets | None, task: str | None) -> None:
    if task is not None and config.model.name != "custom":
        raise ConfigError(f"{where}: task: is for a module of your own, not for a {config.model.name}; leave it out")
    kind = kind_of(config.model)
    for what, source in zip(("train_set", "val_set"), data or (), strict=False):
        check_truth(f"{where}: {what}", source, kind.finds_objects, kind.finds_masks)


def _checked_data(where: str, train_set: EvalSource, val_set: EvalSource) -> DataSets:
    check_source(f"{where}: train_set", train_set)
    check_source(f"{where}: val_set", val_set)
    if (names := train_set.classes.names) != (others := val_set.classes.names):
        what = f"val_set has the classes {listed(others)}; train_set has {listed(names)}"
        raise ConfigError(f"{where}: {what}; read it with classes=train_set.classes")
    return train_set, val_set


def _settings_of(
    where: str, model: nn.Module, data: DataSets | None, task: str | None, given: Mapping[str, Any]
) -> ExperimentConfig:
    kind = type(model).__name__
    if data is None:
        raise ConfigError(f"{where}: a {kind} needs data; give train_set and val_set")
    if missing := [name for name in _METHODS if not callable(getattr(model, name, None))]:
        contract = "Detector and Segmenter in detseg/models/interface.py say what a model must have"
        raise ConfigError(f"{where}: model: a {kind} has no method {' or '.join(missing)}; {contract}")
    if of_model := [name for name in given if name.split(".")[0] == "model"]:
        raise ConfigError(f"setting {of_model[0]}: belongs to the model; give it to detseg.build_model")
    built, classes = getattr(model, "built_from", None), data[0].classes
    if not isinstance(built, BuiltFrom):
        section = {"name": "custom", "task": task or _task_of(data[0])}
    elif built.classes.names != classes.names:
        names, others = listed(built.classes.names), listed(classes.names)
        raise ConfigError(f"{where}: model: was built for the classes {names}; train_set has {others}")
    else:
        section = built.config.model_dump(mode="json")
    return config_from_dict({"model": section, "data": {"name": "custom"}}, where, given)


def _task_of(dataset: EvalSource) -> str:
    sample = checked_sample(dataset, 0)
    return "semantic" if sample.semantic is not None else "detection" if sample.masks is None else "instance"


def _load(
    where: str, source: ExperimentConfig | str | Path, has_data: bool, given: Mapping[str, Any]
) -> tuple[ExperimentConfig, Path]:
    """The settings of a training, and what its run directory is named after."""
    if isinstance(source, ExperimentConfig):
        config, name = config_from_dict(stated_settings(source), where, given), Path(source.model.name)
    else:
        check_type(
            f"{where}: model", source, str | Path, "a module, such as MyModel(), a YAML file or ExperimentConfig"
        )
        config, name = load_config(source, given), Path(source)
    if not has_data:
        return config, name
    stated = config.data.model_fields_set.intersection(DataSection.model_fields)
    common = {key: getattr(config.data, key) for key in stated}
    return config.model_copy(update={"data": CustomDataConfig(name="custom", **common)}), name
