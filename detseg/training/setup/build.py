"""From settings to data sets, loaders and the task that trains."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from detseg.config.load import config_to_dict
from detseg.config.schema.data import AugmentationConfig
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.annotations.issues import Severity
from detseg.data.annotations.report import ceiling_line, nothing_to_learn, sizes_in_input, small_boxes_line
from detseg.data.augment.pipeline import TrainTransform
from detseg.data.checks.masks import check_some_masks
from detseg.data.datasets.bad_samples import BadSampleList
from detseg.data.datasets.contract import EvalSource
from detseg.data.datasets.detection import DetectionDataset, ImageDataset
from detseg.data.datasets.fingerprint import fingerprint
from detseg.data.splits import same_files
from detseg.errors import ConfigError, DataError
from detseg.factory import build_model
from detseg.messages import did_you_mean, listed, shown
from detseg.models.acceleration import compile_networks
from detseg.structures import ClassTable
from detseg.tasks import kind_of
from detseg.training.callbacks.stopping import StopRequest
from detseg.training.datamodule import ImageDataModule
from detseg.training.nan import StepGuard
from detseg.training.resume import DataGuard
from detseg.training.setup.recipe import complete
from detseg.training.task import Task

logger = logging.getLogger("detseg")

DataSets = tuple[EvalSource, EvalSource]  # to train on, and to validate on


class Opened(NamedTuple):
    """What a training begins with."""

    config: ExperimentConfig  # complete: with what follows from the training set
    train_set: EvalSource
    val_set: EvalSource


@dataclass(frozen=True)
class Own:
    """What Python gives to a training."""

    model: nn.Module | None = None  # in the place of that of the settings; None: that
    data_sets: DataSets | None = None  # likewise
    callbacks: Sequence[Callback] = ()  # of Lightning's, besides ours
    loggers: Sequence[Logger] = ()  # likewise
    stop: StopRequest = field(default_factory=StopRequest)
    begun: float = field(default_factory=time.monotonic)  # of its budget


def open_data(config: ExperimentConfig, own: Own | None = None) -> Opened:
    """The training and the validation set, whose issues are printed once, and the settings with those that follow from
    the training set: what they leave out (``recipe``), anchors, class weights.

    Args:
        config: the settings.
        own: the user's own model, whose settings are not completed, and data sets; None: those that settings describe.

    Raises:
        ConfigError: ``trainer.overfit_batches`` with a data set of the user's own that has no subsets; settings that
            go by another kind of data set.
        DataError: something is missing or wrong.
    """
    own = own or Own()
    kind, overfit, given = kind_of(config.model), config.trainer.overfit_batches, own.data_sets
    train_set = kind.open_dataset(config.data, "train") if given is None else given[0]
    if own.model is None:
        config = complete(config, train_set)
    if overfit:
        train_set = _first(train_set, overfit * config.data.num_images)
    _say_issues(train_set)
    if overfit:
        val_set = train_set
    else:
        val_set = kind.open_dataset(config.data, "val", train_set.classes) if given is None else given[1]
        if config.data.val_fraction is None:  # else those of the training set are of both
            _say_issues(val_set)
        _say_same_images(train_set, val_set)
    if isinstance(val_set, DetectionDataset):
        line = ceiling_line(val_set.packed, config.evaluation.max_detections)
        if line is not None:
            logger.warning(f"{val_set.name}: {line}")
    if isinstance(train_set, DetectionDataset):
        if why := nothing_to_learn(train_set.packed, train_set.report):
            raise DataError(f"{train_set.name}: {why}")
        line = small_boxes_line(train_set.packed, config.data.input_hw, config.data.augmentation.min_box_size)
        sizes, _ = sizes_in_input(train_set.packed, config.data.input_hw)
        if (sizes < config.data.augmentation.min_box_size).any(axis=1).all():
            raise DataError(f"{train_set.name}: there is no object to train on: {line}")
        if line is not None:
            logger.info(f"{train_set.name}: {line}")
    if own.model is None:
        config = kind.settings_from_data(config, train_set)
    return Opened(config, train_set, val_set)


def _first(dataset: EvalSource, number: int) -> EvalSource:
    subset = getattr(dataset, "subset", None)
    if subset is None:
        name = type(dataset).__name__
        raise ConfigError(f"trainer.overfit_batches: a {name} has no method subset(indices); set it to 0")
    first: EvalSource = subset(range(min(number, len(dataset))))
    return first


def _say_issues(dataset: EvalSource) -> None:
    if (report := getattr(dataset, "report", None)) is None:  # it is no reader's of detseg's
        return
    if isinstance(dataset, DetectionDataset):
        check_some_masks(dataset)
    name = getattr(dataset, "name", "data")
    for line in report.notes:
        logger.info(f"{name}: {line}")
    for finding in report.findings():
        fix = f"; {finding.issue.fix}" if finding.issue.severity == Severity.ERROR else ""
        level = logging.WARNING if finding.issue.severity else logging.INFO
        logger.log(level, f"{name}: {finding.line}{fix}")


def _say_same_images(train_set: EvalSource, val_set: EvalSource) -> None:
    if not isinstance(train_set, ImageDataset) or not isinstance(val_set, ImageDataset):
        return
    if same := same_files(train_set, val_set):
        what = f"{len(same)} of {len(val_set)} validation images are training images, too ({listed(same[:3])})"
        fix = "its numbers will be too good: correct the splits, or set data.val_fraction"
        logger.warning(f"{val_set.name}: {what}; {fix}")


def criterion_of(config: ExperimentConfig) -> str:
    """The metric that chooses the best checkpoint; a ConfigError if ``trainer.monitor`` is none of the kind's."""
    metrics, name = kind_of(config.model).metrics, config.trainer.monitor
    weighted = f"weighted_{metrics[0]}"
    if name == weighted and config.evaluation.class_weights is None:
        raise ConfigError(f"trainer.monitor: {weighted} needs weights of the classes; set evaluation.class_weights")
    if name is not None and name not in (known := (*metrics, weighted)):
        what = f"expected one of {', '.join(known)}, got {shown(name)}{did_you_mean(name, known)}"
        raise ConfigError(f"trainer.monitor: {what}")
    return name or metrics[0]


