"""From settings, or from a checkpoint, to models: explicit matches that one can click through."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from detseg.checkpoint import ModelCheckpoint, read_model_checkpoint
from detseg.config.load import config_from_dict, without_download
from detseg.config.schema.experiment import ExperimentConfig, ModelConfig
from detseg.config.schema.model import (
    CustomModelConfig,
    FasterRcnnConfig,
    FcnConfig,
    MaskRcnnConfig,
    UNetConfig,
    YoloConfig,
)
from detseg.errors import CheckpointError, ConfigError
from detseg.factory.backbones import build_backbone, build_neck
from detseg.factory.rcnn import build_rcnn
from detseg.factory.segmentation import build_criterion, build_segmenter
from detseg.factory.yolo import build_detector, build_scheme, head_strides
from detseg.messages import one_line
from detseg.models.rcnn.detector import RCNNDetector
from detseg.models.segmentation.segmenter import SemanticSegmenter
from detseg.models.yolo.detector import YoloDetector
from detseg.structures import ClassTable

__all__ = [
    "Model",
    "build_backbone",
    "build_criterion",
    "build_detector",
    "build_model",
    "build_neck",
    "build_rcnn",
    "build_scheme",
    "build_segmenter",
    "head_strides",
    "load_model",
]

Model = YoloDetector | RCNNDetector | SemanticSegmenter


def build_model(
    config: ModelConfig,
    classes: ClassTable,
    load_pretrained: bool = True,
) -> Model:
    """The model that ``config`` describes, with weights at their start.

    Args:
        config: the ``model`` section; what is fitted to the data (anchors, class weights) must be given.
        classes: of the data.
        load_pretrained: fetch published weights where the settings ask for them; off where a checkpoint follows anyway.

    Raises:
        ConfigError: no such backbone or variant, or a setting that does not apply to it, to the classes or to another.
        DetsegError: published weights could not be loaded.
    """
    match config:
        case YoloConfig():
            return build_detector(config, len(classes), load_pretrained)
        case FasterRcnnConfig() | MaskRcnnConfig():
            return build_rcnn(config, classes, load_pretrained)
        case FcnConfig() | UNetConfig():
            return build_segmenter(config, len(classes), load_pretrained)
        case CustomModelConfig():
            raise ConfigError("model.name: custom is a module that Python gives to detseg.train; name a model instead")


def load_model(path: Path, model: nn.Module | None = None) -> tuple[nn.Module, ExperimentConfig, ModelCheckpoint]:
    """The trained model of a checkpoint, in evaluation mode on the CPU, with its settings and what else it holds.

    Args:
        path: a ``.ckpt`` or ``.safetensors`` file.
        model: gets the weights, and is returned; None: the model that the checkpoint's settings describe.

    Raises:
        CheckpointError: missing, damaged, its weights do not fit the model, or are NaN or infinite; or the model is a
            module of the user's own, and not given.
    """
    checkpoint = read_model_checkpoint(path)
    config = config_from_dict(without_download(checkpoint.config), where=str(path))
    whose = "its own settings" if model is None else f"the {type(model).__name__}"
    if model is None and isinstance(config.model, CustomModelConfig):
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
