"""Overlaps, suppression, letterbox and box coders, each against exact arithmetic or an inverse written anew."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.models.rcnn.boxes import BoxCoder
from detseg.models.yolo.anchor import AnchorScheme
from detseg.models.yolo.grid import GridScheme
from detseg.models.yolo.task_aligned import TaskAlignedAssigner, TaskAlignedScheme
from detseg.ops.boxes import box_area, clip_boxes, matched_ciou, matched_giou, pairwise_iou
from detseg.ops.letterbox import PAD_VALUE, Letterbox
from detseg.ops.nms import classwise_nms
from tests.fuzz.strategies import boxes_inside, seeds

HW = (96, 160)
Row = list[float]


def boxes_anywhere(num: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Of all sizes and places, some without area, some with swapped corners."""
    low = rng.choice([1.0, 100.0, 1e5], (num, 1)) * rng.normal(size=(num, 2))
    sides = 10.0 ** rng.uniform(-4, 5, (num, 2)) * rng.choice([1, 1, 1, 1, 0, -1], (num, 2))
    return np.concatenate([low, low + sides], axis=1).astype(np.float32)


def exact_iou(one: Row, other: Row) -> float:
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
def test_other_overlaps_of_any_boxes_are_in_their_range(seed: int, num: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = (torch.from_numpy(np.sort(boxes_anywhere(num, rng).reshape(-1, 2, 2), axis=1)) for _ in range(2))
    one, other = one.reshape(-1, 4), other.reshape(-1, 4)  # corners in order, sides of 0 among them
    assert ((matched_giou(one, other) >= -1.00001) & (matched_giou(one, other) <= 1.00001)).all()
    assert ((matched_ciou(one, other) >= -2.00001) & (matched_ciou(one, other) <= 1.00001)).all()
    cut = clip_boxes(one, HW)
    assert ((cut >= 0) & (cut <= torch.tensor([160.0, 96.0, 160.0, 96.0]))).all()
    assert (box_area(cut) <= box_area(one) * 1.00001 + 1e-6).all()


def greedy(
    boxes: npt.NDArray[np.float64], scores: npt.NDArray[np.float64], labels: list[int], limit: float
) -> list[int]:
    """Suppression in float64, a row at a time."""
    order = np.argsort(-scores, kind="stable")
    alive = np.ones(len(boxes), dtype=bool)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    for rank, i in enumerate(order):
        if not alive[i]:
            continue
        rest = order[rank + 1 :]
        sides = np.minimum(boxes[i, 2:], boxes[rest, 2:]) - np.maximum(boxes[i, :2], boxes[rest, :2])
        inter = np.prod(np.clip(sides, 0, None), axis=1)
        alive[rest[(inter > limit * (areas[i] + areas[rest] - inter)) & (np.array(labels)[rest] == labels[i])]] = False
    return [int(i) for i in order if alive[i]]


@settings(max_examples=25)
@given(seeds, st.sampled_from([1, 2, 50, 1500]), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from([0, 50_000]))
def test_suppression_of_thousands_is_greedy(seed: int, num: int, limit: float, offset: int) -> None:
    # Whole corners below 2¹⁷ and limits of few bits: float32 decides every comparison as float64 does.
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 200, (num, 2)) + offset
    boxes = np.concatenate([low, low + rng.integers(1, 60, (num, 2))], axis=1).astype(np.float64)
    scores, labels = rng.integers(0, 40, num) / 64, rng.integers(0, 3, num)
    kept = classwise_nms(
        torch.from_numpy(boxes.astype(np.float32)),
        torch.from_numpy(scores.astype(np.float32)),
        torch.from_numpy(labels),
        limit,
    )
    assert kept.tolist() == greedy(boxes, scores, labels.tolist(), limit)
    rows = boxes.astype(np.float32), scores.astype(np.float32), labels
    left = [torch.from_numpy(column)[kept] for column in rows]
    again = classwise_nms(left[0], left[1], left[2], limit)
    assert again.tolist() == list(range(len(kept)))  # what is left suppresses nothing


