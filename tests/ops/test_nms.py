"""Class-wise suppression against a slow one in float64 that is easy to believe."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detseg.ops.nms import classwise_nms

Row = tuple[float, float, float, float]


def iou(one: Row, other: Row) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    inter = max(width, 0.0) * max(height, 0.0)
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (one, other)]
    return inter / (sum(areas) - inter)


def brute_force(boxes: list[Row], scores: list[float], labels: list[int], threshold: float) -> list[int]:
    """Every box against every better one that was kept; Python's sort is stable and its floats are float64."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(labels[i] != labels[k] or iou(boxes[i], boxes[k]) <= threshold for k in kept):
            kept.append(i)
    return kept


def run(
    boxes: list[Row], scores: list[float], labels: list[int], threshold: float, max_kept: int | None = None
) -> list[int]:
    kept: Tensor = classwise_nms(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
        threshold,
        max_kept,
    )
    assert kept.dtype == torch.int64
    return [int(i) for i in kept]


@st.composite
def candidates(draw: st.DrawFn) -> tuple[list[Row], list[float], list[int]]:
    """Boxes with whole corners, whose overlaps float32 tells apart; few scores, so that many are equal."""
    offset = draw(st.sampled_from([0, 4096, 60000]))
    boxes, scores, labels = [], [], []
    for _ in range(draw(st.integers(0, 25))):
        x1, y1 = offset + draw(st.integers(0, 20)), offset + draw(st.integers(0, 20))
        boxes.append((float(x1), float(y1), float(x1 + draw(st.integers(1, 20))), float(y1 + draw(st.integers(1, 20)))))
        scores.append(draw(st.sampled_from([0.25, 0.5, 0.625, 0.75])))
        labels.append(draw(st.sampled_from([0, 1, 5, 1000])))
    return boxes, scores, labels


@given(candidates(), st.sampled_from([0.0, 0.3, 0.45, 0.5, 0.6, 0.65, 0.7, 1.0]))
def test_equals_brute_force(found: tuple[list[Row], list[float], list[int]], threshold: float) -> None:
    assert run(*found, threshold) == brute_force(*found, threshold)


@given(candidates(), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 4))
def test_enough_of_them_are_the_first_of_all(
    found: tuple[list[Row], list[float], list[int]], threshold: float, max_kept: int
) -> None:
    assert run(*found, threshold, max_kept) == brute_force(*found, threshold)[:max_kept]


@pytest.mark.parametrize("offset", [0.0, 2.0**-20])  # with this corner, boxes of other classes cannot be moved aside
@pytest.mark.parametrize("num", [40, 900])  # few are compared in one call, many class by class
def test_every_way_through_gives_the_same(num: int, offset: float) -> None:
    generator = torch.Generator().manual_seed(num)
    corner = torch.randint(0, 200, (num, 2), generator=generator)
    corners = torch.cat([corner, corner + torch.randint(1, 60, (num, 2), generator=generator)], dim=1).float()
    corners[0, 0] = offset
    boxes: list[Row] = [(x1, y1, x2, y2) for x1, y1, x2, y2 in corners.tolist()]
    scores = (torch.randint(0, 50, (num,), generator=generator) / 64).tolist()
    labels = torch.randint(0, 5, (num,), generator=generator).tolist()
    for max_kept in (None, 3, num):
        assert run(boxes, scores, labels, 0.4, max_kept) == brute_force(boxes, scores, labels, 0.4)[:max_kept]


@pytest.mark.parametrize("threshold", [k / 20 for k in range(1, 20)])
def test_an_overlap_equal_to_the_threshold_stays(threshold: float) -> None:
    # (0, 0, k, 1) lies inside (0, 0, 20, 1): IoU k / 20.  Float32 rounds some of these up, 0.6 to 0.60000002.
    inner = round(threshold * 20)
    assert run([(0, 0, 20, 1), (0, 0, inner, 1)], [0.9, 0.8], [0, 0], threshold) == [0, 1]
    assert run([(0, 0, 20, 1), (0, 0, inner + 1, 1)], [0.9, 0.8], [0, 0], threshold) == [0]


def test_a_suppressed_box_suppresses_nobody() -> None:
    # IoU of neighbours 8 / 12, of the first and the last 6 / 14.
    boxes: list[Row] = [(0, 0, 10, 1), (2, 0, 12, 1), (4, 0, 14, 1)]
    assert run(boxes, [0.9, 0.8, 0.7], [3, 3, 3], 0.5) == [0, 2]


def test_many_classes_on_a_large_image_keep_their_exact_corners() -> None:
    # Shifting each class to a region of its own would move class 1000 by about 10⁷, where float32 knows whole numbers
    # only: widths 2.6 and 1.6 (IoU 0.615) would become 3 and 2 (IoU 0.667).
    boxes: list[Row] = [(0, 0, 2.6, 1), (0, 0, 1.6, 1), (9000, 9000, 10000, 10000)]
    assert run(boxes, [0.9, 0.8, 0.7], [1000, 1000, 0], 0.65) == [0, 1, 2]
