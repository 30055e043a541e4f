"""From settings, or from a checkpoint, to any model."""

from __future__ import annotations

from pathlib import Path

from detseg.checkpoint import ModelCheckpoint, read_model_checkpoint
from detseg.config.load import config_from_dict
from detseg.config.model import YoloConfig
from detseg.config.schema import ExperimentConfig
from detseg.config.segmentation import FcnConfig, UNetConfig
from detseg.errors import CheckpointError
from detseg.factory.segmentation import build_segmenter
from detseg.factory.yolo import build_detector
from detseg.models.segmentation.segmenter import SemanticSegmenter
from detseg.models.yolo.detector import YoloDetector

Model = YoloDetector | SemanticSegmenter


def build_model(config: YoloConfig | FcnConfig | UNetConfig, num_classes: int, load_pretrained: bool = True) -> Model:
    """The model that ``config`` describes, with weights at their start.

    Args:
        config: the ``model`` section; what is fitted to the data (anchors, class weights) must be given.
        num_classes: how many classes the data has.
        load_pretrained: fetch a pretrained backbone's weights; off where a checkpoint follows anyway.

    Raises:
        ConfigError: no such backbone, or a setting that does not apply.
    """
    match config:
        case YoloConfig():
            return build_detector(config, num_classes, load_pretrained)
        case FcnConfig() | UNetConfig():
            return build_segmenter(config, num_classes, load_pretrained)


def load_model(path: Path) -> tuple[Model, ExperimentConfig, ModelCheckpoint]:
    """The trained model of a checkpoint, in evaluation mode on the CPU, with its settings and what else it holds.

    Raises:
        CheckpointError: missing, damaged, or its weights do not fit its settings.
    """
    checkpoint = read_model_checkpoint(path)
    config = config_from_dict(checkpoint.config, where=str(path))
    model = build_model(config.model, len(checkpoint.classes), load_pretrained=False)
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        first = str(error).split("\n")[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointError(f"{path}: its weights do not fit its own settings ({first})") from error
    return model.eval(), config, checkpoint
