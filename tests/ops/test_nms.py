"""Class-wise suppression against a slow one in float64 that is easy to believe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.ops.nms import classwise_nms
from tests.fuzz.strategies import boxes_anywhere, seeds

Row = tuple[float, float, float, float]


def brute_force(boxes: list[Row], scores: list[float], labels: list[int], threshold: float) -> list[int]:
    """Every box against every better one that was kept, in float64."""
    rows, classes = np.array(boxes, dtype=np.float64).reshape(-1, 4), np.array(labels)
    areas = np.prod(rows[:, 2:] - rows[:, :2], axis=1)
    alive, kept = np.ones(len(rows), dtype=bool), []
    for i in sorted(range(len(rows)), key=lambda i: -scores[i]):  # Python's sort is stable
        if alive[i]:
            kept.append(i)
            sides = np.minimum(rows[i, 2:], rows[:, 2:]) - np.maximum(rows[i, :2], rows[:, :2])
            inter = np.prod(np.clip(sides, 0, None), axis=1)
            alive &= (inter / (areas[i] + areas - inter) <= threshold) | (classes != classes[i])
    return kept


def run(
    boxes: list[Row], scores: list[float], labels: list[int], threshold: float, max_kept: int | None = None
) -> list[int]:
    kept = classwise_nms(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
        threshold,
        max_kept,
    )
    assert kept.dtype == torch.int64
    return [int(i) for i in kept]


def candidates(num: int, seed: int, offset: float = 0) -> tuple[list[Row], list[float], list[int]]:
    """Boxes with whole corners, whose overlaps float32 tells apart; few scores, so that many are equal."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 20 if num < 100 else 200, (num, 2)) + offset
    boxes = np.concatenate([low, low + rng.integers(1, 20 if num < 100 else 60, (num, 2))], axis=1).astype(float)
    scores, labels = rng.integers(0, 40, num) / 64, rng.choice([0, 1, 5, 1000], num)
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in boxes.tolist()], scores.tolist(), labels.tolist()


NUMBERS = st.one_of(st.integers(0, 25), st.sampled_from([50, 1500]))
LIMITS = st.sampled_from([0.0, 0.25, 0.3, 0.45, 0.5, 0.6, 0.65, 0.7, 1.0])


@settings(max_examples=120)
@given(NUMBERS, seeds, st.sampled_from([0, 4096, 60_000]), LIMITS, st.one_of(st.none(), st.integers(0, 4)))
def test_equals_brute_force(num: int, seed: int, offset: int, threshold: float, max_kept: int | None) -> None:
    """Whole numbers below 2¹⁷: enough of the kept ones are the first of all; what is left suppresses nothing."""
    boxes, scores, labels = candidates(num, seed, offset)
    expected = brute_force(boxes, scores, labels, threshold)
    assert run(boxes, scores, labels, threshold, max_kept) == expected[:max_kept]
    left = ([column[i] for i in expected] for column in (boxes, scores, labels))
    assert run(*left, threshold) == list(range(len(expected)))


@given(seeds, st.integers(0, 30))
def test_wild_boxes_come_to_an_end_and_none_is_repeated(seed: int, num: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = boxes_anywhere(num, rng)
    boxes[rng.random(boxes.shape) < 0.1] = np.nan
    boxes[rng.random(boxes.shape) < 0.1] = np.inf
    kept = classwise_nms(torch.from_numpy(boxes), torch.rand(num), torch.zeros(num, dtype=torch.int64), 0.5)
    assert len(set(kept.tolist())) == len(kept) <= num
    assert bool(len(kept)) == bool(num)


@pytest.mark.parametrize("corner", [0.0, 2.0**-20])  # with the second, boxes of other classes cannot be moved aside
@pytest.mark.parametrize("num", [40, 900])  # few are compared in one call, many class by class
def test_every_way_through_gives_the_same(num: int, corner: float) -> None:
    boxes, scores, labels = candidates(num, seed=num)
    boxes[0] = (corner, *boxes[0][1:])
    for max_kept in (None, 3, num):
        assert run(boxes, scores, labels, 0.4, max_kept) == brute_force(boxes, scores, labels, 0.4)[:max_kept]


@pytest.mark.parametrize("threshold", [k / 20 for k in range(1, 20)])
def test_an_overlap_equal_to_the_threshold_stays(threshold: float) -> None:
    # (0, 0, k, 1) lies inside (0, 0, 20, 1): IoU k / 20.  Float32 rounds some of these up, 0.6 to 0.60000002.
    inner = round(threshold * 20)
    assert run([(0, 0, 20, 1), (0, 0, inner, 1)], [0.9, 0.8], [0, 0], threshold) == [0, 1]
    assert run([(0, 0, 20, 1), (0, 0, inner + 1, 1)], [0.9, 0.8], [0, 0], threshold) == [0]


def test_by_hand() -> None:
    # A suppressed box suppresses nobody: IoU of neighbours 8 / 12, of the first and the last 6 / 14.
    assert run([(0, 0, 10, 1), (2, 0, 12, 1), (4, 0, 14, 1)], [0.9, 0.8, 0.7], [3, 3, 3], 0.5) == [0, 2]
    # Many classes on a large image: moved aside, class 1000 would be about 10⁷ away, where float32 knows whole numbers
    # only: widths 2.6 and 1.6 (IoU 0.615) would become 3 and 2 (IoU 0.667).
    boxes: list[Row] = [(0, 0, 2.6, 1), (0, 0, 1.6, 1), (9000, 9000, 10000, 10000)]
    assert run(boxes, [0.9, 0.8, 0.7], [1000, 1000, 0], 0.65) == [0, 1, 2]
