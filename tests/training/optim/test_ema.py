"""The average after each step, computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from detseg.training.optim.ema import WeightAverage


class Net(nn.Module):
    """One weight, one float buffer, one integer buffer."""

    total: torch.Tensor
    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([8.0]))
        self.register_buffer("total", torch.tensor([16.0]))
        self.register_buffer("count", torch.tensor(0))

    def set(self, weight: float, total: float, count: int) -> None:
        with torch.no_grad():
            self.weight.fill_(weight)
            self.total.fill_(total)
            self.count.fill_(count)


def values(average: WeightAverage) -> tuple[float, float, int]:
    net = average.model
    return float(net.weight), float(net.total), int(net.count)


def test_three_steps_without_warm_up() -> None:
    net = Net()
    average = WeightAverage(net, decay=0.75, warmup_steps=0)
    net.set(0.0, 0.0, 1)
    average.update(net, 1)
    assert values(average) == (6.0, 12.0, 1)  # three quarters stay
    net.set(2.0, 4.0, 7)
    average.update(net, 2)
    assert values(average) == (5.0, 10.0, 7)
    net.set(9.0, 2.0, 8)
    average.update(net, 3)
    assert values(average) == (6.0, 8.0, 8)


def test_warm_up_keeps_less_at_first() -> None:
    net = Net()
    average = WeightAverage(net, decay=0.5, warmup_steps=2)
    net.set(0.0, 0.0, 1)
    average.update(net, 1)
    first = 8 * 0.5 * (1 - math.exp(-0.5))
    assert values(average)[0] == pytest.approx(first, rel=1e-6)
    average.update(net, 2)
    assert values(average)[0] == pytest.approx(first * 0.5 * (1 - math.exp(-1.0)), rel=1e-6)


def test_it_is_a_copy_that_never_trains() -> None:
    net = Net()
    outer = nn.ModuleDict({"net": net, "average": WeightAverage(net, 0.9, 0)})
    outer.train()
    assert net.training
    assert not any(module.training for module in outer["average"].modules())
    assert not any(parameter.requires_grad for parameter in outer["average"].parameters())
    net.set(1.0, 1.0, 1)
    assert float(outer["average"].model.weight) == 8.0
    assert {"average.model.weight", "average.model.total", "average.model.count"} <= outer.state_dict().keys()
