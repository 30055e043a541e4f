"""Blocks and necks beyond their contract: sizes, what they see, and what they gather."""

from __future__ import annotations

import torch
from torch import nn

from detseg.models.layers import CSPLayer, Normalize, SpatialPyramidPool
from detseg.models.necks import FPN, PAN


def test_pooling_sees_thirteen_cells() -> None:
    """Three windows of 5 in a row: a change reaches 6 cells to every side and no further."""
    torch.manual_seed(0)  # of random weights some let no channel see a bright dot
    block = SpatialPyramidPool(8).eval()
    dark = torch.zeros(1, 8, 31, 31)
    dot = dark.clone()
    dot[0, :, 15, 15] = 50
    changed = torch.nonzero((block(dot) != block(dark))[0].any(dim=0))
    assert changed.amin(dim=0).tolist() == [9, 9]
    assert changed.amax(dim=0).tolist() == [21, 21]


def test_csp_layer_gathers_every_link_of_its_chain() -> None:
    # Half of 16 channels passes straight; with the input of the chain and its three outputs, 5 times 8 channels meet.
    layer = CSPLayer(12, 16, num_blocks=3)
    assert layer.merge[0].in_channels == 40
    assert layer(torch.rand(2, 12, 5, 6)).shape == (2, 16, 5, 6)


def test_normalisation_by_hand() -> None:
    # (0.5 - 0.4) / 0.2 = 0.5; (0.5 - 0.5) / 0.25 = 0; (0.5 - 0.6) / 0.1 = -1.
    normalize = Normalize((0.4, 0.5, 0.6), (0.2, 0.25, 0.1))
    out = normalize(torch.full((2, 3, 4, 5), 0.5))
    torch.testing.assert_close(out[:, :, 0, 0], torch.tensor([[0.5, 0.0, -1.0]] * 2))


def test_fpn_adds_the_coarse_map_to_the_four_cells_below() -> None:
    """Without its convolutions, a fine map becomes itself plus the coarse map of twice the size."""
    neck = FPN((1, 1), (8, 16), channels=1)
    neck.lateral = nn.ModuleList([nn.Identity(), nn.Identity()])
    neck.smooth = nn.ModuleList([nn.Identity(), nn.Identity()])
    fine = torch.tensor([[[[1.0, 2, 3, 4], [5, 6, 7, 8]]]])
    coarse = torch.tensor([[[[10.0, 20]]]])
    low, high = neck([fine, coarse])
    assert low.tolist() == [[[[11, 12, 23, 24], [15, 16, 27, 28]]]]
    assert high.tolist() == coarse.tolist()


def test_pan_of_one_map_passes_it_on() -> None:
    feature = torch.rand(1, 8, 4, 4)
    (out,) = PAN((8,), (16,), (8,), depth=1.0)([feature])
    assert torch.equal(out, feature)
