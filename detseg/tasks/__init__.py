"""The kinds of task: all that differs between them is named in the file of each.

A new model family has its `case` here and in `detseg/factory/__init__.py`.
"""

from __future__ import annotations

from detseg.config.schema import model as schema
from detseg.tasks.detection import Detection, InstanceSegmentation
from detseg.tasks.kind import AnyDataset, TaskKind
from detseg.tasks.semantic import SemanticSegmentation

__all__ = ["AnyDataset", "Detection", "InstanceSegmentation", "SemanticSegmentation", "TaskKind", "kind_of"]


def kind_of(model: schema.ModelConfig) -> TaskKind:
    """The kind of task that a model is for; ``model``: the ``model`` section of the settings."""
    match model:
        case schema.YoloConfig() | schema.FasterRcnnConfig() | schema.CustomModelConfig(task="detection"):
            return Detection()
        case schema.MaskRcnnConfig() | schema.CustomModelConfig(task="instance"):
            return InstanceSegmentation()
        case schema.FcnConfig() | schema.UNetConfig() | schema.CustomModelConfig(task="semantic"):
            return SemanticSegmentation()
    raise TypeError(f"model: expected a section of settings, got {type(model).__name__}")
