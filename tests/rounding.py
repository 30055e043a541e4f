"""How far two computations of the same thing may lie apart: by what is summed, not by what one machine gave."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from detseg.predict import Detections


def rounding_of(network: nn.Module) -> float:
    """What rounding may change in an output of a network, relative to the largest number of that output.

    Another batch size, or another CPU, adds up a layer's products in another order.  Each sum of n products is then off
    by about eps × sqrt(n), and the errors of layers add up like random steps: together eps × sqrt(all the n).  That is
    sqrt(depth) × eps × sqrt(n) for layers of one size.  Measured on our backbones and timm's: a fifth of it at most.
    """
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    products = sum(layer.weight[0].numel() for layer in layers)
    return float(max(torch.finfo(layer.weight.dtype).eps for layer in layers) * products**0.5)


def rounding_of_losses(network: nn.Module) -> float:
    """The same of a sum of loss terms, relative to it: the largest output counts in it among smaller ones, and loss
    functions are as steep as their outputs are high."""
    return 16 * rounding_of(network)


def assert_close_but_for_rounding(found: Tensor, expected: Tensor, network: nn.Module) -> None:
    """What two runs of a network gave is the same, measured by the largest number among it: a map of small numbers must
    agree as closely as one of large ones."""
    largest = float(expected.abs().max())
    assert largest > 0, "two maps of zeros agree whatever made them"
    torch.testing.assert_close(found, expected, rtol=0, atol=rounding_of(network) * largest)


def assert_same_detections_but_for_rounding(found: Detections, expected: Detections, network: nn.Module) -> None:
    """Each detection has its like among the others.  Not in the same place: scores that differ by less than rounding
    may come in either order.

    A score changes by at most a quarter of what its logit does, and logits are below 16: scores are off by 4 times the
    rounding, coordinates by as much of the largest."""
    assert len(found) == len(expected)
    if not len(expected):
        return
    tolerance = 4 * rounding_of(network)
    largest = float(expected.boxes.max())
    rows = [np.column_stack([d.boxes / largest, d.scores, d.labels]) for d in (expected, found)]
    order = np.abs(rows[0][:, None] - rows[1]).max(axis=2).argmin(axis=1)
    assert sorted(order.tolist()) == list(range(len(found)))
    np.testing.assert_array_equal(found.labels[order], expected.labels)
    np.testing.assert_allclose(found.scores[order], expected.scores, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.boxes[order], expected.boxes, rtol=0, atol=tolerance * largest)
