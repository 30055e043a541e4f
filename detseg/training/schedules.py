"""Learning-rate schedules as plain functions: a step in, a factor of the base rate out."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from detseg.config.training import (
    CosineConfig,
    InverseTimeConfig,
    OneCycleConfig,
    ScheduleConfig,
    StepConfig,
)

Schedule = Callable[[int], float]
"""Optimiser steps done → factor of the base learning rate."""


def build_schedule(config: ScheduleConfig, total_steps: int, steps_per_epoch: float) -> Schedule:
    """The schedule that ``config`` describes, over ``total_steps`` optimiser steps.

    Warm-up epochs turn into steps; a warm-up longer than half of the training is cut to that half, so that short runs
    train at all.
    """
    match config:
        case OneCycleConfig():
            return partial(_one_cycle, config, total_steps)
        case CosineConfig():
            decay: Callable[[float], float] = partial(_cosine, config)
        case StepConfig():
            decay = partial(_steps, config)
        case InverseTimeConfig():
            decay = partial(_inverse_time, config)
    warmup_steps = min(config.warmup_epochs * steps_per_epoch, total_steps / 2)
    return partial(_warmed_up, decay, warmup_steps, total_steps)


def _warmed_up(decay: Callable[[float], float], warmup_steps: float, total_steps: int, step: int) -> float:
    """Linear climb to 1, then ``decay`` of the share of the remaining steps that are done."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return decay(min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0))


def _cosine(config: CosineConfig, progress: float) -> float:
    return config.final_share + (1 - config.final_share) * (1 + math.cos(math.pi * progress)) / 2


def _steps(config: StepConfig, progress: float) -> float:
    return float(config.gamma ** sum(progress >= milestone for milestone in config.milestones))


def _inverse_time(config: InverseTimeConfig, progress: float) -> float:
    return 1 / (1 + config.decay * progress)


def _one_cycle(config: OneCycleConfig, total_steps: int, step: int) -> float:
    progress = min(step / max(total_steps, 1), 1.0)
    if progress < config.rise_share:
        return _blend(config.initial_share, 1.0, progress / config.rise_share)
    return _blend(1.0, config.final_share, (progress - config.rise_share) / max(1 - config.rise_share, 1e-9))


def _blend(start: float, end: float, share: float) -> float:
    """From ``start`` to ``end`` along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
