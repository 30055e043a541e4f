"""The task-aligned scheme: assignments, losses of tiny maps and decoding worked out by hand."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from detseg.models.yolo import task_aligned
from detseg.models.yolo.scheme import Points, batch_objects, cell_points
from detseg.models.yolo.task_aligned import (
    TaskAlignedAssigner,
    TaskAlignedAssignment,
    TaskAlignedScheme,
    distribution_focal_loss,
)
from detseg.ops.boxes import pairwise_iou
from detseg.structures import BoxTargets
from tests.models.targets import box_targets


class OfPriors(NamedTuple):
    """``target_index`` (A,): position among the counted objects, -1: negative; ``alignment`` (A,); ``ignored`` (A,)."""

    target_index: Tensor
    alignment: Tensor
    ignored: Tensor


def assign_one(
    assigner: TaskAlignedAssigner, scores: Tensor, boxes: Tensor, points: Points, target: BoxTargets
) -> OfPriors:
    """Assign (A, C) class probabilities and (A, 4) boxes of one image."""
    return of_priors(assigner(scores.logit()[None], boxes[None], points, batch_objects([target])), 0, 0, target)


def of_priors(found: TaskAlignedAssignment, image: int, first: int, target: BoxTargets) -> OfPriors:
    """What an image of a batch was assigned, whose objects begin at row ``first``."""
    rows, place = slice(first, first + len(target)), (~target.ignore).cumsum(0) - 1
    row, column = found.positive[rows].nonzero(as_tuple=True)
    prior = found.prior[rows][row, column]
    assert len(torch.unique(prior)) == len(prior), "a prior has two objects"
    assert not found.weight[~found.positive].any()
    target_index, alignment = torch.full(found.ignored.shape[1:], -1), torch.zeros(found.ignored.shape[1:])
    target_index[prior], alignment[prior] = place[row], found.weight[rows][row, column]
    return OfPriors(target_index, alignment, found.ignored[image])


Row = tuple[float, float, float, float]
LN2, LN3 = math.log(2), math.log(3)

# 16 × 16 pixels, stride 8: points (4, 4), (12, 4), (4, 12), (12, 12).  Two bins, 0 and 1 cell: zeros say half a cell
# to every side, so that the four boxes are the four cells.
SCHEME = TaskAlignedScheme(2, (8,), TaskAlignedAssigner(10, alpha=1.0, beta=1.0), 2, 7.5, 0.5, 1.5)


def cell_maps(num_images: int = 1) -> Tensor:
    """Boxes that are the cells; scores of one half, but 3/4 for class 1 in the first cell."""
    raw = torch.zeros(num_images, 10, 2, 2)
    raw[:, 9, 0, 0] = LN3
    return raw


def values(maps: Tensor, targets: list[BoxTargets]) -> dict[str, float]:
    return {name: term.item() for name, term in SCHEME.losses([maps], targets).items()}


def test_losses_of_a_box_that_fits() -> None:
    # IoU 1: weight 1, box loss 0.  Half a cell to each side stands between bins of probability ½: ln 2.  Class: the
    # positive says 3/4 of 1, seven others ½ of 0.
    found = values(cell_maps(), [box_targets([(0.0, 0, 8, 8)], [1])])
    expected = {"box": 0.0, "dfl": 1.5 * LN2, "class": 0.5 * (-math.log(0.75) + 7 * LN2)}
    assert found == pytest.approx(expected, abs=1e-5)


def test_losses_of_a_box_that_fits_by_half() -> None:
    # The object (0, 0, 8, 4) is narrower than a cell and so reaches the point (4, 4), whose box is (0, 0, 8, 8): IoU ½
    # is the weight.  CIoU: centres 2 apart, 4 / 128; v = 4/π² · (atan 2 - atan 1)² = 0.0419565, trade-off
    # v / (1 - ½ + v) = 0.0774173: 0.5 - 0.03125 - 0.0032482 = 0.4655018.  Their sum is less than 1: divide by 1.
    # DFL: ½, ½, ½ and 0 cells, each ln 2.  Class: ln 4 - ½ ln 3 for 3/4 of a goal of ½, and seven times ln 2.
    found = values(cell_maps(), [box_targets([(0.0, 0, 8, 4)], [1])])
    expected = {"box": 7.5 * 0.5 * (1 - 0.4655018), "dfl": 1.5 * 0.5 * LN2, "class": 0.5 * (9 * LN2 - 0.5 * LN3)}
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_class_weight_counts_the_class_loss_of_positives_alone() -> None:
    # As in the first test, but the positive's two classes, ¾ of 1 and ½ of 0, count three times; six others once.
    weights = torch.tensor([1.0, 3.0])
    scheme = TaskAlignedScheme(2, (8,), TaskAlignedAssigner(10, alpha=1.0, beta=1.0), 2, 7.5, 0.5, 1.5, weights)
    target = [box_targets([(0.0, 0, 8, 8)], [1])]
    found = {name: term.item() for name, term in scheme.losses([cell_maps()], target).items()}
    assert found["class"] == pytest.approx(0.5 * (3 * (-math.log(0.75) + LN2) + 6 * LN2), abs=1e-5)
    assert {**found, "class": 0} == {**values(cell_maps(), target), "class": 0}
    assert "class_weights" not in scheme.state_dict()
    # Of the other class, and of a candidate that another object takes, nothing counts more.
    both = [box_targets([(0.0, 0, 8, 8), (0.0, 0, 8, 4)], [0, 1])]
    assert scheme.losses([cell_maps()], both)["class"].item() == pytest.approx(values(cell_maps(), both)["class"])


def test_losses_are_divided_by_the_sum_of_the_weights() -> None:
    one = [box_targets([(0.0, 0, 8, 8)], [1])]
    assert values(cell_maps(3), one * 3) == pytest.approx(values(cell_maps(), one), abs=1e-5)


def test_an_ignore_region_takes_its_negatives_out_of_the_class_loss() -> None:
    # (0, 0, 16, 8) covers the two upper points; the lower ones say ½ of 0 twice each.
    found = values(cell_maps(), [box_targets([(0.0, 0, 16, 8)], [0], [True])])
    assert found == pytest.approx({"box": 0.0, "dfl": 0.0, "class": 0.5 * 4 * LN2}, abs=1e-6)


def test_a_positive_inside_an_ignore_region_is_learned() -> None:
    # Of the two upper points the first has the object, the second is left alone.
    found = values(cell_maps(), [box_targets([(0.0, 0, 16, 8), (0.0, 0, 8, 8)], [0, 1], [True, False])])
    assert found["dfl"] == pytest.approx(1.5 * LN2, abs=1e-5)
    assert found["class"] == pytest.approx(0.5 * (-math.log(0.75) + 5 * LN2), abs=1e-5)


def test_objects_are_looked_up_in_their_own_image() -> None:
    """Images with none, one and two objects, some behind ignored ones; every box fits its cell and every score its
    class, so that one wrong look-up costs."""
    targets = [
        box_targets([(0.0, 0, 16, 16), (8.0, 8, 16, 16)], [1, 0], [True, False]),
        BoxTargets.empty(),
        box_targets([(8.0, 0, 16, 8), (0.0, 8, 8, 16), (0.0, 0, 8, 8)], [1, 0, 1], [False, False, True]),
    ]
    maps = torch.zeros(3, 10, 2, 2)
    maps[:, 8:] = -20
    maps[0, 8, 1, 1] = maps[2, 9, 0, 1] = maps[2, 8, 1, 0] = 20
    found = values(maps, targets)
    assert found == pytest.approx({"box": 0.0, "dfl": 1.5 * LN2, "class": 0.0}, abs=1e-5)


def test_distribution_focal_loss_by_hand() -> None:
    # Probabilities 0.1, 0.2, 0.3, 0.4 of the bins 0 to 3.  1.25: ¾ ln 5 + ¼ ln (10/3); 0: ln 10; 2.5: ½ ln (10/3) +
    # ½ ln 2.5; 9 is beyond the last bin and counts as 2.99: 0.01 ln (10/3) + 0.99 ln 2.5.
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(1, 4, 4)
    expected = (1.5080717 + 2.3025851 + 1.0601318 + 0.9191675) / 4
    loss = distribution_focal_loss(logits, torch.tensor([[1.25, 0.0, 2.5, 9.0]]))
    assert loss.shape == (1,)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_maps_built_for_a_box_decode_to_it() -> None:
    # Strides 8 and 16, 32 × 48 pixels: 4 × 6 and 2 × 3 points.  Point (12, 4) is number 1: 1, 0, 2 and 3 cells of 8
    # pixels give (4, 4, 28, 28).  Point (40, 24) of stride 16 is 24 + 5: 1.5 cells, halfway between the bins 1 and 2,
    # and 0, 0.5, 0.5 give (16, 24, 48, 32).
    scheme = TaskAlignedScheme(3, (8, 16), TaskAlignedAssigner(), reg_max=4)
    fine, coarse = torch.zeros(1, 19, 4, 6), torch.zeros(1, 19, 2, 3)
    fine[0, 16:], coarse[0, 16:] = -20, -20
    for side, distance in enumerate((1, 0, 2, 3)):
        fine[0, 4 * side + distance, 0, 1] = 50
    for side, pair in enumerate(((1, 2), (0, 0), (0, 1), (0, 1))):
        coarse[0, [4 * side + distance for distance in pair], 1, 2] = 50
    fine[0, 17, 0, 1], coarse[0, 18, 1, 2] = LN3, 0
    decoded = scheme.decode([fine, coarse])
    boxes, scores = decoded.boxes, decoded.scores
    assert (boxes.shape, scores.shape) == ((1, 30, 4), (1, 30, 3))
    torch.testing.assert_close(boxes[0, 1], torch.tensor([4.0, 4, 28, 28]))
    torch.testing.assert_close(boxes[0, 29], torch.tensor([16.0, 24, 48, 32]))
    torch.testing.assert_close(scores[0, 1], torch.tensor([0.0, 0.75, 0.0]))
    torch.testing.assert_close(scores[0, 29], torch.tensor([0.0, 0.0, 0.5]))


def test_starts_with_uniform_distances_and_small_scores() -> None:
    # 16 equally likely bins: 7.5 cells of 8 pixels to every side of (12, 4).  13 positives in 200 × 200
    # pixels, which are 625 cells, shared by 3 classes: 13 / 625 / 3 = 0.00693.
    scheme = TaskAlignedScheme(3, (8,), TaskAlignedAssigner())
    bias = scheme.initial_bias(8)
    assert bias.shape == (4 * 16 + 3,)
    decoded = scheme.decode([bias[None, :, None, None].expand(1, -1, 2, 2)])
    boxes, scores = decoded.boxes, decoded.scores
    torch.testing.assert_close(boxes[0, 1], torch.tensor([-48.0, -56, 72, 64]))
    torch.testing.assert_close(scores, torch.full((1, 4, 3), 13 / 625 / 3))


def test_gradient_of_the_box_reaches_the_positives_only() -> None:
    maps = cell_maps().requires_grad_()
    terms = SCHEME.losses([maps], [box_targets([(0.0, 0, 8, 4)], [1])])
    (gradient,) = torch.autograd.grad(terms["box"] + terms["dfl"], maps)
    assert (gradient[0, :8, 0, 0].abs().sum() > 0).item()
    gradient[0, :8, 0, 0] = 0
    assert not gradient.any()  # and none to the classes: the assignment is no part of the graph


# 32 × 32 pixels, stride 8: points at 4, 12, 20, 28; number row * 4 + column.
POINTS = cell_points([torch.zeros(1, 1, 4, 4)], (8,))


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
    monkeypatch.setattr(task_aligned, "PAIRS_AT_ONCE", pairs)
    logits, boxes, points, targets = crowded_batch([0, 3, 60, 1, 12], num_classes=3)
    found = TaskAlignedAssigner(5)(logits, boxes, points, batch_objects(targets))
    first = 0
    for image, target in enumerate(targets):
        expected = dense_reference(logits[image].sigmoid(), boxes[image], points, target, top=5)
        own = of_priors(found, image, first, target)
        first += len(target)
        assert own.target_index.tolist() == expected.target_index.tolist()
        torch.testing.assert_close(own.alignment, expected.alignment)
        assert own.ignored.tolist() == expected.ignored.tolist()
