"""AnchorScheme against losses and boxes worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from detseg.models.yolo.anchor import AnchorScheme
from detseg.structures import BoxTargets

# One level of 32 pixels on an image of 32 × 64: two cells of one anchor of 16 × 16.
SCHEME = AnchorScheme(2, (32,), [[(16.0, 16.0)]], box_weight=5.0, objectness_weight=2.0, class_weight=3.0)


def box_targets(boxes: list[tuple[float, float, float, float]], labels: list[int], ignore: list[bool]) -> BoxTargets:
    return BoxTargets(torch.tensor(boxes), torch.tensor(labels), torch.tensor(ignore))


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_loss_of_one_object() -> None:
    # Maps of zeros predict the anchor in the middle of each cell: (8, 8, 24, 24) and (40, 8, 56, 24).  The object
    # (8, 8, 24, 16) has its centre (16, 12) in the first cell and IoU 128 / 256 = 0.5 with that box.
    # Complete IoU: squared distance 4² = 16 of the hull's diagonal 16² + 16² = 512; aspect term
    # 4 / pi² (atan 2 - atan 1)² = 0.4052847 * (1.1071487 - 0.7853982)² = 0.0419564, its weight
    # 0.0419564 / (1 - 0.5 + 0.0419564) = 0.0774166; so 0.5 - 0.03125 - 0.0032481 = 0.4655019.
    terms = SCHEME.losses([torch.zeros(1, 7, 1, 2)], [box_targets([(8.0, 8.0, 24.0, 16.0)], [1], [False])])
    expected = {
        "box": 5 * (1 - 0.4655019),
        "objectness": 2 * 2 * math.log(2),  # two priors at 0.5: ln 2 whatever the target
        "class": 3 * 2 * math.log(2),  # two classes at 0.5
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, abs=1e-5), name


def test_target_of_objectness_is_the_iou_at_the_positive_and_zero_elsewhere() -> None:
    # BCE's gradient by the logit is sigmoid - target: 0.5 - 0.5 = 0 at the positive, 0.5 - 0 at the other prior.
    raw = torch.zeros(1, 7, 1, 2).requires_grad_()
    terms = SCHEME.losses([raw], [box_targets([(8.0, 8.0, 24.0, 16.0)], [1], [False])])
    torch.autograd.backward(terms["objectness"])
    assert raw.grad is not None
    torch.testing.assert_close(raw.grad[0, 4, 0], torch.tensor([0.0, 2 * 0.5]))


def test_losses_are_divided_by_the_positives_or_at_least_by_the_images() -> None:
    one = box_targets([(8.0, 8.0, 24.0, 16.0)], [1], [False])
    both = box_targets([(8.0, 8.0, 24.0, 16.0), (40.0, 8.0, 56.0, 16.0)], [1, 0], [False, False])
    alone = {name: term.item() for name, term in SCHEME.losses([torch.zeros(1, 7, 1, 2)], [one]).items()}
    twice = SCHEME.losses([torch.zeros(1, 7, 1, 2)], [both])  # 2 positives, 1 image
    assert twice["box"].item() == pytest.approx(alone["box"])
    assert twice["objectness"].item() == pytest.approx(alone["objectness"] / 2)
    spread = SCHEME.losses([torch.zeros(3, 7, 1, 2)], [one, BoxTargets.empty(), BoxTargets.empty()])
    assert spread["box"].item() == pytest.approx(alone["box"] / 3)  # 1 positive, 3 images
    assert spread["objectness"].item() == pytest.approx(alone["objectness"])


def test_priors_on_ignored_objects_have_no_objectness_loss() -> None:
    terms = SCHEME.losses([torch.zeros(1, 7, 1, 2)], [box_targets([(0.0, 0.0, 32.0, 32.0)], [1], [True])])
    assert terms["objectness"].item() == pytest.approx(2 * math.log(2))  # that of the second cell
    assert (terms["box"].item(), terms["class"].item()) == (0, 0)


def test_maps_built_for_boxes_decode_to_them() -> None:
    # 64 × 96 pixels, strides 16 and 32, two anchors each; priors 0..47 and 48..59.
    # First box (20, 10, 44, 26): centre (32, 18), fine row 1, on the border of columns 1 and 2, which a sigmoid only
    # nears: column 1 at (almost 1, 0.125); sides 24 × 16 = 3 and 2 times the anchor 8 × 8.
    # Second box (60, 34, 84, 62): centre (72, 48), coarse row 1, column 2 at (0.25, 0.5); sides 24 × 28 = 0.5 and 0.7
    # times the anchor 48 × 40.
    scheme = AnchorScheme(3, (16, 32), [[(4, 4), (8, 8)], [(30, 30), (48, 40)]])
    fine, coarse = torch.full((1, 16, 4, 6), -8.0), torch.full((1, 16, 2, 3), -8.0)
    fine[0, 5:10, 1, 1] = torch.tensor([14.0, logit(0.125), math.log(3), math.log(2), logit(0.9)])
    fine[0, 13:16, 1, 1] = torch.tensor([logit(0.8), logit(0.5), logit(0.1)])
    coarse[0, 5:10, 1, 2] = torch.tensor([logit(0.25), 0, math.log(0.5), math.log(0.7), logit(0.6)])
    boxes, scores = scheme.decode([fine, coarse])
    assert boxes.shape == (1, 60, 4)
    first, second = 2 * (1 * 6 + 1) + 1, 48 + 2 * (1 * 3 + 2) + 1
    torch.testing.assert_close(boxes[0, first], torch.tensor([20.0, 10, 44, 26]), atol=1e-3, rtol=0)
    torch.testing.assert_close(scores[0, first], torch.tensor([0.72, 0.45, 0.09]))
    torch.testing.assert_close(boxes[0, second], torch.tensor([60.0, 34, 84, 62]), atol=1e-3, rtol=0)


def test_initial_bias_starts_at_the_anchors_with_little_objectness() -> None:
    scheme = AnchorScheme(3, (16, 32), [[(4, 4), (8, 8)], [(30, 30), (48, 40)]])
    maps = [scheme.initial_bias(s)[None, :, None, None].expand(1, -1, 64 // s, 96 // s) for s in (16, 32)]
    boxes, scores = scheme.decode(maps)
    torch.testing.assert_close(boxes[0, 1], torch.tensor([4.0, 4, 12, 12]))  # 8 × 8 around (8, 8)
    torch.testing.assert_close(scores, torch.full_like(scores, 0.01 / 4))  # classes at 1 / (3 + 1)


def test_anchors_travel_in_the_state_dict() -> None:
    fitted = AnchorScheme(2, (32,), [[(12.0, 20.0)]])
    fresh = AnchorScheme(2, (32,), [[(1.0, 1.0)]])
    fresh.load_state_dict(fitted.state_dict())
    raw = torch.zeros(1, 7, 1, 2)
    torch.testing.assert_close(fresh.decode([raw]).boxes[0, 0], torch.tensor([10.0, 6, 22, 26]))


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        ([[(4, 4)]], r"for each of the 2 strides, got \[1\]"),
        ([[(4, 4)], [(8, 8), (9, 9)]], r"got \[1, 2\]"),
        ([[], []], r"got \[0, 0\]"),
        ([[(4, 4)], [(8, 0)]], "positive widths and heights"),
    ],
)
def test_anchors_that_do_not_fit_are_refused(anchors: list[list[tuple[float, float]]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnchorScheme(2, (16, 32), anchors)


def test_objects_without_a_free_anchor_are_reported() -> None:
    targets = box_targets([(8.0, 8.0, 24.0, 24.0), (9.0, 9.0, 23.0, 23.0)], [1, 0], [False, False])
    with pytest.warns(UserWarning, match="more anchors a level"):
        SCHEME.losses([torch.zeros(1, 7, 1, 2)], [targets])
