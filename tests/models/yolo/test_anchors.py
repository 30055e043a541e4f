"""k-means over box sizes against brute force, planted clusters and numbers worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from detseg.errors import DataError
from detseg.models.yolo.anchors import fit_anchors, mean_best_iou, refine_anchors
from detseg.structures import FloatArray


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
    assert mean_best_iou([(8, 4), (8, 8), (2, 4)], [(8, 8), (4, 4)]) == pytest.approx((0.5 + 1 + 0.5) / 3)


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


def test_the_seed_decides() -> None:
    sizes = np.random.default_rng(3).lognormal(3, 1, (300, 2))
    np.testing.assert_array_equal(fit_anchors(sizes, 6, seed=5), fit_anchors(sizes, 6, seed=5))


def test_fitting_beats_random_boxes_of_the_set() -> None:
    rng = np.random.default_rng(3)
    sizes = rng.lognormal(3, 1, (300, 2))
    drawn = [mean_best_iou(sizes, rng.choice(sizes, 6, replace=False)) for _ in range(20)]
    assert mean_best_iou(sizes, fit_anchors(sizes, 6, seed=0)) > max(drawn)


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


@pytest.mark.parametrize("wrong", [0.0, -3.0, float("nan"), float("inf")])
def test_sizes_that_are_not_positive_are_refused(wrong: float) -> None:
    with pytest.raises(DataError, match=r"box 1 is 5\.0 wide and .* high"):
        fit_anchors(np.array([[5.0, 5], [5, wrong]]), 1, seed=0)


def test_wrong_shape_or_number_is_refused() -> None:
    with pytest.raises(ValueError, match="expected shape"):
        fit_anchors(np.zeros((3, 4)), 1, seed=0)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        fit_anchors(np.ones((3, 2)), 0, seed=0)
