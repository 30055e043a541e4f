"""Who answers for which object, against loops over every pair; box coders, against an inverse written anew."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.models.rcnn.regions import BoxCoder, RegionAssigner, RegionSampler
from detseg.models.yolo.anchor import AnchorAssigner, AnchorScheme
from detseg.models.yolo.grid import GridAssigner, GridScheme
from detseg.models.yolo.scheme import cell_points
from detseg.models.yolo.task_aligned import TaskAlignedAssigner, TaskAlignedScheme
from detseg.ops.boxes import pairwise_iou
from detseg.structures import BoxTargets
from tests.fuzz.strategies import box_targets, boxes_inside, seeds
from tests.models.yolo.test_task_aligned import assign_one

HW = (96, 160)
STRIDES = (16, 32)
Row = list[float]


def iou(one: Row, other: Row) -> float:
    sides = [max(min(one[k + 2], other[k + 2]) - max(one[k], other[k]), 0.0) for k in (0, 1)]
    areas = [(row[2] - row[0]) * (row[3] - row[1]) for row in (one, other)]
    union = sum(areas) - sides[0] * sides[1]
    return sides[0] * sides[1] / union if union > 0 else 0.0


def cell_of(box: Row, stride: int, hw: tuple[int, int] = HW) -> tuple[int, int]:
    x, y = int((box[0] + box[2]) / 2 // stride), int((box[1] + box[3]) / 2 // stride)
    return min(y, hw[0] // stride - 1), min(x, hw[1] // stride - 1)


def counted(target: BoxTargets) -> list[Row]:
    rows: list[Row] = target.boxes[~target.ignore].tolist()
    return rows


TARGETS = st.lists(box_targets(HW), min_size=1, max_size=3)


@given(TARGETS, seeds)
def test_a_grid_cell_answers_for_its_largest_object(targets: list[BoxTargets], seed: int) -> None:
    predicted = torch.from_numpy(boxes_inside(HW, len(targets) * 15 * 2, np.random.default_rng(seed)))
    predicted = predicted.view(len(targets), 3, 5, 2, 4)
    found = GridAssigner(32)(targets, predicted)
    expected: dict[tuple[int, int], Row] = {}
    for image, target in enumerate(targets):
        for box in counted(target):
            row, column = cell_of(box, 32)
            holder = expected.get((image, 5 * row + column))
            area = (box[2] - box[0]) * (box[3] - box[1])
            if holder is None or area > (holder[2] - holder[0]) * (holder[3] - holder[1]):
                expected[image, 5 * row + column] = box
    keys = list(zip(found.image.tolist(), (found.prior // 2).tolist(), strict=True))
    assert dict(zip(keys, found.boxes.tolist(), strict=True)) == expected
    assert len(keys) == len(expected)
    assert found.num_unassigned == sum(len(counted(target)) for target in targets) - len(expected)
    for (image, cell), slot, box in zip(keys, (found.prior % 2).tolist(), found.boxes.tolist(), strict=True):
        ious = [iou(slot_box, box) for slot_box in predicted[image, cell // 5, cell % 5].tolist()]
        assert abs(max(ious) - ious[slot]) < 1e-6


@given(TARGETS)
def test_grid_cells_on_ignored_objects_are_excluded(targets: list[BoxTargets]) -> None:
    found = GridAssigner(32)(targets, torch.zeros(len(targets), 3, 5, 2, 4))
    found.ignored[found.image, found.prior] = True  # positives stay positive, the other box of the cell is ignored
    for target, excluded in zip(targets, found.ignored.view(-1, 3, 5, 2).all(dim=3).tolist(), strict=True):
        for row, column in itertools.product(range(3), range(5)):
            x, y = column * 32 + 16, row * 32 + 16
            ignored: list[Row] = target.boxes[target.ignore].tolist()
            covered = any(x1 <= x < x2 and y1 <= y < y2 for x1, y1, x2, y2 in ignored)
            assert excluded[row][column] == (covered or any(cell_of(box, 32) == (row, column) for box in ignored))


ANCHORS = torch.tensor([[[6.0, 9.0], [30.0, 20.0]], [[50.0, 70.0], [140.0, 60.0]]])
GRIDS = [(6, 10), (3, 5)]


@settings(max_examples=60)
@given(st.lists(box_targets(HW, most=30), min_size=1, max_size=3), seeds)
def test_every_object_gets_an_anchor_or_all_of_its_cells_are_taken(targets: list[BoxTargets], seed: int) -> None:
    num_priors = 2 * (60 + 15)
    predicted = torch.from_numpy(boxes_inside(HW, len(targets) * num_priors, np.random.default_rng(seed)))
    predicted = predicted.view(len(targets), num_priors, 4)
    found = AnchorAssigner(STRIDES, 0.5)(targets, ANCHORS, GRIDS, predicted)
    taken = list(zip(found.image.tolist(), found.prior.tolist(), strict=True))
    assert len(set(taken)) == len(taken)
    for (_, prior), box in zip(taken, found.boxes.tolist(), strict=True):
        assert prior in priors_of(box)
    kept = sorted((image, *box) for (image, _), box in zip(taken, found.boxes.tolist(), strict=True))
    every = sorted((image, *box) for image, target in enumerate(targets) for box in counted(target))
    assert found.num_unassigned == len(every) - len(kept)
    for image, *box in every:
        if kept.count((image, *box)) < every.count((image, *box)):  # it, or an equal one, goes without
            assert all((image, prior) in taken for prior in priors_of(box))
    assert not found.ignored[found.image, found.prior].any()


def priors_of(box: Row) -> list[int]:
    priors, offset = [], 0
    for stride, (rows, columns) in zip(STRIDES, GRIDS, strict=True):
        row, column = cell_of(box, stride)
        priors += [offset + 2 * (row * columns + column) + k for k in (0, 1)]
        offset += 2 * rows * columns
    return priors


@pytest.mark.parametrize("num", [0, 3000])
def test_thousands_of_objects_in_one_place_are_answered_for(num: int) -> None:
    boxes = torch.tensor([[40.0, 40.0, 44.0, 44.0]]).repeat(num, 1)
    target = BoxTargets(boxes, torch.zeros(num, dtype=torch.int64), torch.zeros(num, dtype=torch.bool))
    predicted = torch.from_numpy(boxes_inside(HW, 150, np.random.default_rng(0)))
    by_anchor = AnchorAssigner(STRIDES, 0.5)([target], ANCHORS, GRIDS, predicted[None])
    assert sorted(by_anchor.prior.tolist()) == (priors_of([40, 40, 44, 44]) if num else [])
    by_cell = GridAssigner(16)([target], predicted[:120].view(1, 6, 10, 2, 4))
    assert (len(by_cell.prior), by_cell.num_unassigned) == (min(num, 1), max(num - 1, 0))
    points = cell_points([torch.zeros(1, 1, 6, 10), torch.zeros(1, 1, 3, 5)], STRIDES)
    aligned = assign_one(TaskAlignedAssigner(13), torch.full((75, 3), 0.5), predicted[:75], points, target)
    assert bool((aligned.target_index >= 0).any()) == bool(num)
    regions = RegionAssigner(0.5, 0.5, True).assign(predicted, target)
    assert bool(regions.negative.any())


@given(box_targets(HW), seeds)
def test_priors_on_objects_are_left_alone(target: BoxTargets, seed: int) -> None:
    predicted = torch.from_numpy(boxes_inside(HW, 150, np.random.default_rng(seed)))
    found = AnchorAssigner(STRIDES, 0.5)([target], ANCHORS, GRIDS, predicted[None])
    for prior, box in enumerate(predicted.tolist()):
        overlaps = []
        for other, ignored in zip(target.boxes.tolist(), target.ignore.tolist(), strict=True):
            inside = [max(min(box[k + 2], other[k + 2]) - max(box[k], other[k]), 0.0) for k in (0, 1)]
            fraction = inside[0] * inside[1] / ((box[2] - box[0]) * (box[3] - box[1]))
            overlaps.append(fraction if ignored else iou(box, other))
        clear = all(abs(overlap - 0.5) > 1e-5 for overlap in overlaps)
        if clear and prior not in found.prior.tolist():
            assert bool(found.ignored[0, prior]) == any(overlap > 0.5 for overlap in overlaps)


@settings(max_examples=50)
@given(box_targets(HW, most=20), seeds, st.integers(1, 20))
def test_aligned_positives_lie_in_their_object_and_are_few(target: BoxTargets, seed: int, most: int) -> None:
    points = cell_points([torch.zeros(1, 1, 6, 10), torch.zeros(1, 1, 3, 5)], STRIDES)
    rng = np.random.default_rng(seed)
    boxes = torch.from_numpy(boxes_inside(HW, 75, rng))
    scores = torch.from_numpy(rng.random((75, 3), dtype=np.float32) * rng.choice([0, 1e-6, 1], (75, 1)).astype("f4"))
    found = assign_one(TaskAlignedAssigner(most), scores, boxes, points, target)
    objects = counted(target)
    positives = [(prior, index) for prior, index in enumerate(found.target_index.tolist()) if index >= 0]
    for prior, index in positives:
        (x, y), (x1, y1, x2, y2) = points.centres[prior].tolist(), objects[index]
        grown = [max(side, 16 * 1.001) / 2 for side in (x2 - x1, y2 - y1)]  # to the finest cell
        assert abs(x - (x1 + x2) / 2) < grown[0] + 1e-4
        assert abs(y - (y1 + y2) / 2) < grown[1] + 1e-4
    for index in range(len(objects)):
        assert sum(i == index for _, i in positives) <= most
    for index, (box, label) in enumerate(zip(objects, target.labels[~target.ignore].tolist(), strict=True)):
        mine = [prior for prior, i in positives if i == index]
        overlaps = [iou(boxes[prior].tolist(), box) for prior in mine]
        aligned = [float(scores[prior, label]) * u**6 for prior, u in zip(mine, overlaps, strict=True)]
        if aligned and max(aligned) > 1e-30:  # t of the paper, scaled so that the best one is the best overlap
            expected = [t / max(aligned) * max(overlaps) for t in aligned]
            np.testing.assert_allclose(found.alignment[mine], expected, rtol=1e-4, atol=1e-6)
    assert ((found.alignment >= 0) & (found.alignment <= 1)).all()
    assert (found.alignment[found.target_index < 0] == 0).all()
    inside = [
        any(x1 < x < x2 and y1 < y < y2 for x1, y1, x2, y2 in target.boxes[target.ignore].tolist())
        for x, y in points.centres.tolist()
    ]
    assert found.ignored.tolist() == [i < 0 and at for i, at in zip(found.target_index.tolist(), inside, strict=True)]


@given(box_targets(HW), seeds, st.integers(0, 40), st.booleans())
def test_regions_by_thresholds(target: BoxTargets, seed: int, num: int, allow_low_quality_matches: bool) -> None:
    rng = np.random.default_rng(seed)
    regions = torch.from_numpy(boxes_inside(HW, num, rng))
    if num > 2:
        regions[0, 2:] = regions[0, :2]  # without an area
        regions[1] = target.boxes[0] if len(target) else regions[2]
    found = RegionAssigner(0.6, 0.3, allow_low_quality_matches).assign(regions, target)
    places = torch.nonzero(~target.ignore).flatten().tolist()
    ious = pairwise_iou(target.boxes[places], regions).tolist()  # held against exact numbers elsewhere
    ignored: list[Row] = target.boxes[target.ignore].tolist()
    for region, box in enumerate(regions.tolist()):
        overlaps = [row[region] for row in ious]
        best = max(overlaps, default=0.0)
        positive = best >= 0.6 and bool(overlaps)
        if allow_low_quality_matches:
            positive |= any(row[region] > 0 and row[region] == max(row) for row in ious)
        index = int(found.objects[region])
        assert (index >= 0) == positive
        if positive:
            assert overlaps[places.index(index)] == best
        area = (box[2] - box[0]) * (box[3] - box[1])
        crowded = any(inside(box, other) > 0.5 * area for other in ignored)
        assert bool(found.negative[region]) == (best < 0.3 and not positive and not crowded)


def inside(box: Row, other: Row) -> float:
    sides = [max(min(box[k + 2], other[k + 2]) - max(box[k], other[k]), 0.0) for k in (0, 1)]
    return sides[0] * sides[1]


@given(box_targets(HW, most=60), seeds, st.integers(1, 50), st.floats(0, 1), st.booleans())
def test_samples_few_and_different(target: BoxTargets, seed: int, num: int, fraction: float, training: bool) -> None:
    regions = torch.from_numpy(boxes_inside(HW, 80, np.random.default_rng(seed)))
    assignment = RegionAssigner(0.5, 0.4, True).assign(regions, target)
    drawn = RegionSampler(num, fraction).train(training)(assignment).tolist()
    positives, negatives = int(assignment.positive.sum()), int(assignment.negative.sum())
    assert drawn == sorted(set(drawn))
    num_positives = int(assignment.positive[drawn].sum())
    assert num_positives == min(positives, int(num * fraction))
    assert len(drawn) - num_positives == min(negatives, num - num_positives) == int(assignment.negative[drawn].sum())


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


def logit(fraction: float) -> float:
    return math.log(fraction / (1 - fraction))


@given(boxes_of_cells(32))
def test_grid_cells_can_say_every_box(found: tuple[Row, int, int]) -> None:
    (x1, y1, x2, y2), row, column = found
    raw = torch.zeros(1, 5 * 2 + 3, 3, 5)
    wanted = [(x1 + x2) / 64 - column, (y1 + y2) / 64 - row, math.sqrt((x2 - x1) / 160), math.sqrt((y2 - y1) / 96)]
    raw[0, 5:9, row, column] = torch.tensor([logit(min(fraction, 1 - 1e-7)) for fraction in wanted])
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
        below, fraction = int(cell), cell - int(cell)
        raw[0, 32 * side + below, row, column] = math.log(max(1 - fraction, 1e-30))
        raw[0, 32 * side + below + 1, row, column] = math.log(max(fraction, 1e-30))
    scheme = TaskAlignedScheme(3, (8,), TaskAlignedAssigner(10), reg_max=32)
    boxes = scheme.decode([raw]).boxes.view(12, 20, 4)
    expected = torch.cat([point - cells[:2] * 8, point + cells[2:] * 8])
    torch.testing.assert_close(boxes[row, column], expected, rtol=0, atol=1e-3)
