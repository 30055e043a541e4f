"""What a network sees: the filters of its first layer, its feature maps, and how far around a place each of them looks.

The effective receptive field (Luo et al. 2016, "Understanding the Effective Receptive Field in Deep Convolutional
Neural Networks") is the gradient of one cell by the input: much smaller than what the kernels could reach.

Letters: B images, K channels, h and w pixels of the network input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from detseg.structures import FloatArray

_TWO_SIGMA = 1 - 0.9545  # of the maximum, as in the paper


@dataclass(frozen=True, eq=False)
class ReceptiveField:
    """How far the central cell of a feature map looks."""

    stride: int  # input pixels per cell of the map
    gradient: Tensor  # (h, w) float32 on the CPU, the mean absolute gradient of the cell by each pixel; the most is 1

    @property
    def is_inside(self) -> Tensor:
        """(h, w) bool: the pixels whose gradient is above 4.55 % of the largest, two sigma of a Gaussian."""
        return self.gradient > _TWO_SIGMA

    @property
    def size(self) -> float:
        """The square root of their number, pixels of the network input."""
        return float(self.is_inside.sum().sqrt())

    @property
    def is_cut(self) -> bool:
        """Whether it reaches the border of the input, so that a larger input would show a larger field."""
        inside = self.is_inside
        return bool(inside[[0, -1]].any() or inside[:, [0, -1]].any())


def receptive_fields(
    features: Callable[[Tensor], Sequence[Tensor]], strides: Sequence[int], images: Tensor
) -> list[ReceptiveField]:
    """The effective receptive field of the central cell of each map, averaged over images.

    Args:
        features: (B, 3, h, w) images to one map a stride, such as ``model.features``; in evaluation mode.
        strides: of the maps.
        images: (B, 3, h, w) float in [0, 1]; several, as a single one says more of itself than of the network.
    """
    totals = [torch.zeros(images.shape[-2:]) for _ in strides]
    for image in images:
        pixels = image[None].clone().requires_grad_()
        for total, x in zip(totals, features(pixels), strict=True):
            central = x[0, :, x.shape[2] // 2, x.shape[3] // 2].sum()
            (gradient,) = torch.autograd.grad(central, pixels, retain_graph=True)
            total += gradient[0].abs().sum(dim=0).cpu()
    tiny = torch.finfo(torch.float32).tiny
    return [
        ReceptiveField(stride, total / total.max().clamp(min=tiny))
        for stride, total in zip(strides, totals, strict=True)
    ]


def describe_fields(fields: Sequence[ReceptiveField], sizes: FloatArray | None = None) -> str:
    """One line: how far each map sees, and how large the objects are; ``sizes``: (T,) pixels of the network input, the
    square roots of the areas of their boxes."""
    seen = [f"{field.size:.0f} px{' or more' if field.is_cut else ''} at stride {field.stride}" for field in fields]
    line = f"the network sees {', '.join(seen)} (effective, 2 sigma, in pixels of its input)"
    if sizes is None or not len(sizes):
        return line
    least, most = np.percentile(sizes, (5, 95))
    return f"{line}; nine of ten objects are {least:.0f} to {most:.0f} px"


def first_filters(model: nn.Module) -> Tensor | None:
    """The (K, 3, k, k) float32 filters of the first convolution of a model's backbone, those of the largest norm first;
    None where it does not see RGB."""
    first = next((m for m in cast(nn.Module, model.backbone).modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.weight.shape[1] != 3:
        return None
    weight = first.weight.detach().float().cpu()
    return weight[weight.flatten(1).norm(dim=1).argsort(descending=True)]
