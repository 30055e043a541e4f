from __future__ import annotations

import pytest
import torch
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from detseg.models.rcnn.assign import RegionAssignment
from detseg.models.rcnn.sampling import RegionSampler


def assignment(num_positive: int, num_negative: int, num_neither: int) -> RegionAssignment:
    """In a mixed order."""
    labels = torch.tensor([1] * num_positive + [0] * num_negative + [-1] * num_neither)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    return RegionAssignment(torch.where(labels == 1, 7, -1), labels == 0)


@pytest.mark.parametrize("numbers", [(50, 200, 30), (3, 200, 30), (50, 4, 30), (2, 3, 30), (0, 100, 0), (0, 0, 9)])
def test_draws_are_torchvisions_in_training(numbers: tuple[int, int, int]) -> None:
    given = assignment(*numbers)
    labels = torch.where(given.positive, 1, torch.where(given.negative, 0, -1))
    torch.manual_seed(5)
    positive, negative = BalancedPositiveNegativeSampler(64, 0.25)([labels, labels])
    expected = [torch.nonzero(p | n).flatten().tolist() for p, n in zip(positive, negative, strict=True)]
    torch.manual_seed(5)
    sampler = RegionSampler(64, 0.25).train()
    assert [sampler(given).tolist(), sampler(given).tolist()] == expected


def test_positives_are_bounded_and_negatives_fill_up() -> None:
    given = assignment(50, 200, 30)
    chosen = RegionSampler(64, 0.25)(given)
    assert len(chosen) == len(set(chosen.tolist())) == 64
    assert given.positive[chosen].sum() == 16
    assert given.negative[chosen].sum() == 48


def test_draws_repeat_in_evaluation_and_leave_the_generator_alone() -> None:
    given = assignment(50, 200, 30)
    sampler = RegionSampler(64, 0.25).eval()
    torch.manual_seed(1)
    first = sampler(given)
    after = torch.rand(1)
    torch.manual_seed(2)
    assert torch.equal(sampler(given), first)
    torch.manual_seed(1)
    assert torch.rand(1) == after
    assert not torch.equal(sampler.train()(given), first)


def test_draws_of_an_image_follow_from_its_seed_alone() -> None:
    given = assignment(50, 200, 30)
    sampler = RegionSampler(64, 0.25).train()
    first = sampler(given, seed=3)
    after = torch.rand(1)
    assert torch.equal(sampler(given, seed=3), first)
    assert not torch.equal(sampler(given, seed=4), first)
    torch.manual_seed(1)
    sampler(given, seed=3)
    sampler.eval()
    assert torch.equal(sampler(given, seed=3), sampler(given))  # in evaluation it does not matter
    assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(1)) != after
