"""TaskAlignedAssigner on a toy grid, with alignments worked out by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detseg.models.yolo import assign_task_aligned
from detseg.models.yolo.assign_task_aligned import TaskAlignedAssigner
from detseg.models.yolo.objects import batch_objects
from detseg.models.yolo.priors import Points, cell_points
from detseg.ops.boxes import pairwise_iou
from detseg.structures import BoxTargets
from tests.models.yolo.aligned import OfPriors, assign_one

Row = tuple[float, float, float, float]

# 32 × 32 pixels, stride 8: points at 4, 12, 20, 28; number row * 4 + column.
POINTS = cell_points([torch.zeros(1, 1, 4, 4)], (8,))


def box_targets(boxes: list[Row], labels: list[int], ignore: list[bool] | None = None) -> BoxTargets:
    return BoxTargets(
        torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels), torch.tensor(ignore or [False] * len(boxes))
    )


def assign(
    predictions: dict[int, tuple[Row, list[float]]], target: BoxTargets, assigner: TaskAlignedAssigner
) -> OfPriors:
    """Assign with a box and class scores for some points; the others predict a dot far away with no score."""
    boxes = torch.tensor([[1000.0, 1000, 1001, 1001]]).repeat(16, 1)
    scores = torch.zeros(16, 2)
    for prior, (box, classes) in predictions.items():
        boxes[prior], scores[prior] = torch.tensor(box), torch.tensor(classes)
    return assign_one(assigner, scores, boxes, POINTS, target)


def positives(assignment: OfPriors) -> dict[int, int]:
    """Positive priors and the objects that they have."""
    found = torch.nonzero(assignment.target_index >= 0).flatten().tolist()
    return {prior: int(assignment.target_index[prior]) for prior in found}


# Object (0, 0, 16, 16) of class 1; points 0, 1, 4 and 5 lie inside.  Alignment is s · u² here.
OBJECT: Row = (0, 0, 16, 16)
PREDICTIONS: dict[int, tuple[Row, list[float]]] = {
    0: ((0, 0, 16, 16), [0.9, 0.25]),  # IoU 1, t = 0.25
    1: ((0, 0, 16, 8), [0.9, 0.8]),  # IoU 1/2, t = 0.8 / 4 = 0.2
    4: ((0, 0, 8, 8), [0.9, 0.8]),  # IoU 1/4, t = 0.8 / 16 = 0.05
    5: ((0, 0, 16, 12), [0.9, 0.8]),  # IoU 3/4, t = 0.8 · 9/16 = 0.45
    2: ((0, 0, 16, 16), [0.9, 1.0]),  # outside, at (20, 4), however well it fits
}


def test_the_best_aligned_points_inside_are_positive() -> None:
    target = box_targets([OBJECT], [1])
    for top, expected in ((1, {5}), (2, {5, 0}), (3, {5, 0, 1}), (10, {5, 0, 1, 4})):
        found = assign(PREDICTIONS, target, TaskAlignedAssigner(top, alpha=1.0, beta=2.0))
        assert positives(found) == dict.fromkeys(expected, 0)
        assert not found.ignored.any()


def test_the_best_prior_gets_the_best_overlap() -> None:
    # The best of the two is 5 with t = 0.45; the best IoU of the two is 1, that of 0.  So 5 gets 1 and 0 gets
    # 0.25 / 0.45 · 1.
    found = assign(PREDICTIONS, box_targets([OBJECT], [1]), TaskAlignedAssigner(2, alpha=1.0, beta=2.0))
    expected = torch.zeros(16)
    expected[5], expected[0] = 1.0, 0.25 / 0.45
    torch.testing.assert_close(found.alignment, expected)


def test_alignment_asks_for_the_score_of_the_object_s_class() -> None:
    # Class 0 scores 0.9 everywhere, so that the overlap decides: 0 (IoU 1), then 5 (0.9 · 9/16 = 0.50625 of 0.9).
    found = assign(PREDICTIONS, box_targets([OBJECT], [0]), TaskAlignedAssigner(2, alpha=1.0, beta=2.0))
    assert positives(found) == {0: 0, 5: 0}
    torch.testing.assert_close(found.alignment[[0, 5]], torch.tensor([1.0, 0.5625]))


def test_exponents_weigh_score_and_overlap() -> None:
    # alpha 0, beta 1: the IoU alone; alpha 1, beta 0: the score alone, of equals all.
    by_overlap = assign(PREDICTIONS, box_targets([OBJECT], [1]), TaskAlignedAssigner(2, alpha=0.0, beta=1.0))
    assert set(positives(by_overlap)) == {0, 5}
    by_score = assign(PREDICTIONS, box_targets([OBJECT], [1]), TaskAlignedAssigner(3, alpha=1.0, beta=0.0))
    assert set(positives(by_score)) == {1, 4, 5}


def test_tiny_alignments_are_normalised_all_the_same() -> None:
    # IoU 1/256 with beta 6: t = (1/256)⁶ · 0.01 = 3.6e-17.
    found = assign({0: ((0, 0, 1, 1), [0.0, 0.01])}, box_targets([OBJECT], [1]), TaskAlignedAssigner(1, 1.0, 6.0))
    assert found.alignment[0].item() == pytest.approx(1 / 256)


def test_a_prior_wanted_by_two_goes_to_the_larger_overlap() -> None:
    # Point 1 = (12, 4) lies in A = (0, 0, 16, 16) and B = (8, 0, 24, 16).  Its box (6, 0, 22, 16) overlaps A by 160 of
    # 352, B by 224 of 288.  A's class scores so high that A's alignment, 1 · 0.4545 = 0.45, beats B's, 0.3 · 0.7778.
    predictions: dict[int, tuple[Row, list[float]]] = {
        0: ((0, 0, 16, 8), [0.5, 0.0]),  # IoU with A 1/2: t = 0.25
        1: ((6, 0, 22, 16), [1.0, 0.3]),
    }
    target = box_targets([(0, 0, 16, 16), (8, 0, 24, 16)], [0, 1])
    found = assign(predictions, target, TaskAlignedAssigner(2, alpha=1.0, beta=1.0))
    assert found.target_index[0] == 0
    assert found.target_index[1] == 1
    # What A has lost does not count in its normalisation: its best prior is 0 now.
    torch.testing.assert_close(found.alignment[[0, 1]], torch.tensor([0.5, 224 / 288]))


def test_indices_count_without_the_ignored_objects() -> None:
    target = box_targets([(16, 16, 32, 32), OBJECT], [0, 1], [True, False])
    found = assign(PREDICTIONS, target, TaskAlignedAssigner(2, alpha=1.0, beta=2.0))
    assert positives(found) == {5: 0, 0: 0}


def test_ignore_regions_hold_no_negatives() -> None:
    # (0, 0, 24, 16) covers points 0, 1, 2, 4, 5, 6; 0 and 5 are positive and stay so.
    target = box_targets([OBJECT, (0, 0, 24, 16)], [1, 0], [False, True])
    found = assign(PREDICTIONS, target, TaskAlignedAssigner(2, alpha=1.0, beta=2.0))
    assert torch.nonzero(found.ignored).flatten().tolist() == [1, 2, 4, 6]
    assert set(positives(found)) == {0, 5}


def test_an_image_without_objects_has_negatives_only() -> None:
    found = assign(PREDICTIONS, BoxTargets.empty(), TaskAlignedAssigner())
    assert positives(found) == {}
    assert found.target_index.shape == found.alignment.shape == found.ignored.shape == (16,)
    assert not found.alignment.any()
    assert not found.ignored.any()


def uniform(points: Points) -> tuple[Tensor, Tensor]:
    """What an untrained network predicts: boxes of 15 cells, scores of 0.01."""
    reach = 7.5 * points.strides[:, None]
    return torch.cat([points.centres - reach, points.centres + reach], dim=1), torch.full(
        (len(points.strides), 1), 0.01
    )


@pytest.mark.parametrize("box", [(15.9, 15.9, 16.1, 16.1), (7.5, 0, 8.5, 32), (0, 0, 0.5, 0.5), (31.5, 5, 32, 6)])
def test_an_object_between_the_points_gets_one(box: Row) -> None:
    boxes, scores = uniform(POINTS)
    found = assign_one(TaskAlignedAssigner(), scores, boxes, POINTS, box_targets([box], [0]))
    assert len(positives(found)) >= 1
    assert found.alignment.max() > 0


@given(data=st.data())
def test_every_lone_object_gets_a_prior(data: st.DataObject) -> None:
    points = cell_points([torch.zeros(1, 1, 12, 20), torch.zeros(1, 1, 6, 10)], (8, 16))
    x1, y1 = data.draw(st.floats(0, 159.5)), data.draw(st.floats(0, 95.5))
    x2, y2 = data.draw(st.floats(x1 + 0.01, 160)), data.draw(st.floats(y1 + 0.01, 96))
    boxes, scores = uniform(points)
    found = assign_one(TaskAlignedAssigner(10), scores, boxes, points, box_targets([(x1, y1, x2, y2)], [0]))
    chosen = torch.nonzero(found.target_index >= 0).flatten()
    assert 1 <= len(chosen) <= 10
    assert ((found.alignment >= 0) & (found.alignment <= 1)).all()
    assert (found.alignment[found.target_index < 0] == 0).all()
    near = points.centres[chosen]  # inside the object, or within half a cell of one that is smaller than a cell
    assert (near[:, 0] > min(x1, (x1 + x2) / 2 - 4.01)).all()
    assert (near[:, 0] < max(x2, (x1 + x2) / 2 + 4.01)).all()


def crowded_batch(counts: list[int], num_classes: int) -> tuple[Tensor, Tensor, Points, list[BoxTargets]]:
    """Random predictions near the points, and so many objects an image, one of seven of them ignored."""
    generator = torch.Generator().manual_seed(0)
    points = cell_points([torch.zeros(1, 1, 12, 12), torch.zeros(1, 1, 6, 6)], (8, 16))
    reach = 30 * torch.rand(len(counts), len(points.centres), 4, generator=generator)
    boxes = torch.cat([points.centres - reach[..., :2], points.centres + reach[..., 2:]], dim=-1)
    logits = torch.randn(len(counts), len(points.centres), num_classes, generator=generator)
    targets = []
    for num in counts:
        corner = 80 * torch.rand(num, 2, generator=generator)
        corners = torch.cat([corner, corner + 1 + 40 * torch.rand(num, 2, generator=generator)], dim=1).clamp(max=96)
        labels = torch.randint(0, num_classes, (num,), generator=generator)
        targets.append(BoxTargets(corners, labels, torch.arange(num) % 7 == 3))
    return logits, boxes, points, targets


def dense_reference(scores: Tensor, boxes: Tensor, points: Points, target: BoxTargets, top: int) -> OfPriors:
    """The paper's rule with a matrix of every object and every prior of one image, and loops over objects."""
    objects, labels = target.boxes[~target.ignore], target.labels[~target.ignore]
    num_priors = len(scores)
    iou = pairwise_iou(objects, boxes)
    t = scores[:, labels].T * iou**6
    wanted = torch.zeros(len(objects), num_priors, dtype=torch.bool)
    for i, box in enumerate(objects):
        half = ((box[2:] - box[:2]) / 2).clamp(min=4.004)
        middle = (box[:2] + box[2:]) / 2
        inside = ((points.centres - middle).abs() < half).all(dim=1).nonzero()[:, 0]
        best = inside[t[i, inside].argsort(descending=True, stable=True)[:top]]
        wanted[i, best] = True
    target_index, alignment = torch.full((num_priors,), -1), torch.zeros(num_priors)
    for prior in wanted.any(dim=0).nonzero()[:, 0].tolist():
        target_index[prior] = iou[:, prior].where(wanted[:, prior], -1.0).argmax()
    for i in range(len(objects)):
        mine = target_index == i
        if mine.any():
            alignment[mine] = (t[i, mine] / t[i, mine].max().clamp(min=1e-37) * iou[i, mine].max()).clamp(max=1)
    x, y = points.centres[:, 0, None], points.centres[:, 1, None]
    x1, y1, x2, y2 = target.boxes[target.ignore].T
    ignored = ((x > x1) & (x < x2) & (y > y1) & (y < y2)).any(dim=1) & (target_index < 0)
    return OfPriors(target_index, alignment, ignored)


