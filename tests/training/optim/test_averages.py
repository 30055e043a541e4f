"""The average of the weights after each step, and the first statistics of batch norm, computed by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from detseg.models.interface import LossTerms
from detseg.structures import BoxTargets
from detseg.training.optim.averages import WeightAverage
from tests.training.stub import OneWeight, batch_of, fit, task_of


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
    steps = [((0.0, 0.0, 1), (6.0, 12.0, 1)), ((2.0, 4.0, 7), (5.0, 10.0, 7)), ((9.0, 2.0, 8), (6.0, 8.0, 8))]
    for number, (given, expected) in enumerate(steps, 1):
        net.set(*given)
        average.update(net, number)
        assert values(average) == expected  # three quarters stay


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


class Normed(OneWeight):
    """Measures its images by two batch norms, a new one and one that comes with statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.pretrained = nn.BatchNorm2d(3, momentum=0.25), nn.BatchNorm2d(3, momentum=0.25)
        self.pretrained.running_var = torch.full((3,), 0.5)  # and a count of 0, as files from other frameworks have

    def losses(self, images: torch.Tensor, targets: list[BoxTargets]) -> LossTerms:
        self.norm(images)
        self.pretrained(images)
        return super().losses(images, targets)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("greys", "mean", "of_pretrained", "accumulated"),
    [
        ((51, 102, 255, 51), 0.45, 0.31484375, 1),
        ((51, 102), 0.3, 0.1375, 2),
        ((51, 102, 255, 51, 255, 255), 0.69062, 0.61460, 1),  # the momentum takes over: 0.75 × 0.45 + 0.25, once more
        ((51, 102, 255, 51, 255, 255), 0.69062, 0.61460, 2),
    ],
)
def test_first_statistics_are_the_plain_average_of_the_batches(
    greys: tuple[int, ...], mean: float, of_pretrained: float, accumulated: int, tmp_path: Path
) -> None:
    """With a momentum of a quarter: four batches count alike, and a fifth counts a quarter."""
    model = Normed()
    fit(task_of(model), [batch_of(grey) for grey in greys], tmp_path, accumulate_grad_batches=accumulated)
    assert model.norm.running_mean is not None
    assert model.pretrained.running_mean is not None
    assert float(model.norm.running_mean[0]) == pytest.approx(mean, abs=1e-5)
    assert float(model.pretrained.running_mean[0]) == pytest.approx(of_pretrained, abs=1e-5)
    if len(greys) > 4:
        assert model.norm.momentum == 0.25
