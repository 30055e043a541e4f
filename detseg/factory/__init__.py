"""From settings, or from a checkpoint, to models: explicit matches that one can click through."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from detseg.checkpoint import ModelCheckpoint, read_model_checkpoint
from detseg.config.load import config_from_dict, without_download
from detseg.config.schema import model as schema
from detseg.config.schema.experiment import ExperimentConfig
from detseg.errors import CheckpointError, ConfigError, ForeignFileError, check_row, check_type
from detseg.factory.rcnn import build_rcnn
from detseg.factory.segmentation import build_segmenter
from detseg.factory.transfer import take_weights
from detseg.factory.yolo import build_detector
from detseg.messages import one_line
from detseg.models.rcnn.detector import RCNNDetector
from detseg.models.segmentation import SemanticSegmenter
from detseg.models.yolo.detector import YoloDetector
from detseg.structures import ClassTable

logger = logging.getLogger("detseg")

Model = YoloDetector | RCNNDetector | SemanticSegmenter


def build_model(config: schema.ModelConfig, classes: ClassTable, load_pretrained: bool = True) -> Model:
    """The model that ``config`` describes, with weights at their start.

    Args:
        config: the ``model`` section; what is fitted to the data (anchors, class weights) must be given.
        classes: of the data.
        load_pretrained: fetch published weights where the settings ask for them; off where a checkpoint follows anyway.

    Raises:
        ConfigError: no such backbone or variant, or a setting that does not apply to it, to the classes or to another.
        DetsegError: published weights could not be loaded.
    """
    if isinstance(config, schema.CustomModelConfig):
        raise ConfigError("model.name: custom is a module that Python gives to detseg.train; name a model instead")
    if isinstance(config.weights, Path) and (config.backbone.weights is not None or config.backbone.pretrained):
        raise ConfigError("model.weights: has a backbone, too; leave out model.backbone.weights and pretrained")
    model: Model
    match config:
        case schema.YoloConfig():
            model = build_detector(config, len(classes), load_pretrained)
        case schema.FasterRcnnConfig() | schema.MaskRcnnConfig():
            model = build_rcnn(config, classes, load_pretrained)
        case schema.FcnConfig() | schema.UNetConfig():
            model = build_segmenter(config, len(classes), load_pretrained)
    if isinstance(config.weights, Path) and load_pretrained:
        _begin_with(model, classes, config.weights)
    return model


def _begin_with(model: Model, classes: ClassTable, path: Path) -> None:
    """Take the weights of a checkpoint, and say what became of each tensor."""
    if path == Path("coco") and not path.exists():
        what = "coco are published weights of the variants of faster_rcnn and mask_rcnn, of other models there are none"
        raise ConfigError(f"model.weights: {what}; give a checkpoint, or model.backbone.weights")
    try:
        source, _, checkpoint = load_model(path)
        assert isinstance(source, Model)
        found = take_weights(model, classes, source, checkpoint.classes)
    except CheckpointError as error:
        text = str(error).removeprefix(f"{path}: ")
        if isinstance(error, ForeignFileError):
            text += "; a file of timm, torchvision or another program goes to model.backbone.weights"
        raise CheckpointError(f"model.weights: {path}: {text}") from None
    for line in found.lines():
        logger.info(f"weights: {path}: {line}")


@dataclass(frozen=True)
class BuiltFrom:
    """What a model was built from (its attribute ``built_from``), by which checkpoints describe it."""

    config: schema.ModelConfig
    classes: ClassTable


def build_named_model(
    name: str,
    classes: ClassTable | Sequence[str],
    backbone: str | None = None,
    *,
    weights: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Model:
    """Build a model by the names and settings of the configuration files: ``detseg.build_model``.

    Args:
        name: ``yolo``, ``faster_rcnn``, ``mask_rcnn``, ``fcn`` or ``unet``.
        classes: of the data: ``train_set.classes``, or names in label order; of fcn and unet with the background.
        backbone: ``csp_nano``, ``unet``, or any timm model with feature maps, such as ``resnet18``; None: the usual one
            of the model.
        weights: a checkpoint of detseg's to begin with, also of other classes; None: random.
        settings: other settings of the model by their dotted names below ``model`` (docs/configuration.md), such as
            ``{"backbone.pretrained": True, "head.name": "grid"}``.

    Returns:
        A module that keeps the ``Detector`` or ``Segmenter`` contract (``detseg.models.interface``).

    Raises:
        ConfigError: a setting is wrong; one line for each.
        DetsegError: weights could not be loaded.
    """
    if not isinstance(classes, ClassTable):
        check_row("classes", classes, str, "a table or names, such as ['person']")
        try:
            classes = ClassTable(tuple(classes))
        except ValueError as error:
            raise ConfigError(f"classes: {error}") from None
    if not len(classes):
        raise ConfigError("classes: expected at least one name, got none")
    check_type("settings", settings, Mapping | None, 'a mapping, such as {"backbone.pretrained": True}')
    given = {f"model.{key}": value for key, value in (settings or {}).items()}
    if backbone is not None:
        given["model.backbone.name"] = backbone
    if weights is not None:
        given["model.weights"] = str(weights)
    config = config_from_dict({"model": {"name": name}, "data": {"name": "custom"}}, "build_model", given).model
    model: Any = build_model(config, classes)
    model.built_from = BuiltFrom(config, classes)
    return model  # type: ignore[no-any-return]  # nn.Module declares that all its attributes are modules


def load_model(path: Path, model: nn.Module | None = None) -> tuple[nn.Module, ExperimentConfig, ModelCheckpoint]:
    """The trained model of a checkpoint, in evaluation mode on the CPU, with its settings and what else it holds.

    Args:
        path: a ``.ckpt`` or ``.safetensors`` file, or a run directory, whose best checkpoint counts.
        model: gets the weights, and is returned; None: the model that the checkpoint's settings describe.

    Raises:
        CheckpointError: missing, damaged, its weights do not fit the model, or are NaN or infinite; or the model is a
            module of the user's own, and not given.
    """
    check_type("model", model, nn.Module | None, "a module, such as MyModel()")
    checkpoint = read_model_checkpoint(path)
    config = config_from_dict(without_download(checkpoint.config), where=str(path))
    whose = "its own settings" if model is None else f"the {type(model).__name__}"
    if model is None and isinstance(config.model, schema.CustomModelConfig):
        raise CheckpointError(f"{path}: holds the weights of a module of your own; give it in Python: model=MyModel()")
    try:
        if model is None:
            model = build_model(config.model, checkpoint.classes, load_pretrained=False)
    except (ValueError, TypeError, RuntimeError) as error:  # the last two: of sizes that no tensor has
        raise CheckpointError(f"{path}: its settings make no model: {one_line(error)}") from error
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        lines = str(error).split("\n")  # the first says that there are errors
        reason = one_line(RuntimeError(lines[1] if len(lines) > 1 else lines[0]))
        raise CheckpointError(f"{path}: its weights do not fit {whose} ({reason})") from error
    weights = checkpoint.weights
    # Nothing is found with such weights, which would pass for images without objects.
    bad = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise CheckpointError(
            f"{path}: NaN or infinite in {len(bad)} of {len(weights)} tensors, first in {bad[0]}: the training had "
            f"diverged; take an earlier checkpoint, or train again with a lower optimizer.lr"
        )
    return model.eval(), config, checkpoint
