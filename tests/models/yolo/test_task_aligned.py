"""TaskAlignedScheme: losses of tiny maps worked out by hand, and decoding."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detseg.models.yolo.assign_task_aligned import TaskAlignedAssigner
from detseg.models.yolo.task_aligned import TaskAlignedScheme, distribution_focal_loss
from detseg.structures import BoxTargets

LN2 = math.log(2)
LN3 = math.log(3)

# 16 × 16 pixels, stride 8: points (4, 4), (12, 4), (4, 12), (12, 12).  Two bins, 0 and 1 cell: zeros say half a cell
# to every side, so that the four boxes are the four cells.
SCHEME = TaskAlignedScheme(2, (8,), TaskAlignedAssigner(10, alpha=1.0, beta=1.0), 2, 7.5, 0.5, 1.5)


def box_targets(
    boxes: list[tuple[float, float, float, float]], labels: list[int], ignore: list[bool] | None = None
) -> BoxTargets:
    return BoxTargets(torch.tensor(boxes), torch.tensor(labels), torch.tensor(ignore or [False] * len(boxes)))


def cell_maps(num_images: int = 1) -> Tensor:
    """Boxes that are the cells; scores of one half, but 3/4 for class 1 in the first cell."""
    raw = torch.zeros(num_images, 10, 2, 2)
    raw[:, 9, 0, 0] = LN3
    return raw


def values(maps: Tensor, targets: list[BoxTargets], scheme: TaskAlignedScheme = SCHEME) -> dict[str, float]:
    return {name: term.item() for name, term in scheme.losses([maps], targets).items()}


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
    expected = {
        "box": 7.5 * 0.5 * (1 - 0.4655018),
        "dfl": 1.5 * 0.5 * LN2,
        "class": 0.5 * (2 * LN2 - 0.5 * LN3 + 7 * LN2),
    }
    assert found == pytest.approx(expected, abs=1e-5)


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


def test_weights_scale_their_terms() -> None:
    scheme = TaskAlignedScheme(2, (8,), TaskAlignedAssigner(10, 1.0, 1.0), 2, 15.0, 1.0, 0.0)
    target = [box_targets([(0.0, 0, 8, 4)], [1])]
    one, other = values(cell_maps(), target), values(cell_maps(), target, scheme)
    assert other == pytest.approx({"box": 2 * one["box"], "class": 2 * one["class"], "dfl": 0.0})


def test_distribution_focal_loss_by_hand() -> None:
    # Probabilities 0.1, 0.2, 0.3, 0.4 of the bins 0 to 3.  1.25: ¾ ln 5 + ¼ ln (10/3); 0: ln 10; 2.5: ½ ln (10/3) +
    # ½ ln 2.5; 9 is beyond the last bin and counts as 2.99: 0.01 ln (10/3) + 0.99 ln 2.5.
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(1, 4, 4)
    expected = (1.5080717 + 2.3025851 + 1.0601318 + 0.9191675) / 4
    loss = distribution_focal_loss(logits, torch.tensor([[1.25, 0.0, 2.5, 9.0]]))
    assert loss.shape == (1,)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_distribution_focal_loss_is_least_where_the_mean_is_the_distance() -> None:
    probabilities = torch.tensor([0.0, 0.75, 0.25, 0.0]).clamp(min=1e-9)
    distance = torch.full((1, 4), 1.25)
    best = distribution_focal_loss(probabilities.log().expand(1, 4, 4), distance)
    for other in ([0.0, 0.7, 0.3, 0.0], [0.0, 0.8, 0.2, 0.0], [0.25, 0.25, 0.5, 0.0]):
        logits = torch.tensor(other).clamp(min=1e-9).log().expand(1, 4, 4)
        assert distribution_focal_loss(logits, distance) > best


def test_maps_built_for_a_box_decode_to_it() -> None:
    # Strides 8 and 16, 32 × 48 pixels: 4 × 6 and 2 × 3 points.  Point (12, 4) is number 1: 1, 0, 2 and 3 cells of 8
    # pixels give (4, 4, 28, 28).  Point (40, 24) of stride 16 is 24 + 5: 1.5 cells, halfway between the bins 1 and 2,
    # and 0, 0.5, 0.5 give (16, 24, 48, 32).
    scheme = TaskAlignedScheme(3, (8, 16), TaskAlignedAssigner(), bins=4)
    fine, coarse = torch.zeros(1, 19, 4, 6), torch.zeros(1, 19, 2, 3)
    fine[0, 16:], coarse[0, 16:] = -20, -20
    for side, distance in enumerate((1, 0, 2, 3)):
        fine[0, 4 * side + distance, 0, 1] = 50
    for side, pair in enumerate(((1, 2), (0, 0), (0, 1), (0, 1))):
        coarse[0, [4 * side + distance for distance in pair], 1, 2] = 50
    fine[0, 17, 0, 1], coarse[0, 18, 1, 2] = LN3, 0
    boxes, scores = scheme.decode([fine, coarse])
    assert boxes.shape == (1, 30, 4)
    assert scores.shape == (1, 30, 3)
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
    boxes, scores = scheme.decode([bias[None, :, None, None].expand(1, -1, 2, 2)])
    torch.testing.assert_close(boxes[0, 1], torch.tensor([-48.0, -56, 72, 64]))
    torch.testing.assert_close(scores, torch.full((1, 4, 3), 13 / 625 / 3))


def test_gradient_of_the_box_reaches_the_positives_only() -> None:
    maps = cell_maps().requires_grad_()
    terms = SCHEME.losses([maps], [box_targets([(0.0, 0, 8, 4)], [1])])
    (gradient,) = torch.autograd.grad(terms["box"] + terms["dfl"], maps)
    assert (gradient[0, :8, 0, 0].abs().sum() > 0).item()
    gradient[0, :8, 0, 0] = 0
    assert not gradient.any()  # and none to the classes: the assignment is no part of the graph
