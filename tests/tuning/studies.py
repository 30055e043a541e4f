"""Searches whose trials take no time: the accuracy follows from the settings by a formula."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.strict_yaml import read_yaml
from detseg.errors import DetsegError, RunStoppedError
from detseg.training.callbacks.stopping import StopRequest
from detseg.tuning.objective import Goal
from detseg.tuning.search import tune
from detseg.tuning.space import read_space
from detseg.tuning.study import Plan

CONFIG = "data: {name: voc, root: data/voc}\ntrainer: {max_epochs: 6}\n"
SPACE = """\
optimizer.lr: {log_uniform: [1e-5, 1e-1]}
model.backbone.name: {categorical: [csp_nano, csp_small]}
"""


def plan_of(
    folder: Path, num_trials: int = 6, space: str = SPACE, overrides: tuple[str, ...] = (), **changes: Any
) -> Plan:
    """A plan, whose files are written into a folder; each process has its own."""
    config, path = (folder / f"{name}{os.getpid()}.yaml" for name in ("mine", "space"))
    config.write_text(CONFIG, encoding="utf-8")
    path.write_text(space, encoding="utf-8")
    settings: dict[str, Any] = {"goal": Goal("AP"), "sampler": "tpe", "prune": True} | changes
    return Plan("mine.yaml", read_yaml(config), overrides, read_space(path), num_trials=num_trials, **settings)


def accuracy(config: ExperimentConfig) -> float:
    """1 at a rate of 0.003, 0 a hundred times from it; a tenth less with another backbone."""
    distance = abs(math.log10(config.optimizer.lr / 3e-3)) / 2
    return max(0.0, 1 - distance) * (1.0 if config.model.backbone.name == "csp_nano" else 0.9)  # type: ignore[union-attr]  # it has one


def formula(
    config: ExperimentConfig, goal: Goal, is_enough: Callable[[int, float], bool], stop: StopRequest
) -> dict[str, float]:
    """Stands for a training: the accuracy is nearly that of the end from the first epoch on."""
    assert config.run_dir is not None
    config.run_dir.mkdir(parents=True, exist_ok=True)
    for epoch in range(1, config.trainer.max_epochs + 1):
        if stop.reason is not None:
            reason, stop.reason = stop.reason, None
            raise RunStoppedError(f"stopped {reason} after step {epoch}; everything is saved")
        if is_enough(epoch, accuracy(config) * epoch / (epoch + 1)):
            break
    costs = {"latency_ms": 1000 * config.optimizer.lr, "parameters": 1e6}
    return {name: costs.get(name, accuracy(config)) for name in goal.names}


def slow_and_killed_once(
    config: ExperimentConfig, goal: Goal, is_enough: Callable[[int, float], bool], stop: StopRequest
) -> dict[str, float]:
    """The formula in a third of a second; the process that is the first to carry out trial 2 is killed."""
    assert config.run_dir is not None
    time.sleep(0.3)
    if config.run_dir.name == "trial_0002" and not config.run_dir.exists():
        config.run_dir.mkdir()
        os.kill(os.getpid(), signal.SIGKILL)
    return formula(config, goal, is_enough, stop)


def failing(config: ExperimentConfig, goal: Goal, is_enough: Any, stop: StopRequest) -> dict[str, float]:
    """A trial that fails by its settings."""
    raise DetsegError(f"{config.run_dir}: no such data")


def run_process(folder: Path, num_trials: int) -> None:
    """What each of several processes does."""
    tune(plan_of(folder, num_trials), folder / "study", beat=1, carry_out=slow_and_killed_once)


def run_killed(folder: Path) -> None:
    """A process that is killed in its trial."""

    def killed(*_: Any) -> dict[str, float]:
        os._exit(9)

    tune(plan_of(folder, 1), folder / "study", beat=1, carry_out=killed)
