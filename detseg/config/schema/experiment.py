"""Every setting of an experiment: name, type, range, default and, in its docstring, what ``--help`` and docs/ say.

The schema does not import torch, so that a wrong setting is reported before torch loads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from detseg.config.schema.data import DataConfig
from detseg.config.schema.model import CustomModelConfig, YoloConfig
from detseg.config.schema.rcnn import FasterRcnnConfig, MaskRcnnConfig
from detseg.config.schema.section import NonNegativeInt, Section
from detseg.config.schema.segmentation import FcnConfig, UNetConfig
from detseg.config.schema.training import (
    AdamWConfig,
    CosineConfig,
    EvaluationConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainerConfig,
)

DetectorConfig = YoloConfig | FasterRcnnConfig | MaskRcnnConfig
"""Models that detect objects."""

SegmenterConfig = FcnConfig | UNetConfig
"""Models that predict the class of each pixel."""

ModelConfig = Annotated[DetectorConfig | SegmenterConfig | CustomModelConfig, Field(discriminator="name")]


class ExperimentConfig(Section):
    """One experiment: model, data, training, evaluation."""

    seed: NonNegativeInt = 0
    """Seed of the weights and of every random choice."""
    run_dir: Path | None = None
    """Where this run writes; null: `runs/<name of the config file>`, with a number added if that exists."""
    model: ModelConfig = YoloConfig()
    data: DataConfig
    optimizer: OptimizerConfig = AdamWConfig()
    schedule: ScheduleConfig = CosineConfig()
    trainer: TrainerConfig = TrainerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
