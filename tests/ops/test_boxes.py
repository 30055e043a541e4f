"""Box operations against numbers worked out by hand, exact arithmetic and torchvision."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
import torchvision.ops
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detseg.ops.boxes import matched_ciou, matched_giou, matched_iou, pairwise_iou
from tests.fuzz.strategies import boxes_anywhere, seeds

PAIRS = [
    # Intersection 2 × 2 = 4, union 16 + 16 - 4 = 28, hull 6 × 6 = 36; centres (2, 2) and (4, 4): distance² 8, hull's
    # diagonal² 72; same aspect.  GIoU 1/7 - (36 - 28) / 36, CIoU 1/7 - 8/72.
    ((0, 0, 4, 4), (2, 2, 6, 6), 1 / 7, 1 / 7 - 2 / 9, 1 / 7 - 1 / 9),
    # Intersection 2 × 2 = 4, union 8 + 8 - 4 = 12, hull 4 × 4 = 16; centres (2, 1) and (1, 2): distance² 2, diagonal²
    # 32.  v = 4/π² · (atan 2 - atan ½)² = 0.405285 · 0.643501² = 0.167826, trade-off = v / (1 - 1/3 + v) = 0.201111:
    # CIoU 1/3 - 1/16 - 0.201111 · 0.167826 = 0.237082.
    ((0, 0, 4, 2), (0, 0, 2, 4), 1 / 3, 1 / 3 - 1 / 4, 0.237082),
    # Disjoint: hull 3 × 1, union 2, so GIoU -1/3; distance² 4, diagonal² 9 + 1.
    ((0, 0, 1, 1), (2, 0, 3, 1), 0.0, -1 / 3, -0.4),
    # One inside the other, same centre, same aspect: hull = union.
    ((0, 0, 8, 4), (2, 1, 6, 3), 1 / 4, 1 / 4, 1 / 4),
    # The same box, a tenth of a thousandth of a pixel high: still 1, as the smallest divisor is smaller still.
    ((5, 5, 6, 5.0001), (5, 5, 6, 5.0001), 1.0, 1.0, 1.0),
    # Touching edges overlap by nothing: hull = union; distance² 4, diagonal² 16 + 4.
    ((0, 0, 2, 2), (2, 0, 4, 2), 0.0, 0.0, -0.2),
]


def tensor(*boxes: tuple[float, ...]) -> Tensor:
    return torch.tensor(boxes, dtype=torch.float32)


SCALED = [(*pair, 1.0) for pair in PAIRS] + [(*pair, scale) for pair in PAIRS[:4] for scale in (1e-3, 1e3)]
"""Overlaps do not depend on the unit."""


@pytest.mark.parametrize(("one", "other", "iou", "giou", "ciou", "scale"), SCALED)
def test_overlaps_by_hand(
    one: tuple[float, ...], other: tuple[float, ...], iou: float, giou: float, ciou: float, scale: float
) -> None:
    boxes = tensor(one) * scale, tensor(other) * scale
    for overlap, expected in ((matched_iou, iou), (pairwise_iou, iou), (matched_giou, giou), (matched_ciou, ciou)):
        assert overlap(*boxes).item() == pytest.approx(expected, abs=1e-6)


def random_boxes(num: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(num, 2, generator=generator) * 100
    return torch.cat([corner, corner + 0.5 + torch.rand(num, 2, generator=generator) * 80], dim=1)


def test_overlaps_equal_torchvision() -> None:
    one, other = random_boxes(200, 0), random_boxes(200, 1)
    torch.testing.assert_close(pairwise_iou(one, other), torchvision.ops.box_iou(one, other))
    batched = pairwise_iou(one.view(50, 4, 4), other.view(50, 4, 4))
    torch.testing.assert_close(batched[7], pairwise_iou(one[28:32], other[28:32]))
    giou = torchvision.ops.generalized_box_iou(one, other)
    torch.testing.assert_close(matched_giou(one, other), giou.diagonal())
    torch.testing.assert_close(1 - matched_ciou(one, other), torchvision.ops.complete_box_iou_loss(one, other))


def test_gradient_of_ciou_equals_torchvision() -> None:
    """The trade-off weight is a constant to the gradient, in both."""
    mine, theirs = random_boxes(50, 2).requires_grad_(), random_boxes(50, 2).requires_grad_()
    other = random_boxes(50, 3)
    torch.autograd.backward((1 - matched_ciou(mine, other)).sum())
    torch.autograd.backward(torchvision.ops.complete_box_iou_loss(theirs, other, reduction="sum"))
    assert mine.grad is not None
    assert mine.grad.abs().sum() > 0
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def exact_iou(one: list[float], other: list[float]) -> float:
    """In rational numbers, with the smallest union that ``ops.boxes`` divides by."""

    def area(x1: float, y1: float, x2: float, y2: float) -> Fraction:
        return max(Fraction(x2) - Fraction(x1), Fraction(0)) * max(Fraction(y2) - Fraction(y1), Fraction(0))

    inter = area(max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3]))
    return float(inter / max(area(*one) + area(*other) - inter, Fraction(1, 10**7)))


@given(seeds, st.integers(0, 6), st.integers(0, 6))
def test_iou_of_any_boxes_is_the_exact_one(seed: int, num: int, others: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, more = boxes_anywhere(num, rng), boxes_anywhere(others, rng)
    more[: min(num, others) // 2] = boxes[: min(num, others) // 2]
    found = pairwise_iou(torch.from_numpy(boxes), torch.from_numpy(more))
    assert found.shape == (num, others)
    expected = [[exact_iou(one, other) for other in more.tolist()] for one in boxes.tolist()]
    np.testing.assert_allclose(found.numpy(), np.array(expected).reshape(num, others), atol=2e-6)


@given(seeds, st.sampled_from([1, 40, 3000]))
def test_overlaps_of_any_boxes_are_symmetric_in_range_and_have_gradients(seed: int, num: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = (torch.from_numpy(np.sort(boxes_anywhere(num, rng).reshape(-1, 2, 2), axis=1)) for _ in range(2))
    one, other = one.reshape(-1, 4), other.reshape(-1, 4)  # corners in order, sides of 0 among them
    iou = matched_iou(one, other)
    for overlap, low in ((matched_iou, 0.0), (matched_giou, -1.0), (matched_ciou, -2.0)):
        box = one.clone().requires_grad_()
        there = overlap(box, other)
        assert ((there >= low - 1e-5) & (there <= iou + 1e-5) & (there <= 1 + 1e-5)).all()
        torch.testing.assert_close(there, overlap(other, one), rtol=1e-5, atol=1e-5, check_stride=False)
        torch.autograd.backward(there.sum())
        assert box.grad is not None
        assert box.grad.isfinite().all()
