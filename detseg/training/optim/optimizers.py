"""Optimisers, with weight decay for weights alone, and a learning rate of its own for a backbone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn, optim

from detseg.config.schema.experiment import AdamConfig, AdamWConfig, OptimizerConfig, RmspropConfig, SgdConfig
from detseg.errors import ConfigError


def vectors(model: nn.Module) -> frozenset[nn.Parameter]:
    """Biases and normalisation: the parameters of one dimension or none; to be asked before they are sharded."""
    return frozenset(parameter for parameter in model.parameters() if parameter.ndim <= 1)


def parameter_groups(
    model: nn.Module,
    config: OptimizerConfig,
    held: Sequence[nn.Parameter] = (),
    undecayed: frozenset[nn.Parameter] | None = None,
) -> list[dict[str, object]]:
    """The parameters that train in two groups: weights (decayed), then biases and normalisation (not decayed).

    Args:
        model: its parameters without ``requires_grad`` are left out.
        config: weight decay, learning rate, and that of the ``backbone``; where it differs, the backbone's parameters
            are in two more groups behind the others.
        held: parameters that will train later: they are there from the beginning, so that a checkpoint of any epoch
            fits; without a gradient, an optimiser leaves them as they are.
        undecayed: the model's ``vectors``; None: found here.

    Raises:
        ConfigError: another rate for the backbone of a model without one.
    """
    later = set(held)
    undecayed = vectors(model) if undecayed is None else undecayed
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad or parameter in later]
    slow: set[nn.Parameter] = set()
    if config.backbone_lr_scale != 1:
        backbone = getattr(model, "backbone", None)
        if not isinstance(backbone, nn.Module):
            raise ConfigError(f"optimizer.backbone_lr_scale: a {type(model).__name__} has no backbone; leave it out")
        slow = set(backbone.parameters())
    groups: list[dict[str, object]] = []
    for is_slow, lr in ((False, config.lr), (True, config.lr * config.backbone_lr_scale))[: 2 if slow else 1]:
        part = [p for p in trained if (p in slow) is is_slow]
        groups += [
            {"params": [p for p in part if p not in undecayed], "weight_decay": config.weight_decay, "lr": lr},
            {"params": [p for p in part if p in undecayed], "weight_decay": 0.0, "lr": lr},
        ]
    return groups


def build_optimizer(
    config: OptimizerConfig,
    model: nn.Module,
    held: Sequence[nn.Parameter] = (),
    undecayed: frozenset[nn.Parameter] | None = None,
) -> optim.Optimizer:
    """The optimiser that ``config`` describes, over the groups of ``parameter_groups``."""
    groups = parameter_groups(model, config, held, undecayed)
    match config:
        case SgdConfig():
            return optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
        case AdamConfig():
            return optim.Adam(groups, lr=config.lr, betas=config.betas)
        case AdamWConfig():
            return optim.AdamW(groups, lr=config.lr, betas=config.betas)
        case RmspropConfig():
            return optim.RMSprop(groups, lr=config.lr, momentum=config.momentum)
