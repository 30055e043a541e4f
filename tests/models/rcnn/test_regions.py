"""Which regions are positive, negative or neither, by hand, and the draws among them, beside torchvision's; differences
of boxes and their losses, by hand and against torchvision's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.ops import complete_box_iou_loss, generalized_box_iou_loss

from detseg.models.rcnn.regions import BoxCoder, BoxLoss, RegionAssigner, RegionAssignment, RegionSampler, zero_loss
from detseg.structures import BoxTargets
from tests.models.targets import box_targets

ANCHORS = RegionAssigner(0.7, 0.3, allow_low_quality_matches=True)
PROPOSALS = RegionAssigner(0.5, 0.5, allow_low_quality_matches=False)


def square(left: float, side: float = 10) -> list[float]:
    return [left, 0, left + side, side]


def target(*objects: tuple[list[float], bool]) -> BoxTargets:
    """Boxes, each with whether it is to be ignored."""
    return box_targets([box for box, _ in objects], ignore=[ignore for _, ignore in objects])


def assign(assigner: RegionAssigner, regions: list[list[float]], objects: BoxTargets) -> list[int | str]:
    """The object of a positive, "negative", or "none"."""
    found = assigner.assign(torch.tensor(regions, dtype=torch.float32).reshape(-1, 4), objects)
    assert torch.equal(found.positive, found.objects >= 0)
    assert not (found.positive & found.negative).any()
    pairs = zip(found.objects.tolist(), found.negative.tolist(), strict=True)
    return [i if i >= 0 else "negative" if negative else "none" for i, negative in pairs]


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
    # Where no anchor touches the object, none is its best.
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


def test_draws_repeat_in_evaluation_or_follow_from_the_seed_and_leave_the_generator_alone() -> None:
    given = assignment(50, 200, 30)
    sampler = RegionSampler(64, 0.25)
    torch.manual_seed(1)
    in_evaluation, drawn = sampler.eval()(given), sampler.train()(given, seed=3)
    assert torch.equal(sampler.eval()(given, seed=3), in_evaluation)  # where the seed does not matter
    assert torch.equal(sampler.train()(given, seed=3), drawn)
    assert not torch.equal(sampler(given, seed=4), drawn)
    assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(sampler(given), in_evaluation)


REFERENCE = torch.tensor([[10.0, 20.0, 30.0, 60.0]])  # centre 20, 40; 20 wide, 40 high


def test_differences_by_hand() -> None:
    box = torch.tensor([[15.0, 20.0, 35.0, 100.0]])  # centre 25, 60; 20 wide, 80 high
    expected = torch.tensor([[5 / 20, 20 / 40, 0.0, math.log(2)]])
    torch.testing.assert_close(BoxCoder().encode(box, REFERENCE), expected)
    scaled = expected * torch.tensor([10.0, 10.0, 5.0, 5.0])
    torch.testing.assert_close(BoxCoder(center_scale=10, side_scale=5).encode(box, REFERENCE), scaled)


def test_one_reference_serves_several_differences() -> None:
    deltas = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 0.0, 0.0]]])  # one reference, two classes
    expected = torch.tensor([[[10.0, 20.0, 30.0, 60.0], [30.0, -20.0, 50.0, 20.0]]])
    torch.testing.assert_close(BoxCoder().decode(deltas, REFERENCE[:, None]), expected)


def test_wild_differences_stay_finite() -> None:
    box = BoxCoder().decode(torch.tensor([[0.0, 0.0, 1000.0, 1000.0]]), REFERENCE)
    width, height = (box[0, 2:] - box[0, :2]).tolist()
    assert (width, height) == pytest.approx((20 * 1000 / 16, 40 * 1000 / 16))


REFERENCES = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 30.0]])
BOXES = torch.tensor([[5.0, 0.0, 15.0, 10.0], [20.0, 20.0, 40.0, 30.0]])


def test_smooth_l1_by_hand() -> None:
    # The first object is half a width to the right: 0.5 of one difference, in the straight part: 0.5 - beta / 2.
    loss = BoxLoss("smooth_l1", beta=0.2, weight=3.0)(
        torch.zeros(2, 4), REFERENCES, BOXES, BoxCoder(), normaliser=torch.tensor(8.0)
    )
    assert loss.item() == pytest.approx(3 * (0.5 - 0.1) / 8)


def test_giou_by_hand() -> None:
    # Of the first pair: intersection 50, union 150, hull 150; the second pair is the same box.
    loss = BoxLoss("giou", weight=2.0)(torch.zeros(2, 4), REFERENCES, BOXES, BoxCoder(), normaliser=torch.tensor(4.0))
    assert loss.item() == pytest.approx(2 * (1 - 50 / 150) / 4)


@pytest.mark.parametrize(
    ("name", "reference"), [("giou", generalized_box_iou_loss), ("ciou", complete_box_iou_loss)], ids=["giou", "ciou"]
)
def test_overlap_losses_are_torchvisions_of_the_decoded_boxes(name: Any, reference: Any) -> None:
    deltas = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)) * 0.3
    expected = reference(BoxCoder().decode(deltas, REFERENCES), BOXES, reduction="sum") / 5
    torch.testing.assert_close(
        BoxLoss(name)(deltas, REFERENCES, BOXES, BoxCoder(), normaliser=torch.tensor(5.0)), expected
    )


@pytest.mark.parametrize("name", ["smooth_l1", "giou", "ciou"])
def test_no_positives_cost_nothing(name: Any) -> None:
    deltas = torch.zeros(0, 4, requires_grad=True)
    loss = BoxLoss(name)(deltas, torch.zeros(0, 4), torch.zeros(0, 4), BoxCoder(), normaliser=torch.tensor(1.0))
    torch.autograd.backward([loss])
    assert loss.item() == 0
    assert deltas.grad is not None


def test_zero_loss_gives_every_parameter_a_gradient() -> None:
    module, features = nn.Linear(2, 2), torch.ones(3, requires_grad=True)
    loss = zero_loss(module, like=features)
    torch.autograd.backward([loss])
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in [*module.parameters(), features])
