"""What a search looks for: the best accuracy, alone, with low values of a second metric (Pareto), or within a limit of
it (an optimising and a satisficing metric; Ng, Machine Learning Yearning, chapter 9); and how a trial is measured."""

from __future__ import annotations

import gc
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from detseg.benchmark import benchmark
from detseg.checkpoint import BEST, FOLDER
from detseg.config.load import load_config
from detseg.config.schema.experiment import ExperimentConfig
from detseg.errors import ConfigError, DataError
from detseg.factory import load_model
from detseg.messages import did_you_mean, quoted
from detseg.training.callbacks.run_files import best_epoch
from detseg.training.callbacks.stopping import StopByValidation, StopRequest
from detseg.training.run import train
from detseg.training.setup.build import Own

COSTS = ("latency_ms", "parameters")
"""Metrics beside the accuracy: milliseconds for an image on this machine, from the array to the result; parameters."""


@dataclass(frozen=True)
class Goal:
    """What a search looks for.

    Attributes:
        criterion: the metric of the validations, higher is better.
        cost: one of ``COSTS``, lower is better; None: nothing beside the criterion.
        limit: what the cost must not exceed; None: the search is for the trade-offs.
    """

    criterion: str
    cost: str | None = None
    limit: float | None = None

    @property
    def has_trade_off(self) -> bool:
        """Whether there are two metrics to improve."""
        return self.cost is not None and self.limit is None

    @property
    def objectives(self) -> list[str]:
        """The metrics to improve."""
        return self.names if self.has_trade_off else [self.criterion]

    @property
    def names(self) -> list[str]:
        """The metrics of a trial."""
        return [self.criterion, *([] if self.cost is None else [self.cost])]

    def allows(self, values: Mapping[str, float]) -> bool:
        """Whether the values are within the limit."""
        return self.cost is None or self.limit is None or values[self.cost] <= self.limit


def goal_of(criterion: str, minimize: str | None, subject_to: str | None) -> Goal:
    """The goal of a command line: ``latency_ms``, or ``latency_ms<20``; ConfigError: there is no such metric."""
    if subject_to is None:
        if minimize is not None and minimize not in COSTS:
            raise ConfigError(f"--minimize: expected {' or '.join(COSTS)}, got {_wrong(minimize)}")
        return Goal(criterion, minimize)
    parts = re.fullmatch(r"\s*(\w+)\s*<=?\s*((?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*", subject_to)
    if ">" in subject_to:
        raise ConfigError(f"--subject-to: a limit is what a cost must not exceed: write '<', got {quoted(subject_to)}")
    if parts is None or parts[1] not in COSTS:
        name = parts[1] if parts else subject_to
        raise ConfigError(
            f"--subject-to: expected a limit of {' or '.join(COSTS)}, such as 'latency_ms<20', got {_wrong(name)}"
        )
    return Goal(criterion, parts[1], float(parts[2]))


def metrics_text(metrics: Mapping[str, float]) -> str:
    """``AP 0.412, latency_ms 12.3``."""
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def train_and_measure(
    config: ExperimentConfig, goal: Goal, is_enough: Callable[[int, float], bool], stop: StopRequest
) -> dict[str, float]:
    """Train, or resume what a killed process has left in the run directory; returns the metrics of the best epoch.

    Args:
        config: of the trial, with its ``run_dir``.
        goal: the metrics.
        is_enough: epoch (from 1) and criterion of a validation → whether the training ends there.
        stop: by which the training is asked to stop.

    Raises:
        DetsegError: the training failed, or the criterion is not defined.
        RunStoppedError: it was asked to stop, and has saved itself.
    """
    metric = f"val/{goal.criterion}"
    own = Own(callbacks=[StopByValidation(metric, is_enough)], stop=stop)
    try:
        run_dir = train(config, Path(f"{config.run_dir}/config.yaml"), "auto", own)
    finally:
        gc.collect()  # of a training that has ended, cycles of references keep the model in memory
    row = best_epoch(run_dir / "metrics.csv", metric)
    if not row or math.isnan(value := float(row[metric])):
        raise DataError(f"{goal.criterion} is not defined: the validation images have nothing to find")
    return {goal.criterion: value, **({} if goal.cost is None else {goal.cost: _cost(goal.cost, run_dir)})}


def _wrong(name: str) -> str:
    return f"{quoted(name)}{did_you_mean(name, COSTS)}"


def _cost(name: str, run_dir: Path) -> float:
    checkpoint = run_dir / FOLDER / BEST
    if name == "parameters":
        return float(sum(parameter.numel() for parameter in load_model(checkpoint)[0].parameters()))
    results, _ = benchmark(load_config(run_dir / "config.yaml"), ["predictor"], checkpoint=checkpoint)
    median = results.median("predictor", "an image")
    assert median is not None
    return median
