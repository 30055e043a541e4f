"""`detseg.train`: a training from Python, of settings or of the user's own module and data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch import nn

from detseg.checkpoint import BEST, FOLDER
from detseg.config.load import config_from_dict, config_to_dict, load_config
from detseg.config.schema.data import CustomDataConfig, DataSection
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.datasets.contract import EvalSource, check_source, check_truth, checked_sample
from detseg.data.loading.loader import leave_if_starting
from detseg.errors import ConfigError, check_row, check_type
from detseg.factory import BuiltFrom
from detseg.messages import listed
from detseg.tasks import kind_of
from detseg.training.callbacks.run_files import best_epoch
from detseg.training.callbacks.stopping import StopRequest
from detseg.training.run import train as train_settings
from detseg.training.setup.build import DataSets, Own, criterion_of

_WHERE = "detseg.train"
_METHODS = ("losses", "predict", "losses_and_predictions")


@dataclass(frozen=True)
class TrainingRun:
    """A training that has ended.

    Attributes:
        run_dir: its folder; see docs/training.md for what is in it.
        criterion: the metric that the best epoch was chosen by, higher is better: ``AP``, ``mask_AP`` or ``mIoU``.
    """

    run_dir: Path
    criterion: str

    @property
    def best_checkpoint(self) -> Path:
        """The file of the best epoch, for ``detseg.evaluate`` and ``detseg.load_predictor``."""
        return self.run_dir / FOLDER / BEST

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The metrics of the best epoch by their names in ``metrics.csv``, without ``val/``: ``AP``, ``loss``, ...

        Empty after a ``fast_dev_run``, which writes nothing.
        """
        best = best_epoch(self.run_dir / "metrics.csv", f"val/{self.criterion}")
        return {key.removeprefix("val/"): float(best[key]) for key in best if key.startswith("val/")}


def train(
    model: nn.Module | ExperimentConfig | str | Path,
    train_set: EvalSource | None = None,
    val_set: EvalSource | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    max_epochs: int | None = None,
    run_dir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    task: Literal["detection", "instance", "semantic"] | None = None,
    resume: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    stop: StopRequest | None = None,
) -> TrainingRun:
    """Train as the command `detseg train` does, into the same run directory; in any thread, and in a script without a
    ``__main__`` guard where ``num_workers`` is 0. The global generators of torch, NumPy and Python are seeded.

    Args:
        model: of ``detseg.build_model``; any module that keeps the ``Detector`` or ``Segmenter`` contract of
            ``detseg.models.interface``; or settings, as a YAML file or ``ExperimentConfig``.
        train_set, val_set: what ``detseg.read_voc`` and its like return, or anything that keeps the contract of
            ``detseg.data.datasets.contract``; None: those that the settings name.
        image_size: side of the square network input in pixels, or (height, width); setting ``data.image_size``.
        batch_size, num_workers, max_epochs: settings ``data.batch_size``, ``data.num_workers``, ``trainer.max_epochs``.
        run_dir: where to write; None: ``runs/<name of the model or file>``, with a number added if that exists.
        settings: other settings by their dotted names (docs/configuration.md), such as ``{"optimizer.lr": 1e-3}``.
        task: what a module of your own finds (no other has one); None: what the first training image has.
        resume: a checkpoint to continue; ``"last"``: the last one of the run directory; ``"auto"``: that, or begin
            where there is none; None: a new run.
        callbacks, loggers: of Lightning's, besides those that every run has.
        stop: by which another thread may ask the training to stop.

    Raises:
        ConfigError: a setting or argument is wrong; one line for each.
        DetsegError: the data does not fit the model, it or the checkpoint is wrong, or memory is not enough.
        RunStoppedError: the run was asked to stop, and has saved itself.
    """
    leave_if_starting()
    sizes = {"data.image_size": image_size, "data.batch_size": batch_size, "data.num_workers": num_workers}
    named = {**sizes, "trainer.max_epochs": max_epochs, "run_dir": run_dir}
    _check_options(settings, resume, stop, callbacks, loggers)
    given = {**(settings or {}), **{name: value for name, value in named.items() if value is not None}}
    if (train_set is None) != (val_set is None):
        raise ConfigError(f"{_WHERE}: got one of train_set and val_set; give both, or neither for those of settings")
    data = None if train_set is None or val_set is None else _checked_data(train_set, val_set)
    module = model if isinstance(model, nn.Module) else None
    if isinstance(model, nn.Module):
        config = _settings_of(model, data, task, given)
        name = Path(type(model).__name__ if config.model.name == "custom" else config.model.name)
    else:
        config, name = _load(model, data is not None, given)
    _check_fit(config, data, task)
    own = Own(module, data, callbacks, loggers, stop or StopRequest())
    folder = train_settings(config, name, None if resume is None else str(resume), own)
    return TrainingRun(folder, criterion_of(config))


