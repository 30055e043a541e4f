"""Which regions are positive, negative or neither, by hand, and the draws among them, beside torchvision's."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from detseg.models.rcnn.matching import RegionAssigner, RegionAssignment, RegionSampler
from detseg.structures import BoxTargets
from tests.models.targets import box_targets

ANCHORS = RegionAssigner(0.7, 0.3, allow_low_quality_matches=True)
PROPOSALS = RegionAssigner(0.5, 0.5, allow_low_quality_matches=False)


def square(left: float, side: float = 10) -> list[float]:
    return [left, 0, left + side, side]


def target(*objects: tuple[list[float], bool]) -> BoxTargets:
    """Boxes, each with whether it is to be ignored."""
    return box_targets([box for box, _ in objects], ignore=[ignore for _, ignore in objects])


def words(assignment: RegionAssignment) -> list[int | str]:
    """The object of a positive, "negative", or "none"."""
    pairs = zip(assignment.objects.tolist(), assignment.negative.tolist(), strict=True)
    assert torch.equal(assignment.positive, assignment.objects >= 0)
    assert not (assignment.positive & assignment.negative).any()
    return [i if i >= 0 else "negative" if negative else "none" for i, negative in pairs]


def assign(assigner: RegionAssigner, regions: list[list[float]], objects: BoxTargets) -> list[int | str]:
    boxes = torch.tensor(regions, dtype=torch.float32).reshape(-1, 4)
    return words(assigner.assign(boxes, objects))


def test_thresholds_by_hand() -> None:
    # IoU of squares of 10 that lie d apart is (10 - d) / (10 + d): 1: 0.82, 2: 0.67, 5: 1/3, 6: 0.25.
    regions = [square(0), square(1), square(2), square(5), square(6)]
    objects = target((square(0), False))
    assert assign(ANCHORS, regions, objects) == [0, 0, "none", "none", "negative"]
    assert assign(PROPOSALS, regions, objects) == [0, 0, 0, "negative", "negative"]


def test_the_best_anchors_of_an_object_are_positive_even_in_a_tie() -> None:
    # 4 to the left and 4 to the right of the object: IoU 3/7 both; 6: 1/4.
    regions = [square(16), square(24), square(26)]
    assert assign(ANCHORS, regions, target((square(20), False))) == [0, 0, "negative"]
    assert assign(PROPOSALS, regions, target((square(20), False))) == ["negative"] * 3


def test_an_object_that_no_anchor_touches_makes_no_anchor_positive() -> None:
    assert assign(ANCHORS, [square(0), square(20)], target((square(50), False))) == ["negative", "negative"]


def test_regions_mostly_inside_an_ignored_object_are_no_negatives() -> None:
    # The crowd covers x from 0 to 40: of squares at 30, 34, 35, 36 it holds 10, 6, 5 and 4 tenths.
    crowd = target((square(0, 40), True))
    regions = [square(30), square(34), square(35), square(36), square(0, 40), square(0, 200)]
    assert assign(ANCHORS, regions, crowd) == ["none", "none", "negative", "negative", "none", "negative"]
    assert assign(PROPOSALS, regions, crowd) == ["none", "none", "negative", "negative", "none", "negative"]


def test_positives_inside_an_ignored_object_stay_positive_and_know_their_place_among_all() -> None:
    objects = target((square(0, 40), True), (square(10), False), (square(60), True), (square(80), False))
    regions = [square(10), square(30), square(80), square(60), square(100)]
    assert assign(PROPOSALS, regions, objects) == [1, "none", 3, "none", "negative"]
    assert assign(ANCHORS, regions, objects) == [1, "none", 3, "none", "negative"]


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