@given(seeds, st.integers(0, 30))
def test_suppression_of_wild_boxes_ends_and_repeats_nothing(seed: int, num: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = boxes_anywhere(num, rng)
    boxes[rng.random(boxes.shape) < 0.1] = np.nan
    boxes[rng.random(boxes.shape) < 0.1] = np.inf
    kept = classwise_nms(torch.from_numpy(boxes), torch.rand(num), torch.zeros(num, dtype=torch.int64), 0.5)
    assert len(set(kept.tolist())) == len(kept) <= num
    assert bool(len(kept)) == bool(num)


@given(st.tuples(*[st.integers(1, 100_000)] * 2), st.tuples(*[st.integers(32, 2048)] * 2), seeds)
def test_any_letterbox_holds_its_boxes_and_gives_them_back(
    hw: tuple[int, int], input_hw: tuple[int, int], seed: int
) -> None:
    letterbox = Letterbox.fit(hw, input_hw)
    boxes = boxes_inside(hw, 20, np.random.default_rng(seed))
    inside = letterbox.boxes_to_input(boxes)
    (height, width), top, left = letterbox.resized_hw, letterbox.top, letterbox.left
    room = np.array([left, top, left, top]), np.array([left + width, top + height, left + width, top + height])
    assert ((inside >= room[0] - 1e-3) & (inside <= room[1] + 1e-3)).all()
    back = letterbox.boxes_to_original(torch.from_numpy(inside)).numpy()
    step = 2048 * 2.0**-23 / np.array(letterbox.scale_xy * 2)  # float32 of the input, in pixels of the original
    assert (np.abs(back - boxes) <= 4 * step + 1e-6 * np.abs(boxes)).all()


@settings(max_examples=30)
@given(st.sampled_from([(1, 1), (1, 4000), (4000, 1), (2, 3), (33, 31)]), st.sampled_from([(32, 32), (64, 160)]))
def test_any_picture_fits_its_letterbox(hw: tuple[int, int], input_hw: tuple[int, int]) -> None:
    letterbox = Letterbox.fit(hw, input_hw)
    white = letterbox.apply(np.full((*hw, 3), 255, dtype=np.uint8))
    labels = letterbox.apply_labels(np.zeros(hw, dtype=np.uint8))
    assert white.shape == (*input_hw, 3)
    seen = (white == 255).all(axis=2)
    assert ((white == PAD_VALUE).all(axis=2) == ~seen).all()
    np.testing.assert_array_equal(labels == 0, seen)
    assert int(seen.sum()) == letterbox.resized_hw[0] * letterbox.resized_hw[1]


@pytest.mark.parametrize("coder", [BoxCoder(), BoxCoder(10, 5)])
@given(seed=seeds)
def test_the_boxes_of_proposals_come_back(coder: BoxCoder, seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, references = (torch.from_numpy(boxes_inside((4000, 3000), 50, rng)) for _ in range(2))
    growth = (boxes[:, 2:] - boxes[:, :2]) / (references[:, 2:] - references[:, :2])
    deltas = coder.encode(boxes, references)
    assert deltas.isfinite().all()
    back = coder.decode(deltas, references)
    assert back.isfinite().all()
    fits = (growth < 1000 / 16).all(dim=1)  # beyond that decoding is clamped
    limit = 1e-5 * (boxes.abs() + references.abs()).amax(dim=1, keepdim=True) + 1e-4
    assert ((back - boxes).abs() <= limit)[fits].all()


@st.composite
def boxes_of_cells(draw: st.DrawFn, stride: int) -> tuple[Row, int, int]:
    """A box inside the image whose centre lies well inside a cell: the box, and the row and column of the cell."""
    row, column = draw(st.integers(0, HW[0] // stride - 1)), draw(st.integers(0, HW[1] // stride - 1))
    y, x = ((cell + draw(st.floats(0.01, 0.99))) * stride for cell in (row, column))
    half = [draw(st.floats(0.001, 1)) * min(at, side - at) for at, side in ((x, HW[1]), (y, HW[0]))]
    return [x - half[0], y - half[1], x + half[0], y + half[1]], row, column


def logit(share: float) -> float:
    return math.log(share / (1 - share))


@given(boxes_of_cells(32))
def test_grid_cells_can_say_every_box(found: tuple[Row, int, int]) -> None:
    (x1, y1, x2, y2), row, column = found
    raw = torch.zeros(1, 5 * 2 + 3, 3, 5)
    wanted = [(x1 + x2) / 64 - column, (y1 + y2) / 64 - row, math.sqrt((x2 - x1) / 160), math.sqrt((y2 - y1) / 96)]
    raw[0, 5:9, row, column] = torch.tensor([logit(min(share, 1 - 1e-7)) for share in wanted])
    boxes = GridScheme(3, 32).decode([raw]).boxes.view(3, 5, 2, 4)
    torch.testing.assert_close(boxes[row, column, 1], torch.tensor([x1, y1, x2, y2]), rtol=0, atol=0.01)


@given(boxes_of_cells(16), st.integers(0, 1))
def test_anchors_can_say_every_box(found: tuple[Row, int, int], anchor: int) -> None:
    (x1, y1, x2, y2), row, column = found
    sides = [[(20.0, 30.0), (60.0, 40.0)], [(90.0, 90.0), (150.0, 90.0)]]
    raw = [torch.zeros(1, 2 * (5 + 3), 6, 10), torch.zeros(1, 2 * (5 + 3), 3, 5)]
    raw[0][0, 5 * anchor : 5 * anchor + 4, row, column] = torch.tensor(
        [
            logit((x1 + x2) / 32 - column),
            logit((y1 + y2) / 32 - row),
            math.log((x2 - x1) / sides[0][anchor][0]),
            math.log((y2 - y1) / sides[0][anchor][1]),
        ]
    )
    boxes = AnchorScheme(3, (16, 32), sides).decode(raw).boxes[0, : 6 * 10 * 2].view(6, 10, 2, 4)
    smallest = 60 * math.exp(-6.0)  # sides are clamped to the anchor's over 400
    torch.testing.assert_close(boxes[row, column, anchor], torch.tensor([x1, y1, x2, y2]), rtol=0, atol=0.01 + smallest)


@given(st.integers(0, 11), st.integers(0, 19), st.lists(st.floats(0, 30.9), min_size=4, max_size=4))
def test_distances_can_say_every_box_around_their_point(row: int, column: int, distances: list[float]) -> None:
    point, cells = torch.tensor([column + 0.5, row + 0.5]) * 8, torch.tensor(distances)
    raw = torch.full((1, 4 * 32 + 3, 12, 20), -100.0)
    for side, cell in enumerate(cells.tolist()):  # all probability on the two bins around the distance
        below, share = int(cell), cell - int(cell)
        raw[0, 32 * side + below, row, column] = math.log(max(1 - share, 1e-30))
        raw[0, 32 * side + below + 1, row, column] = math.log(max(share, 1e-30))
    scheme = TaskAlignedScheme(3, (8,), TaskAlignedAssigner(10), reg_max=32)
    boxes = scheme.decode([raw]).boxes.view(12, 20, 4)
    expected = torch.cat([point - cells[:2] * 8, point + cells[2:] * 8])
    torch.testing.assert_close(boxes[row, column], expected, rtol=0, atol=1e-3)