def build_task(
    config: ExperimentConfig, classes: ClassTable, load_pretrained: bool, model: nn.Module | None = None
) -> Task:
    """The model that the settings describe, in the task that trains its kind.

    Args:
        config: the settings; what follows from the data is filled in.
        classes: of the data.
        load_pretrained: fetch published weights where the settings ask for them; off where a checkpoint follows anyway.
        model: the user's own; None: that of the settings is built.

    Raises:
        ConfigError: the model cannot be built.
        DetsegError: published weights could not be loaded.
    """
    criterion = criterion_of(config)  # an error before anything is built
    model = build_model(config.model, classes, load_pretrained) if model is None else model
    if config.trainer.sync_batchnorm:
        # timm's, since torch's, which Lightning calls, drops the activation within timm's normalisation layers.
        model = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]  # timm states no types
    task = Task(
        kind_of(config.model),
        model,
        classes,
        config.optimizer,
        config.schedule,
        config.evaluation,
        config.trainer.ema_decay,
        config.trainer.ema_warmup_steps,
        config_to_dict(config),
        getattr(config.model, "backbone", None),
        StepGuard(config.trainer.on_nan, config.trainer.max_nan_steps),
    )
    task.criterion = criterion
    epochs = config.trainer.max_epochs
    if task.frozen and not config.trainer.fast_dev_run and (late := task.frozen.turns_after(epochs)):
        turns = f"epoch {listed([str(epoch) for epoch in late])}, trainer.max_epochs={epochs}"
        logger.warning(f"frozen stages whose turn comes after the last epoch never train: {turns}")
    if config.trainer.compile:
        compile_networks(model)
    return task


def describe_model(config: ExperimentConfig, model: nn.Module) -> str:
    """The model in one line: its kind, its backbone or the published network, its size."""
    variant = getattr(config.model, "variant", "custom")
    backbone = getattr(config.model, "backbone", None)
    network = f"{variant} (a published network)" if backbone is None or variant != "custom" else backbone.name
    name = type(model).__name__ if backbone is None else f"{config.model.name} on {network}"
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    num_frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    frozen = f", {num_frozen / 1e6:.2f} M of them frozen" if num_frozen else ""
    return f"{name}, {num_parameters / 1e6:.2f} M parameters{frozen}"


def build_data(config: ExperimentConfig, train_set: EvalSource, val_set: EvalSource) -> ImageDataModule:
    """The loaders that the settings ask for."""
    skips = config.data.on_bad_sample == "skip"
    return ImageDataModule(
        train_set,
        val_set,
        input_hw=config.data.input_hw,
        batch_size=config.data.num_images,
        augmentation=_augmentation(config),
        num_workers=config.data.num_workers,
        timeout=config.data.loader_timeout,
        max_epochs=config.trainer.max_epochs,
        seed=config.seed,
        bad_samples=BadSampleList(len(train_set), config.data.max_bad_fraction) if skips else None,
    )


def guard_data(config: ExperimentConfig, train_set: EvalSource, val_set: EvalSource) -> DataGuard:
    """What notices, when the run is resumed, that the data is another."""
    pipeline = TrainTransform(_augmentation(config)).pipeline_content
    fingerprints = {"train": fingerprint(train_set, pipeline), "val": fingerprint(val_set)}
    return DataGuard(fingerprints, config.data.on_change)


def _augmentation(config: ExperimentConfig) -> AugmentationConfig:
    """That of the settings; with `overfit_batches` letterbox only, and the rule that drops unusable boxes."""
    full = config.data.augmentation
    if not config.trainer.overfit_batches:
        return full
    return AugmentationConfig(horizontal_flip=0.0, min_visibility=full.min_visibility, min_box_size=full.min_box_size)
