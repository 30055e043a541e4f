"""Checkpoints of models, as training writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from detseg.checkpoint import ENTRY, model_entry, save_atomically
from detseg.config.load import config_from_dict
from detseg.structures import ClassTable


def write_checkpoint(path: Path, model: dict[str, Any], weights: dict[str, Tensor], classes: ClassTable) -> Path:
    """A checkpoint of a model with these settings; returns its path."""
    settings = config_from_dict({"model": model, "data": {"name": "shapes"}}, where="test").model_dump(mode="json")
    state = {f"model.{name}": value for name, value in weights.items()}
    save_atomically({ENTRY: model_entry(settings, classes), "state_dict": state, "epoch": 4}, path)
    return path
