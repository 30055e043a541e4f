"""Blocks: sizes, what they see, and what they gather."""

from __future__ import annotations

import pytest
import torch

from detseg.models.layers import ConvNormAct, CSPLayer, Normalize, SpatialPyramidPool


@pytest.mark.parametrize(("kernel_size", "stride", "out_hw"), [(3, 1, (7, 10)), (1, 1, (7, 10)), (3, 2, (4, 5))])
def test_convolution_keeps_or_halves_rounding_up(kernel_size: int, stride: int, out_hw: tuple[int, int]) -> None:
    out = ConvNormAct(4, 6, kernel_size, stride)(torch.rand(2, 4, 7, 10))
    assert out.shape == (2, 6, *out_hw)


def test_pooling_sees_thirteen_cells() -> None:
    """Three windows of 5 in a row: a change reaches 6 cells to every side and no further."""
    block = SpatialPyramidPool(8).eval()
    dark = torch.zeros(1, 8, 31, 31)
    dot = dark.clone()
    dot[0, :, 15, 15] = 50
    changed = torch.nonzero((block(dot) != block(dark))[0].any(dim=0))
    assert changed.amin(dim=0).tolist() == [9, 9]
    assert changed.amax(dim=0).tolist() == [21, 21]


def test_csp_layer_gathers_every_link_of_its_chain() -> None:
    # Half of 16 channels passes straight, half feeds a chain of 3; the straight half, the chain's input and its three
    # outputs meet: 5 times 8 channels.
    layer = CSPLayer(12, 16, num_blocks=3)
    convolution = layer.merge[0]
    assert isinstance(convolution, torch.nn.Conv2d)
    assert convolution.in_channels == 40
    assert layer(torch.rand(2, 12, 5, 6)).shape == (2, 16, 5, 6)


def test_normalisation_by_hand() -> None:
    # (0.5 - 0.4) / 0.2 = 0.5; (0.5 - 0.5) / 0.25 = 0; (0.5 - 0.6) / 0.1 = -1.
    normalize = Normalize((0.4, 0.5, 0.6), (0.2, 0.25, 0.1))
    out = normalize(torch.full((2, 3, 4, 5), 0.5))
    torch.testing.assert_close(out[:, :, 0, 0], torch.tensor([[0.5, 0.0, -1.0]] * 2))
