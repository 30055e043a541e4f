"""Exponential moving average of a model's weights (Polyak, Juditsky 1992; Tarvainen, Valpola 2017)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

_blend: Callable[[float], Callable[..., None]] = get_ema_multi_avg_fn


class WeightAverage(nn.Module):
    """A copy of a model whose floating-point state trails the model's; the copy is what is evaluated and predicts.

    It is an ``nn.Module``, so that the average is part of every checkpoint and moves with the task.

    Args:
        model: the model that trains.
        decay: fraction of the average that a step keeps, in [0, 1).
        warmup_steps: the decay is ``decay × (1 - exp(-step / warmup_steps))``; 0: ``decay`` from the first step.
    """

    def __init__(self, model: nn.Module, decay: float, warmup_steps: int) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay
        self.warmup_steps = warmup_steps

    def train(self, mode: bool = True) -> WeightAverage:
        """Stays in evaluation mode: nothing here trains."""
        return super().train(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards ``model`` after optimiser step number ``step`` (from 1)."""
        warm = 1 - math.exp(-step / self.warmup_steps) if self.warmup_steps else 1.0
        average, current = self.model.state_dict(), model.state_dict()
        floating = [name for name, value in average.items() if value.is_floating_point()]
        blend = _blend(self.decay * warm)
        blend([average[name] for name in floating], [current[name] for name in floating], step)
        for name in average.keys() - floating:
            average[name].copy_(current[name])