def _check_options(settings: object, resume: object, stop: object, callbacks: object, loggers: object) -> None:
    check_type(f"{_WHERE}: settings", settings, Mapping | None, 'a mapping, such as {"optimizer.lr": 1e-3}')
    check_type(f"{_WHERE}: resume", resume, str | Path | None, '"last", "auto" or a checkpoint file')
    check_type(f"{_WHERE}: stop", stop, StopRequest | None, "a detseg.StopRequest")
    check_row(f"{_WHERE}: callbacks", callbacks, Callback, "a list of lightning.pytorch's Callback")
    check_row(f"{_WHERE}: loggers", loggers, Logger, "a list of lightning.pytorch's Logger")


def _check_fit(config: ExperimentConfig, data: DataSets | None, task: str | None) -> None:
    if task is not None and config.model.name != "custom":
        raise ConfigError(f"{_WHERE}: task: is for a module of your own, not for a {config.model.name}; leave it out")
    kind = kind_of(config.model)
    for what, source in zip(("train_set", "val_set"), data or (), strict=False):
        check_truth(f"{_WHERE}: {what}", source, kind.finds_objects, kind.finds_masks)


def _checked_data(train_set: EvalSource, val_set: EvalSource) -> DataSets:
    check_source(f"{_WHERE}: train_set", train_set)
    check_source(f"{_WHERE}: val_set", val_set)
    if (names := train_set.classes.names) != (others := val_set.classes.names):
        what = f"val_set has the classes {listed(others)}; train_set has {listed(names)}"
        raise ConfigError(f"{_WHERE}: {what}; read it with classes=train_set.classes")
    return train_set, val_set


def _settings_of(
    model: nn.Module, data: DataSets | None, task: str | None, given: Mapping[str, Any]
) -> ExperimentConfig:
    kind = type(model).__name__
    if data is None:
        raise ConfigError(f"{_WHERE}: a {kind} needs data; give train_set and val_set")
    if missing := [name for name in _METHODS if not callable(getattr(model, name, None))]:
        contract = "Detector and Segmenter in detseg/models/interface.py say what a model must have"
        raise ConfigError(f"{_WHERE}: model: a {kind} has no method {' or '.join(missing)}; {contract}")
    if of_model := [name for name in given if name.split(".")[0] == "model"]:
        raise ConfigError(f"setting {of_model[0]}: belongs to the model; give it to detseg.build_model")
    built, classes = getattr(model, "built_from", None), data[0].classes
    if not isinstance(built, BuiltFrom):
        section = {"name": "custom", "task": task or _task_of(data[0])}
    elif built.classes.names != classes.names:
        names, others = listed(built.classes.names), listed(classes.names)
        raise ConfigError(f"{_WHERE}: model: was built for the classes {names}; train_set has {others}")
    else:
        section = built.config.model_dump(mode="json")
    return config_from_dict({"model": section, "data": {"name": "custom"}}, _WHERE, given)


def _task_of(dataset: EvalSource) -> str:
    sample = checked_sample(dataset, 0)
    return "semantic" if sample.semantic is not None else "detection" if sample.masks is None else "instance"


def _load(
    source: ExperimentConfig | str | Path, has_data: bool, given: Mapping[str, Any]
) -> tuple[ExperimentConfig, Path]:
    """The settings of a training, and what its run directory is named after."""
    if isinstance(source, ExperimentConfig):
        config, name = config_from_dict(config_to_dict(source), _WHERE, given), Path(source.model.name)
    else:
        check_type(
            f"{_WHERE}: model", source, str | Path, "a module, such as MyModel(), a YAML file or ExperimentConfig"
        )
        config, name = load_config(source, given), Path(source)
    if not has_data:
        return config, name
    common = {key: getattr(config.data, key) for key in DataSection.model_fields}
    return config.model_copy(update={"data": CustomDataConfig(name="custom", **common)}), name
