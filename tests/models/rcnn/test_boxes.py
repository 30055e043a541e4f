"""Differences of boxes and their losses, by hand and against torchvision's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.ops import complete_box_iou_loss, generalized_box_iou_loss

from detseg.models.rcnn.boxes import BoxCoder, BoxLoss, zero_loss

REFERENCE = torch.tensor([[10.0, 20.0, 30.0, 60.0]])  # centre 20, 40; 20 wide, 40 high


def test_differences_by_hand() -> None:
    box = torch.tensor([[15.0, 20.0, 35.0, 100.0]])  # centre 25, 60; 20 wide, 80 high
    expected = torch.tensor([[5 / 20, 20 / 40, 0.0, math.log(2)]])
    torch.testing.assert_close(BoxCoder().encode(box, REFERENCE), expected)
    scaled = expected * torch.tensor([10.0, 10.0, 5.0, 5.0])
    torch.testing.assert_close(BoxCoder(center_scale=10, side_scale=5).encode(box, REFERENCE), scaled)


@pytest.mark.parametrize("coder", [BoxCoder(), BoxCoder(10, 5)])
def test_decoding_undoes_encoding(coder: BoxCoder) -> None:
    low = torch.rand(50, 2, 2) * 100
    references, boxes = torch.cat([low, low + 1 + torch.rand(50, 2, 2) * 50], dim=2).unbind(dim=1)
    torch.testing.assert_close(coder.decode(coder.encode(boxes, references), references), boxes, rtol=0, atol=1e-3)


def test_one_reference_serves_several_differences() -> None:
    deltas = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 0.0, 0.0]]])  # one reference, two classes
    expected = torch.tensor([[[10.0, 20.0, 30.0, 60.0], [30.0, -20.0, 50.0, 20.0]]])
    torch.testing.assert_close(BoxCoder().decode(deltas, REFERENCE[:, None]), expected)


def test_wild_differences_stay_finite() -> None:
    box = BoxCoder().decode(torch.tensor([[0.0, 0.0, 1000.0, 1000.0]]), REFERENCE)
    width, height = (box[0, 2:] - box[0, :2]).tolist()
    assert (width, height) == pytest.approx((20 * 1000 / 16, 40 * 1000 / 16))


CODER = BoxCoder()
REFERENCES = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 30.0]])
BOXES = torch.tensor([[5.0, 0.0, 15.0, 10.0], [20.0, 20.0, 40.0, 30.0]])


def test_smooth_l1_by_hand() -> None:
    # The first object is half a width to the right: 0.5 of one difference, in the straight part: 0.5 - beta / 2.
    loss = BoxLoss("smooth_l1", beta=0.2, weight=3.0)(
        torch.zeros(2, 4), REFERENCES, BOXES, CODER, normaliser=torch.tensor(8.0)
    )
    assert loss.item() == pytest.approx(3 * (0.5 - 0.1) / 8)


def test_giou_by_hand() -> None:
    # Of the first pair: intersection 50, union 150, hull 150; the second pair is the same box.
    loss = BoxLoss("giou", weight=2.0)(torch.zeros(2, 4), REFERENCES, BOXES, CODER, normaliser=torch.tensor(4.0))
    assert loss.item() == pytest.approx(2 * (1 - 50 / 150) / 4)


@pytest.mark.parametrize(
    ("name", "reference"), [("giou", generalized_box_iou_loss), ("ciou", complete_box_iou_loss)], ids=["giou", "ciou"]
)
def test_overlap_losses_are_torchvisions_of_the_decoded_boxes(name: Any, reference: Any) -> None:
    deltas = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)) * 0.3
    expected = reference(CODER.decode(deltas, REFERENCES), BOXES, reduction="sum") / 5
    torch.testing.assert_close(BoxLoss(name)(deltas, REFERENCES, BOXES, CODER, normaliser=torch.tensor(5.0)), expected)


@pytest.mark.parametrize("name", ["smooth_l1", "giou", "ciou"])
def test_no_positives_cost_nothing(name: Any) -> None:
    deltas = torch.zeros(0, 4, requires_grad=True)
    loss = BoxLoss(name)(deltas, torch.zeros(0, 4), torch.zeros(0, 4), CODER, normaliser=torch.tensor(1.0))
    torch.autograd.backward([loss])
    assert loss.item() == 0
    assert deltas.grad is not None


def test_zero_loss_gives_every_parameter_a_gradient() -> None:
    module, features = nn.Linear(2, 2), torch.ones(3, requires_grad=True)
    loss = zero_loss(module, like=features)
    torch.autograd.backward([loss])
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in [*module.parameters(), features])
