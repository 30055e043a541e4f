"""Necks beyond their contract."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detseg.models.layers import CSPLayer
from detseg.models.necks import FPN, PAN


def test_fpn_has_the_same_channels_everywhere() -> None:
    assert FPN((8, 16, 32), (8, 16, 32), channels=24).channels == (24, 24, 24)


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


def test_pan_scales_its_bottlenecks_with_depth() -> None:
    for depth, blocks in ((0.33, 1), (0.67, 2), (1.0, 3)):
        neck = PAN((8, 16, 32), (8, 16, 32), (8, 16, 32), depth)
        assert [len(layer.blocks) for layer in neck.modules() if isinstance(layer, CSPLayer)] == [blocks] * 4


def test_pan_of_one_map_passes_it_on() -> None:
    feature = torch.rand(1, 8, 4, 4)
    (out,) = PAN((8,), (16,), (8,), depth=1.0)([feature])
    assert torch.equal(out, feature)
    with pytest.raises(ValueError, match="one map keeps its 8 channels, got 16"):
        PAN((8,), (16,), (16,), depth=1.0)
