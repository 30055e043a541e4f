"""The kinds of task: all that differs between them is named in the file of each.

A new model family has its `case` here and in `detseg/factory/__init__.py`.
"""

from __future__ import annotations

from detseg.config.schema.experiment import ModelConfig
from detseg.config.schema.model import (
    CustomModelConfig,
    FasterRcnnConfig,
    FcnConfig,
    MaskRcnnConfig,
    UNetConfig,
    YoloConfig,
)
from detseg.tasks.detection import Detection, InstanceSegmentation
from detseg.tasks.kind import AnyDataset, TaskKind
from detseg.tasks.semantic import SemanticSegmentation

__all__ = ["AnyDataset", "Detection", "InstanceSegmentation", "SemanticSegmentation", "TaskKind", "kind_of"]


def kind_of(model: ModelConfig) -> TaskKind:
    """The kind of task that a model is for; ``model``: the ``model`` section of the settings."""
    match model:
        case YoloConfig() | FasterRcnnConfig() | CustomModelConfig(task="detection"):
            return Detection()
        case MaskRcnnConfig() | CustomModelConfig(task="instance"):
            return InstanceSegmentation()
        case FcnConfig() | UNetConfig() | CustomModelConfig(task="semantic"):
            return SemanticSegmentation()
    raise TypeError(f"model: expected a section of settings, got {type(model).__name__}")
