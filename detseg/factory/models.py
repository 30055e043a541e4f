"""From settings, or from a checkpoint, to any model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from detseg.checkpoint import ModelCheckpoint, read_model_checkpoint
from detseg.config.load import config_from_dict
from detseg.config.model import YoloConfig
from detseg.config.rcnn import FasterRcnnConfig, MaskRcnnConfig
from detseg.config.schema import ExperimentConfig
from detseg.config.segmentation import FcnConfig, UNetConfig
from detseg.errors import CheckpointError
from detseg.factory.rcnn import build_rcnn
from detseg.factory.segmentation import build_segmenter
from detseg.factory.yolo import build_detector
from detseg.models.rcnn.detector import RCNNDetector
from detseg.models.segmentation.segmenter import SemanticSegmenter
from detseg.models.yolo.detector import YoloDetector
from detseg.structures import ClassTable

Model = YoloDetector | RCNNDetector | SemanticSegmenter


def _silent(line: str) -> None:
    """Tells nobody."""


def build_model(
    config: YoloConfig | FasterRcnnConfig | MaskRcnnConfig | FcnConfig | UNetConfig,
    classes: ClassTable,
    load_pretrained: bool = True,
    say: Callable[[str], None] = _silent,
) -> Model:
    """The model that ``config`` describes, with weights at their start.

    Args:
        config: the ``model`` section; what is fitted to the data (anchors, class weights) must be given.
        classes: of the data.
        load_pretrained: fetch published weights where the settings ask for them; off where a checkpoint follows anyway.
        say: is told, in lines, what was loaded of a published detector.

    Raises:
        ConfigError: no such backbone, or a setting that does not apply.
        DetsegError: published weights could not be loaded.
    """
    match config:
        case YoloConfig():
            return build_detector(config, len(classes), load_pretrained)
        case FasterRcnnConfig() | MaskRcnnConfig():
            return build_rcnn(config, classes, load_pretrained, say)
        case FcnConfig() | UNetConfig():
            return build_segmenter(config, len(classes), load_pretrained)


def load_model(path: Path) -> tuple[Model, ExperimentConfig, ModelCheckpoint]:
    """The trained model of a checkpoint, in evaluation mode on the CPU, with its settings and what else it holds.

    Raises:
        CheckpointError: missing, damaged, or its weights do not fit its settings.
    """
    checkpoint = read_model_checkpoint(path)
    config = config_from_dict(checkpoint.config, where=str(path))
    model = build_model(config.model, checkpoint.classes, load_pretrained=False)
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        first = str(error).split("\n")[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointError(f"{path}: its weights do not fit its own settings ({first})") from error
    return model.eval(), config, checkpoint
