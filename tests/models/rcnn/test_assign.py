from __future__ import annotations

import torch

from detseg.models.rcnn.assign import RegionAssigner, RegionAssignment
from detseg.structures import BoxTargets

ANCHORS = RegionAssigner(0.7, 0.3, best_is_positive=True)
PROPOSALS = RegionAssigner(0.5, 0.5, best_is_positive=False)


def square(left: float, side: float = 10) -> list[float]:
    return [left, 0, left + side, side]


def target(*objects: tuple[list[float], bool]) -> BoxTargets:
    """Boxes, each with whether it is to be ignored."""
    return BoxTargets(
        torch.tensor([box for box, _ in objects], dtype=torch.float32).reshape(-1, 4),
        torch.zeros(len(objects), dtype=torch.int64),
        torch.tensor([ignore for _, ignore in objects], dtype=torch.bool),
    )


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


def test_a_threshold_itself_is_positive() -> None:
    assigner = RegionAssigner(0.5, 0.5, best_is_positive=False)
    assert assign(assigner, [[0, 0, 10, 5]], target((square(0), False))) == [0]


def test_the_best_anchors_of_an_object_are_positive_even_in_a_tie() -> None:
    # 4 to the left and 4 to the right of the object: IoU 3/7 both; 6: 1/4.
    regions = [square(16), square(24), square(26)]
    assert assign(ANCHORS, regions, target((square(20), False))) == [0, 0, "negative"]
    assert assign(PROPOSALS, regions, target((square(20), False))) == ["negative"] * 3


def test_a_region_goes_to_the_object_that_it_overlaps_most() -> None:
    # The second object's best anchor overlaps the first one more, and goes there, as in torchvision.
    objects = target((square(0), False), (square(4), False))
    assert assign(ANCHORS, [square(1), square(50)], objects) == [0, "negative"]
    assert assign(ANCHORS, [square(1), square(3)], objects) == [0, 1]


def test_an_object_that_no_anchor_touches_makes_no_anchor_positive() -> None:
    assert assign(ANCHORS, [square(0), square(20)], target((square(50), False))) == ["negative", "negative"]


def test_no_objects_leave_negatives() -> None:
    assert assign(ANCHORS, [square(0), square(20)], target()) == ["negative", "negative"]


def test_no_regions() -> None:
    assert assign(ANCHORS, [], target((square(0), False))) == []
    assert assign(PROPOSALS, [], target((square(0), True))) == []


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
