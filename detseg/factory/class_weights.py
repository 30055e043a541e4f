"""The weights of the classes in the losses of detectors."""

from __future__ import annotations

import torch
from torch import Tensor

from detseg.config.schema.model import DetectorConfig
from detseg.errors import ConfigError


def class_weights(config: DetectorConfig, num_classes: int) -> Tensor | None:
    """(C,) float32 weights of the objects of each class; None: all 1. ConfigError: not one for each class, all 0, or
    not computed yet."""
    weights = config.class_weights
    if weights is None:
        return None
    if isinstance(weights, str):
        raise ConfigError("model.class_weights: not computed yet; give numbers, or train from a settings file")
    if len(weights) != num_classes or not any(weights):
        what = f"a weight for each of the {num_classes} classes, not all 0"
        raise ConfigError(f"model.class_weights: expected {what}, got {list(weights)}")
    return torch.tensor(weights)
