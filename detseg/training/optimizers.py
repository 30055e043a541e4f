"""Optimisers, with weight decay where it belongs."""

from __future__ import annotations

from torch import nn, optim

from detseg.config.training import AdamConfig, AdamWConfig, OptimizerConfig, RmspropConfig, SgdConfig


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """The trainable parameters in two groups: weights (decayed), then biases and normalisation (not decayed).

    Decay pulls a weight towards zero because a smaller weight is a simpler function; for a bias or a normalisation's
    scale, which are vectors, it is not.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> optim.Optimizer:
    """The optimiser that ``config`` describes, over the trainable parameters of ``model``."""
    groups = parameter_groups(model, config.weight_decay)
    match config:
        case SgdConfig():
            return optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
        case AdamConfig():
            return optim.Adam(groups, lr=config.lr, betas=config.betas)
        case AdamWConfig():
            return optim.AdamW(groups, lr=config.lr, betas=config.betas)
        case RmspropConfig():
            return optim.RMSprop(groups, lr=config.lr, momentum=config.momentum)
