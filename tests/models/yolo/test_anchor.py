"""YOLOv2 and v3 against boxes, losses and assignments worked out by hand; k-means against brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detseg.errors import DataError
from detseg.models.yolo.anchor import (
    AnchorAssigner,
    AnchorScheme,
    fit_anchors,
    match_anchors,
    mean_best_iou,
    refine_anchors,
)
from detseg.models.yolo.scheme import Assignment
from detseg.structures import BoxTargets, FloatArray
from tests.models.targets import Rows, box_targets, logit

# One level of 32 pixels on an image of 32 × 64: two cells of one anchor of 16 × 16.
SCHEME = AnchorScheme(2, (32,), [[(16.0, 16.0)]], box_weight=5.0, objectness_weight=2.0, class_weight=3.0)
ONE = box_targets([(8, 8, 24, 16, 1)])


def test_loss_of_one_object() -> None:
    # Maps of zeros predict the anchor in the middle of each cell: (8, 8, 24, 24) and (40, 8, 56, 24).  The object
    # (8, 8, 24, 16) has its centre (16, 12) in the first cell and IoU 128 / 256 = 0.5 with that box.
    # Complete IoU: squared distance 4² = 16 of the hull's diagonal 16² + 16² = 512; aspect term
    # 4 / pi² (atan 2 - atan 1)² = 0.4052847 * (1.1071487 - 0.7853982)² = 0.0419564, its weight
    # 0.0419564 / (1 - 0.5 + 0.0419564) = 0.0774166; so 0.5 - 0.03125 - 0.0032481 = 0.4655019.
    terms = SCHEME.losses([torch.zeros(1, 7, 1, 2)], [ONE])
    # Two priors at 0.5: ln 2 whatever the target; two classes at 0.5.
    expected = {"box": 5 * (1 - 0.4655019), "objectness": 2 * 2 * math.log(2), "class": 3 * 2 * math.log(2)}
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, abs=1e-5)


def test_a_class_weight_counts_the_class_loss_of_its_objects() -> None:
    # Two classes at 0.5 for each of two objects: 2 ln 2 each, the first times 4, the second times 0.5; two positives.
    scheme = AnchorScheme(2, (32,), [[(16.0, 16.0)]], 0.5, 5.0, 2.0, 3.0, torch.tensor([0.5, 4.0]))
    target = [box_targets([(8, 8, 24, 16, 1), (40, 8, 56, 16, 0)])]
    found, plain = (s.losses([torch.zeros(1, 7, 1, 2)], target) for s in (scheme, SCHEME))
    assert found["class"].item() == pytest.approx(3 * (4 + 0.5) * 2 * math.log(2) / 2)
    assert torch.equal(found["box"], plain["box"])
    assert torch.equal(found["objectness"], plain["objectness"])


def test_target_of_objectness_is_the_iou_at_the_positive_and_zero_elsewhere() -> None:
    # BCE's gradient by the logit is sigmoid - target: 0.5 - 0.5 = 0 at the positive, 0.5 - 0 at the other prior.
    raw = torch.zeros(1, 7, 1, 2).requires_grad_()
    terms = SCHEME.losses([raw], [ONE])
    torch.autograd.backward(terms["objectness"])
    assert raw.grad is not None
    torch.testing.assert_close(raw.grad[0, 4, 0], torch.tensor([0.0, 2 * 0.5]))


def test_losses_are_divided_by_the_positives_or_at_least_by_the_images() -> None:
    both = box_targets([(8, 8, 24, 16, 1), (40, 8, 56, 16, 0)])
    alone = {name: term.item() for name, term in SCHEME.losses([torch.zeros(1, 7, 1, 2)], [ONE]).items()}
    twice = SCHEME.losses([torch.zeros(1, 7, 1, 2)], [both])  # 2 positives, 1 image
    assert twice["box"].item() == pytest.approx(alone["box"])
    assert twice["objectness"].item() == pytest.approx(alone["objectness"] / 2)
    spread = SCHEME.losses([torch.zeros(3, 7, 1, 2)], [ONE, BoxTargets.empty(), BoxTargets.empty()])
    assert spread["box"].item() == pytest.approx(alone["box"] / 3)  # 1 positive, 3 images
    assert spread["objectness"].item() == pytest.approx(alone["objectness"])


def test_priors_on_ignored_objects_have_no_objectness_loss() -> None:
    terms = SCHEME.losses([torch.zeros(1, 7, 1, 2)], [box_targets([(0, 0, 32, 32, 1, True)])])
    assert terms["objectness"].item() == pytest.approx(2 * math.log(2))  # that of the second cell
    assert (terms["box"].item(), terms["class"].item()) == (0, 0)


def test_maps_built_for_boxes_decode_to_them() -> None:
    # 64 × 96 pixels, strides 16 and 32, two anchors each; priors 0..47 and 48..59.
    # First box (20, 10, 44, 26): centre (32, 18), fine row 1, on the border of columns 1 and 2, which a sigmoid only
    # nears: column 1 at (almost 1, 0.125); sides 24 × 16 = 3 and 2 times the anchor 8 × 8.
    # Second box (60, 34, 84, 62): centre (72, 48), coarse row 1, column 2 at (0.25, 0.5); sides 24 × 28 = 0.5 and 0.7
    # times the anchor 48 × 40.
    scheme = AnchorScheme(3, (16, 32), [[(4, 4), (8, 8)], [(30, 30), (48, 40)]])
    fine, coarse = torch.full((1, 16, 4, 6), -8.0), torch.full((1, 16, 2, 3), -8.0)
    fine[0, 5:10, 1, 1] = torch.tensor([14.0, logit(0.125), math.log(3), math.log(2), logit(0.9)])
    fine[0, 13:16, 1, 1] = torch.tensor([logit(0.8), logit(0.5), logit(0.1)])
    coarse[0, 5:10, 1, 2] = torch.tensor([logit(0.25), 0, math.log(0.5), math.log(0.7), logit(0.6)])
    decoded = scheme.decode([fine, coarse])
    boxes, scores = decoded.boxes, decoded.scores
    assert boxes.shape == (1, 60, 4)
    first, second = 2 * (1 * 6 + 1) + 1, 48 + 2 * (1 * 3 + 2) + 1
    torch.testing.assert_close(boxes[0, first], torch.tensor([20.0, 10, 44, 26]), atol=1e-3, rtol=0)
    torch.testing.assert_close(scores[0, first], torch.tensor([0.72, 0.45, 0.09]))
    torch.testing.assert_close(boxes[0, second], torch.tensor([60.0, 34, 84, 62]), atol=1e-3, rtol=0)


def test_initial_bias_starts_at_the_anchors_with_little_objectness() -> None:
    scheme = AnchorScheme(3, (16, 32), [[(4, 4), (8, 8)], [(30, 30), (48, 40)]])
    maps = [scheme.initial_bias(s)[None, :, None, None].expand(1, -1, 64 // s, 96 // s) for s in (16, 32)]
    decoded = scheme.decode(maps)
    boxes, scores = decoded.boxes, decoded.scores
    torch.testing.assert_close(boxes[0, 1], torch.tensor([4.0, 4, 12, 12]))  # 8 × 8 around (8, 8)
    torch.testing.assert_close(scores, torch.full_like(scores, 0.01 / 4))  # classes at 1 / (3 + 1)


def test_anchors_travel_in_the_state_dict() -> None:
    fitted = AnchorScheme(2, (32,), [[(12.0, 20.0)]])
    fresh = AnchorScheme(2, (32,), [[(1.0, 1.0)]])
    fresh.load_state_dict(fitted.state_dict())
    raw = torch.zeros(1, 7, 1, 2)
    torch.testing.assert_close(fresh.decode([raw]).boxes[0, 0], torch.tensor([10.0, 6, 22, 26]))


def test_objects_without_a_free_anchor_are_reported() -> None:
    targets = box_targets([(8, 8, 24, 24, 1), (9, 9, 23, 23, 0)])
    with pytest.warns(UserWarning, match="more anchors a level"):
        SCHEME.losses([torch.zeros(1, 7, 1, 2)], [targets])


# An image of 32 × 32 pixels: 4 × 4 cells of 8 pixels (priors 0..31), 2 × 2 cells of 16 pixels (priors 32..39).
ANCHORS = torch.tensor([[[4.0, 4], [8, 4]], [[16, 16], [10, 20]]])
GRIDS = [(4, 4), (2, 2)]


def predicted(num_images: int = 1) -> Tensor:
    """Predicted boxes that touch no object."""
    return torch.tensor([31.0, 31, 32, 32]).repeat(num_images, 40, 1)


def assign(*images: Rows, boxes: Tensor | None = None, ignore_iou: float = 0.5) -> Assignment:
    targets = [box_targets(rows) for rows in images]
    return AnchorAssigner((8, 16), ignore_iou)(
        targets, ANCHORS, GRIDS, predicted(len(images)) if boxes is None else boxes
    )


def test_the_best_shape_over_all_levels_is_responsible_in_the_cell_of_the_centre() -> None:
    # 8 × 4 at centre (10, 11): second anchor of the fine level, row 1, column 1: prior 2 * (1 * 4 + 1) + 1 = 11.
    # 16 × 16 at centre (16, 16): first anchor of the coarse level, row 1, column 1: prior 32 + 2 * (1 * 2 + 1) = 38.
    found = assign([(6, 9, 14, 13, 1)], [(8, 8, 24, 24, 0)])
    assert found.image.tolist() == [0, 1]
    assert found.prior.tolist() == [11, 38]
    assert found.labels.tolist() == [1, 0]
    assert found.boxes.tolist() == [[6, 9, 14, 13], [8, 8, 24, 24]]
    assert found.num_unassigned == 0
    assert not found.ignored.any()


def test_the_better_shape_keeps_the_prior_and_the_other_takes_its_next_best() -> None:
    # Coarse cell 3 twice.  15 × 15 against 16 × 16: 225 / 256; against 10 × 20: 150 / 275; against 8 × 4: 32 / 225.
    # 16 × 16 against 16 × 16: 1.  So the second object keeps prior 38 and the first one moves to 39.
    found = assign([(13, 13, 28, 28, 0), (12, 12, 28, 28, 1)])
    assert found.prior.tolist() == [39, 38]
    assert found.num_unassigned == 0


def test_a_moved_object_may_push_out_a_worse_one() -> None:
    # Coarse cell 3, centres (20, 20).  A 16 × 16 fits 38 with 1.  B 15 × 15 fits 38 with .879, 39 with .545.
    # C 4 × 20 fits 39 with 80 / 200 = .4, 38 with 64 / 272 = .235, then 8 × 4 with 16 / 96 = .167 and 4 × 4 with .2.
    # A keeps 38; B moves to 39, where it beats C; C loses 38 to A too and takes 4 × 4 of fine row 2, column 2, cell
    # 10: prior 20.
    found = assign([(12, 12, 28, 28, 0), (12.5, 12.5, 27.5, 27.5, 1), (18, 10, 22, 30, 2)])
    assert found.prior.tolist() == [38, 39, 20]


def test_of_equal_objects_the_first_is_first_and_the_surplus_is_counted() -> None:
    # Five times the same 8 × 4 at (10, 11): fine cell 5 has priors 10 and 11, coarse cell 0 has 32 and 33.
    # Shape IoU: 8 × 4: 1; 4 × 4: .5; 16 × 16: 32 / 256 = .125; 10 × 20: 32 / 200 = .16.
    found = assign([(6, 9, 14, 13, label) for label in range(5)])
    assert found.prior.tolist() == [11, 10, 33, 32]
    assert found.labels.tolist() == [0, 1, 2, 3]
    assert found.num_unassigned == 1


def test_a_positive_stays_positive_inside_an_ignored_object() -> None:
    boxes = predicted()
    boxes[0, 38] = torch.tensor([8.0, 8, 24, 24])
    found = assign([(0, 0, 32, 30, 1, True), (8, 8, 24, 24, 0)], boxes=boxes)
    assert found.prior.tolist() == [38]
    assert not found.ignored[0, 38]


@settings(max_examples=150, deadline=None)
@given(num=st.integers(0, 12), num_anchors=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_matching_is_stable_and_complete(num: int, num_anchors: int, seed: int) -> None:
    """No object and prior prefer each other to what they have, and nobody goes without while a prior is free."""
    generator = torch.Generator().manual_seed(seed)
    quality = torch.rand(num, num_anchors, generator=generator)
    cells = torch.randint(0, 3, (num, 1), generator=generator)
    priors = cells * num_anchors + torch.arange(num_anchors)
    anchor = match_anchors(priors, quality).tolist()
    holder = {int(priors[i, a]): i for i, a in enumerate(anchor) if a >= 0}
    assert len(holder) == sum(a >= 0 for a in anchor)  # nobody shares
    for i, own in enumerate(anchor):
        for a in range(num_anchors):
            if own >= 0 and quality[i, a] <= quality[i, own]:
                continue
            other = holder.get(int(priors[i, a]))
            assert other is not None
            assert quality[other, anchor[other]] >= quality[i, a]


def brute_force(sizes: FloatArray, num_anchors: int) -> float:
    """The best mean IoU of all choices of anchors with a width and a height that occur in the set."""
    candidates = list(itertools.product(sorted(set(sizes[:, 0])), sorted(set(sizes[:, 1]))))
    iou = np.array([[iou_oracle(box, anchor) for box in sizes.tolist()] for anchor in candidates])
    return max(
        float(iou[list(chosen)].max(axis=0).mean())
        for chosen in itertools.combinations(range(len(candidates)), num_anchors)
    )


def iou_oracle(box: tuple[float, float], anchor: tuple[float, float]) -> float:
    inter = min(box[0], anchor[0]) * min(box[1], anchor[1])
    return inter / (box[0] * box[1] + anchor[0] * anchor[1] - inter)


def test_mean_best_iou_by_hand() -> None:
    # 8 × 4 against 8 × 8: 32 / 64; against 4 × 4: 16 / 32.  8 × 8 is met.  2 × 4 against 4 × 4: 8 / 16.
    assert mean_best_iou(np.array([[8.0, 4], [8, 8], [2, 4]]), np.array([[8.0, 8], [4, 4]])) == pytest.approx(
        (0.5 + 1 + 0.5) / 3
    )


@pytest.mark.parametrize("num_anchors", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_close_to_brute_force(num_anchors: int, seed: int) -> None:
    sizes = np.random.default_rng(seed).uniform(4, 60, (7, 2))
    fitted = mean_best_iou(sizes, fit_anchors(sizes, num_anchors, seed=0))
    assert abs(fitted - brute_force(sizes, num_anchors)) < 0.04  # k-means ends in a local optimum


def test_planted_clusters_are_found_by_growing_area() -> None:
    centres = np.array([[60.0, 15.0], [10.0, 12.0], [40.0, 90.0]])
    rng = np.random.default_rng(7)
    sizes = np.concatenate([centre + rng.uniform(-1, 1, (200, 2)) for centre in centres])
    fitted = fit_anchors(rng.permutation(sizes), 3, seed=1)
    np.testing.assert_allclose(fitted, centres[[1, 0, 2]], atol=0.3)


def test_one_anchor_is_the_median() -> None:
    # Widths 10 11 11 11 95, heights 10 12 12 13 96: the large box does not matter; means would be 27.6 and 28.6.
    sizes = np.array([[11.0, 10], [11, 12], [10, 13], [95, 96], [11, 12]])
    np.testing.assert_array_equal(fit_anchors(sizes, 1, seed=0), np.array([[11.0, 12]]))


def test_as_many_anchors_as_sizes_are_the_sizes() -> None:
    sizes = np.array([[30.0, 30], [5, 5], [10, 20], [5, 5], [10, 20]])
    np.testing.assert_allclose(fit_anchors(sizes, 3, seed=0), np.array([[5.0, 5], [10, 20], [30, 30]]))
    assert mean_best_iou(sizes, fit_anchors(sizes, 3, seed=0)) == 1


def test_a_step_takes_medians_and_moves_an_empty_cluster_to_the_worst_covered_box() -> None:
    # Anchor 10 × 10 is nearest to all boxes, a huge one to none.  IoU with 10 × 10: 1, 100 / 110, 10 / 100, and
    # again 10 / 100; so the empty one becomes 2 × 5.  Medians of 2 2 10 11 and of 5 5 10 10: 6 and 7.5.
    sizes = np.array([[10.0, 10], [11, 10], [2, 5], [2, 5]])
    iou = np.array([[1, 1e-4], [100 / 110, 1e-4], [0.1, 1e-5], [0.1, 1e-5]])
    refined = refine_anchors(sizes, iou)
    np.testing.assert_array_equal(refined, np.array([[6, 7.5], [2, 5]]))
    # Two empty ones take different sizes: the next worst is 11 × 10.
    refined = refine_anchors(sizes, np.concatenate([iou, iou[:, 1:]], axis=1))
    np.testing.assert_array_equal(refined, np.array([[6, 7.5], [2, 5], [11, 10]]))


def test_too_few_sizes_say_how_many_there_are() -> None:
    with pytest.raises(DataError, match="cannot fit 3 anchors: the 4 training boxes have 2 different sizes; ask for"):
        fit_anchors(np.array([[5.0, 5], [5, 5], [8, 8], [8, 8]]), 3, seed=0)
    with pytest.raises(DataError, match="the 0 training boxes have 0 different sizes"):
        fit_anchors(np.zeros((0, 2)), 3, seed=0)
