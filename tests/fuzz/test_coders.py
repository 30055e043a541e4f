"""Box coders against an inverse written anew: every box can be said."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detseg.models.rcnn.regions import BoxCoder
from detseg.models.yolo.anchor import AnchorScheme
from detseg.models.yolo.grid import GridScheme
from detseg.models.yolo.task_aligned import TaskAlignedAssigner, TaskAlignedScheme
from tests.fuzz.strategies import boxes_inside, seeds

HW = (96, 160)
Row = list[float]


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
