"""The composition root: settings → data, task, callbacks, Trainer."""

from __future__ import annotations

from detseg.experiment.run import train
from detseg.experiment.trainer import build_trainer

__all__ = ["build_trainer", "train"]
