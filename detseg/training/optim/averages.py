"""Running averages: of a model's weights (Polyak, Juditsky 1992; Tarvainen, Valpola 2017), and of the first batches of
a batch norm that begins without statistics."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from detseg.training.optim.freezing import NORMALIZATION


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
        self.decay, self.warmup_steps = decay, warmup_steps

    def train(self, mode: bool = True) -> WeightAverage:
        """Stays in evaluation mode: nothing here trains."""
        return super().train(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards ``model`` after optimiser step number ``step`` (from 1)."""
        warm = 1 - math.exp(-step / self.warmup_steps) if self.warmup_steps else 1.0
        average, current = self.model.state_dict(), model.state_dict()
        floating = [name for name, value in average.items() if value.is_floating_point()]
        blend = get_ema_multi_avg_fn(self.decay * warm)  # type: ignore[no-untyped-call]  # torch states no types
        blend([average[name] for name in floating], [current[name] for name in floating], step)
        for name in average.keys() - floating:
            average[name].copy_(current[name])


class BatchNormWarmup:
    """Lets batch norm that has seen no batch (mean 0 and variance 1 are made up) take the plain average of its batches
    until its momentum takes over: a variance of 1 beside true ones of a thousandth would be felt for hundreds of steps.
    ``num_batches_tracked`` does not tell: files of weights that were converted from other frameworks have 0.
    """

    def __init__(self, model: nn.Module) -> None:
        self._norms = {
            name: (module, float(module.momentum))
            for name, module in model.named_modules()
            if isinstance(module, NORMALIZATION) and module.momentum and _is_new(module)
        }

    @property
    def names(self) -> list[str]:
        """Which are still in their warm-up."""
        return sorted(self._norms)

    def keep(self, names: Iterable[str]) -> None:
        """Only these still are: of a resumed run, whose weights come after the model is made."""
        wanted = set(names)
        for name in self._norms.keys() - wanted:
            module, momentum = self._norms.pop(name)
            module.momentum = momentum

    def prepare(self, num_batches: int) -> None:
        """Set the momentum for the batch that follows ``num_batches`` others."""
        fraction = 1 / (num_batches + 1)
        for module, momentum in self._norms.values():
            module.momentum = max(momentum, fraction)
        if all(fraction < momentum for _, momentum in self._norms.values()):
            self._norms = {}


def _is_new(norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> bool:
    mean, variance = norm.running_mean, norm.running_var
    return mean is not None and variance is not None and not mean.any() and bool((variance == 1).all())
