"""Weighted boxes fusion by hand and against the authors' package; masks of what is fused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.predict import Detections
from detseg.predict.combine.fusion import fuse_boxes, fuse_detections
from detseg.structures import ClassTable, InstanceMasks

CLASSES = ClassTable(("cell", "plate"))
SIDE = 1000.0  # pixels; the referee wants fractions


def found(rows: list[tuple[float, ...]], masks: list[tuple[int, int, int, int]] | None = None) -> Detections:
    """Of rows x1, y1, x2, y2, score, label; masks are rectangles in 20 x 20 pixels."""
    table = np.array(rows, dtype=np.float32).reshape(-1, 6)
    dense = np.zeros((len(rows), 20, 20), dtype=np.bool_)
    for i, (x1, y1, x2, y2) in enumerate(masks or []):
        dense[i, y1:y2, x1:x2] = True
    given = None if masks is None else InstanceMasks.from_dense(dense)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64), CLASSES, given)


def test_by_hand() -> None:
    # Of 3 members two have the box (IoU 9/11), with 0.8 and 0.4: the mean of x1 is (0.8 * 0 + 0.4 * 1) / 1.2 = 1/3.
    members = [
        found([(0, 0, 10, 10, 0.8, 0)]),
        found([(1, 0, 11, 10, 0.4, 0), (0, 0, 10, 10, 0.6, 1)]),
        found([]),
    ]
    fused = fuse_detections(members, [1, 1, 1], CLASSES, 0.0)
    np.testing.assert_allclose(fused.boxes, [[1 / 3, 0, 10 + 1 / 3, 10], [0, 0, 10, 10]], rtol=1e-6)
    np.testing.assert_allclose(fused.scores, [0.6 * 2 / 3, 0.6 / 3], rtol=1e-6)  # the mean, times found by / members
    assert fused.labels.tolist() == [0, 1]
    assert len(fuse_detections(members, [1, 1, 1], CLASSES, 0.3)) == 1
    # The first member counts double: (1.6 + 0.4) / 2 boxes * 2 / 4.
    fused = fuse_detections(members, [2, 1, 1], CLASSES, 0.0)
    np.testing.assert_allclose(fused.boxes[0], [0.2, 0, 10.2, 10], rtol=1e-6)
    np.testing.assert_allclose(fused.scores, [0.5, 0.15], rtol=1e-6)
    assert len(fuse_detections([found([])], [1], CLASSES, 0.0)) == 0
    # Two of one member in one cluster, which alone counts: (3 * 0.9 + 3 * 0.9) / 2 * 2 / 4 is more than 1.
    double = fuse_detections([found([(0, 0, 10, 10, 0.9, 0)] * 2), found([])], [3, 1], CLASSES, 0.0)
    assert double.scores.tolist() == [1.0]


def test_masks_by_majority() -> None:
    """Three masks of one object: pixels with half of the votes of 0.9 + 0.5 + 0.3."""
    masks = [(2, 2, 8, 8), (2, 2, 12, 8), (6, 2, 14, 8)]
    scores = (0.9, 0.5, 0.3)
    members = [found([(2, 2, 10, 8, s, 0)], [m]) for s, m in zip(scores, masks, strict=True)]
    fused = fuse_detections(members, [1, 1, 1], CLASSES, 0.0)
    assert fused.masks is not None
    assert fused.masks.hw == (20, 20)
    assert fused.masks.boxes.tolist() == [[2, 2, 8, 8]]  # beyond the first one are 0.8 of 1.7 votes
    fused = fuse_detections(members, [1, 1, 4], CLASSES, 0.0)  # 0.9, 0.5, 1.2 of 2.6: where the third has another one
    assert fused.masks is not None
    assert fused.masks.boxes.tolist() == [[2, 2, 12, 8]]
    assert fused.masks.areas.tolist() == [6 * 10]
    boxes_alone = [*members, found([(2, 2, 10, 8, 0.5, 0)])]
    assert fuse_detections(boxes_alone, [1] * 4, CLASSES, 0.0).masks is None


def scene(seed: int, num_members: int, ties: bool) -> list[tuple[Any, Any, Any]]:
    """Boxes, scores and labels of each member: up to 4 a cell of a grid. With ties several cells have the same scores,
    and members the same boxes; within a cell different boxes differ in score, since the order of these decides."""
    rng = np.random.default_rng(seed)
    members = []
    rows = []
    for cell in rng.choice(16, rng.integers(0, 9), replace=False).tolist():
        corner = np.array([cell % 4, cell // 4] * 2) * 250.0
        low = rng.uniform(0, 80, (4, 2))
        boxes = np.concatenate([low, rng.uniform(120, 240, (4, 2))], axis=1) + corner
        scores = rng.permutation(8)[:4] / 8 + 0.0625 if ties else rng.uniform(0.01, 1, 4)
        rows += list(zip(boxes, scores, rng.integers(0, 2, 4), strict=True))
    for member in range(num_members):
        empty = member == 1 and rng.random() < 0.5
        own = [] if empty else [row for row in rows if rng.random() < 0.6]
        if not ties:
            own = [
                (box + rng.uniform(-9, 9, 4).clip(-box[0] / 2, 9), rng.uniform(0.01, 1), label) for box, _, label in own
            ]
        columns = zip(*own, strict=True) if own else ([], [], [])
        boxes, scores, labels = (np.array(column) for column in columns)
        members.append((boxes.reshape(-1, 4).clip(0, SIDE), scores.astype(float), labels.astype(np.int64)))
    return members


@given(
    seed=st.integers(0, 100_000),
    num_members=st.integers(1, 4),
    ties=st.booleans(),
    weighted=st.booleans(),
    iou=st.sampled_from([0.4, 0.55, 0.7]),
    least=st.sampled_from([0.0, 0.2, 0.5]),
)
@settings(max_examples=150, deadline=None)
def test_the_same_as_the_authors_package(
    seed: int, num_members: int, ties: bool, weighted: bool, iou: float, least: float
) -> None:
    referee = pytest.importorskip("ensemble_boxes").weighted_boxes_fusion
    members = scene(seed, num_members, ties)
    weights = np.arange(1, num_members + 1)[::-1] / 2 if weighted and not ties else np.ones(num_members)
    columns: list[Any] = [list(column) for column in zip(*members, strict=True)]
    boxes, scores, labels = referee(
        [own / SIDE for own in columns[0]], *columns[1:], weights=weights, iou_thr=iou, skip_box_thr=least
    )
    kept = [own[1] >= least for own in members]  # what members' thresholds do
    parts = [np.concatenate([own[i][keep] for own, keep in zip(members, kept, strict=True)]) for i in range(3)]
    of_box = np.repeat(weights, [keep.sum() for keep in kept])
    fused = fuse_boxes(parts[0], parts[1], parts[2], of_box, num_members, float(weights.sum()), iou)
    assert len(fused.scores) == len(scores)
    assert (np.diff(fused.scores) <= 0).all()
    assert sorted(np.concatenate([*fused.clusters, np.zeros(0)]).tolist()) == list(range(len(parts[0])))
    ours = np.column_stack([fused.labels, fused.scores, fused.boxes / SIDE])
    theirs = np.column_stack([labels, scores, boxes]).reshape(-1, 6)
    order = [np.lexsort(np.round(rows.T, 4)) for rows in (ours, theirs)]
    np.testing.assert_allclose(ours[order[0]], theirs[order[1]], atol=1e-5)
