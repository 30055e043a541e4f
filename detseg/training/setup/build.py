"""From settings to a task and its data."""

from __future__ import annotations

from torch import nn

from detseg.config.load import config_to_dict
from detseg.config.schema.data import AugmentationConfig
from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.model import FasterRcnnConfig, FcnConfig, MaskRcnnConfig, UNetConfig, YoloConfig
from detseg.data.augment.pipeline import TrainTransform
from detseg.data.datasets.bad_samples import BadSampleList
from detseg.data.datasets.contract import EvalSource
from detseg.data.datasets.fingerprint import fingerprint
from detseg.factory import build_model
from detseg.models.compile import compile_networks
from detseg.structures import ClassTable
from detseg.tasks.detection import DetectionTask
from detseg.tasks.instance import InstanceTask
from detseg.tasks.semantic import SegmentationTask
from detseg.training.datamodule import ImageDataModule
from detseg.training.distributed.strategy import with_synchronised_norm
from detseg.training.nan.guard import StepGuard
from detseg.training.resume.compatible import DataGuard
from detseg.training.setup.preparation import AnyDataset
from detseg.training.task import Task


def build_task(config: ExperimentConfig, classes: ClassTable, load_pretrained: bool) -> Task:
    """The model that the settings describe, in the task that trains its kind.

    Args:
        config: the settings; what follows from the data is filled in.
        classes: of the data.
        load_pretrained: fetch published weights where the settings ask for them; off where a checkpoint follows anyway.

    Raises:
        ConfigError: the model cannot be built.
        DetsegError: published weights could not be loaded.
    """
    model = build_model(config.model, classes, load_pretrained)
    if config.trainer.sync_batchnorm:
        model = with_synchronised_norm(model)
    task = _task_class(config)(
        model,
        classes,
        config.optimizer,
        config.schedule,
        config.evaluation,
        config.trainer.ema_decay,
        config.trainer.ema_warmup_steps,
        config_to_dict(config),
        config.model.backbone,
        StepGuard(config.trainer.on_nan, config.trainer.max_nan_steps),
    )
    if config.trainer.compile:
        compile_networks(model)
    return task


def describe_model(config: ExperimentConfig, model: nn.Module) -> str:
    """The model in one line: its kind, its backbone or the published network, its size."""
    variant = getattr(config.model, "variant", "custom")
    network = config.model.backbone.name if variant == "custom" else f"{variant} (a published network)"
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return f"{config.model.name} on {network}, {num_parameters / 1e6:.2f} M parameters"


def _task_class(config: ExperimentConfig) -> type[Task]:
    match config.model:
        case MaskRcnnConfig():
            return InstanceTask
        case YoloConfig() | FasterRcnnConfig():
            return DetectionTask
        case FcnConfig() | UNetConfig():
            return SegmentationTask


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
        max_epochs=config.trainer.max_epochs,
        seed=config.seed,
        bad_samples=BadSampleList(len(train_set), config.data.max_bad_fraction) if skips else None,
    )


def guard_data(config: ExperimentConfig, train_set: AnyDataset, val_set: AnyDataset) -> DataGuard:
    """What notices, when the run goes on, that the data is another."""
    pipeline = TrainTransform(_augmentation(config)).pipeline_content
    return DataGuard(
        {"train": fingerprint(train_set, pipeline), "val": fingerprint(val_set)},
        config.data.on_change,
    )


def _augmentation(config: ExperimentConfig) -> AugmentationConfig:
    """That of the settings; with `overfit_batches` letterbox only, and the rule that drops unusable boxes."""
    full = config.data.augmentation
    if not config.trainer.overfit_batches:
        return full
    return AugmentationConfig(horizontal_flip=0.0, min_visibility=full.min_visibility, min_box_size=full.min_box_size)
