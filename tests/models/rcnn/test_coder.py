from __future__ import annotations

import math

import pytest
import torch

from detseg.models.rcnn.coder import BoxCoder

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
