"""Optimisers, with weight decay for weights alone and a learning rate of its own for a backbone; and schedules of the
rate as plain functions: a step in, a factor of the base rate out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from torch import nn, optim

from detseg.config.schema.experiment import (
    AdamConfig,
    AdamWConfig,
    CosineConfig,
    InverseTimeConfig,
    OneCycleConfig,
    OptimizerConfig,
    RmspropConfig,
    ScheduleConfig,
    SgdConfig,
    StepConfig,
)
from detseg.errors import ConfigError
from detseg.training.optim.freezing import stage_parameters


def build_optimizer(config: OptimizerConfig, model: nn.Module, held: Sequence[nn.Parameter] = ()) -> optim.Optimizer:
    """The optimiser that ``config`` describes, over two groups of parameters: weights (decayed), then biases and
    normalisation (not decayed), which have one dimension or none.

    Args:
        config: its kind, weight decay, learning rate, and that of the backbone; where it differs, the backbone's
            parameters are in two more groups behind the others, with ``layer_decay`` in two for each stage, the last
            stage first.
        model: its parameters without ``requires_grad`` are left out.
        held: parameters that will train later: they are there from the beginning, so that a checkpoint of any epoch
            fits; without a gradient, an optimiser leaves them as they are.

    Raises:
        ConfigError: another rate for a backbone that the model does not have, or that is always frozen; or rates for
            stages that it has not.
    """
    groups = _parameter_groups(model, config, held)
    match config:
        case SgdConfig():
            return optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
        case AdamConfig():
            return optim.Adam(groups, lr=config.lr, betas=config.betas)
        case AdamWConfig():
            return optim.AdamW(groups, lr=config.lr, betas=config.betas)
        case RmspropConfig():
            return optim.RMSprop(groups, lr=config.lr, momentum=config.momentum)


def _parameter_groups(
    model: nn.Module, config: OptimizerConfig, held: Sequence[nn.Parameter]
) -> list[dict[str, object]]:
    later = set(held)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad or parameter in later]
    parts = _parts_of_backbone(model, config)
    slow = set[nn.Parameter]().union(*(parameters for parameters, _ in parts))
    if parts and slow.isdisjoint(trained):
        why = "the whole backbone is always frozen, so it has no rate; leave it out"
        raise ConfigError(f"optimizer.{_rate_setting(config)}: {why}")
    rest = {parameter for parameter in trained if parameter not in slow}
    groups: list[dict[str, object]] = []
    for number, (parameters, scale) in enumerate([(rest, 1.0), *parts]):
        part, lr = [parameter for parameter in trained if parameter in parameters], config.lr * scale
        name = f"lr_backbone/{len(parts) - number + 1}" if number else "lr"  # of the rate, for trackers
        groups += [
            {"params": [p for p in part if p.ndim > 1], "weight_decay": config.weight_decay, "lr": lr, "name": name},
            {"params": [p for p in part if p.ndim <= 1], "weight_decay": 0.0, "lr": lr, "name": name},
        ]
    return groups


def _parts_of_backbone(model: nn.Module, config: OptimizerConfig) -> list[tuple[set[nn.Parameter], float]]:
    """The parts of the backbone that have a rate of their own, with its multiple of ``lr``."""
    scale, decay = config.backbone_lr_scale, config.layer_decay
    if scale == decay == 1:
        return []
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise ConfigError(f"optimizer.{_rate_setting(config)}: a {type(model).__name__} has no backbone; leave it out")
    if decay == 1:
        return [(set(backbone.parameters()), scale)]
    stages = [set(stage) for stage in stage_parameters(backbone, "optimizer.layer_decay") if stage]
    stages[-1] |= set(backbone.parameters()).difference(*stages)
    return [(stage, scale * decay**k) for k, stage in enumerate(reversed(stages), start=1)]


def _rate_setting(config: OptimizerConfig) -> str:
    return "backbone_lr_scale" if config.backbone_lr_scale != 1 else "layer_decay"


Schedule = Callable[[int], float]  # optimiser steps done → factor of the base learning rate


def build_schedule(config: ScheduleConfig, total_steps: int, steps_per_epoch: float) -> Schedule:
    """The schedule that ``config`` describes, over ``total_steps`` optimiser steps.

    Warm-up epochs turn into steps; a warm-up longer than half of the training is cut to that half, so that short runs
    train at all.
    """
    if isinstance(config, OneCycleConfig):
        return partial(_one_cycle, config, total_steps)
    warmup_steps = min(config.warmup_epochs * steps_per_epoch, total_steps / 2)
    match config:
        case CosineConfig():
            rest: Schedule = partial(_cosine, config, warmup_steps, total_steps)
        case StepConfig():
            rest = partial(_steps, config, total_steps)
        case InverseTimeConfig():
            rest = partial(_inverse_time, config, warmup_steps, total_steps)
    return partial(_warmed_up, rest, warmup_steps)


def _warmed_up(rest: Schedule, warmup_steps: float, step: int) -> float:
    """Linear climb to 1, then ``rest``."""
    return (step + 1) / (warmup_steps + 1) if step < warmup_steps else rest(step)


def _cosine(config: CosineConfig, start: float, end: int, step: int) -> float:
    return _blend(1.0, config.final_lr_fraction, _fraction_done(start, end, step))


def _steps(config: StepConfig, total_steps: int, step: int) -> float:
    fraction = _fraction_done(0, total_steps, step)
    return float(config.gamma ** sum(fraction >= milestone for milestone in config.milestones))


def _inverse_time(config: InverseTimeConfig, start: float, end: int, step: int) -> float:
    return 1 / (1 + config.decay * _fraction_done(start, end, step))


def _one_cycle(config: OneCycleConfig, total_steps: int, step: int) -> float:
    fraction = _fraction_done(0, total_steps, step)
    if fraction < config.pct_start:
        return _blend(config.initial_lr_fraction, 1.0, fraction / config.pct_start)
    return _blend(1.0, config.final_lr_fraction, (fraction - config.pct_start) / max(1 - config.pct_start, 1e-9))


def _fraction_done(start: float, end: int, step: int) -> float:
    """How much of the way from step ``start`` to step ``end`` is done, from 0 to 1."""
    return min((step - start) / max(end - start, 1), 1.0)


def _blend(start: float, end: float, fraction: float) -> float:
    """From ``start`` to ``end`` along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2