@pytest.mark.parametrize("pairs", [1, 500, 2**30])
def test_a_batch_is_assigned_as_its_images_are(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the sizes of the chunks, and however unevenly the objects lie over the images."""
    monkeypatch.setattr(assign_task_aligned, "PAIRS_AT_ONCE", pairs)
    logits, boxes, points, targets = crowded_batch([0, 3, 60, 1, 12], num_classes=3)
    found = TaskAlignedAssigner(5)(logits, boxes, points, batch_objects(targets))
    first = 0
    for image, target in enumerate(targets):
        expected = dense_reference(logits[image].sigmoid(), boxes[image], points, target, top=5)
        rows = slice(first, first + len(target))
        first += len(target)
        place = (~target.ignore).cumsum(0) - 1
        row, column = found.positive[rows].nonzero(as_tuple=True)
        prior = found.prior[rows][row, column]
        target_index, alignment = torch.full_like(expected.target_index, -1), torch.zeros(len(points.centres))
        target_index[prior], alignment[prior] = place[row], found.weight[rows][row, column]
        assert len(torch.unique(prior)) == len(prior)
        assert target_index.tolist() == expected.target_index.tolist()
        torch.testing.assert_close(alignment, expected.alignment)
        assert found.ignored[image].tolist() == expected.ignored.tolist()
