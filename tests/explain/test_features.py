"""Receptive fields of convolutions whose gradients are known, and the filters of a first layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detseg.explain.features import ReceptiveField, describe_fields, first_filters, receptive_fields


def ones(num: int, **options: int) -> Callable[[Tensor], list[Tensor]]:
    """As many 3 × 3 convolutions of ones in a row."""
    layers = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1, bias=False, groups=3, **options) for _ in range(num)))
    for parameter in layers.parameters():
        nn.init.ones_(parameter)
    return lambda images: [layers(images)]


def field_of(features: Callable[[Tensor], list[Tensor]], side: int = 41, num: int = 2) -> ReceptiveField:
    (field,) = receptive_fields(features, [1], torch.rand(num, 3, side, side))
    return field


def test_field_of_a_few_convolutions_is_all_they_reach() -> None:
    # One: 9 pixels alike. Two: products of 1 2 3 2 1, the least of which is 1/9 of the most.
    assert field_of(ones(1)).size == pytest.approx(3)
    assert field_of(ones(2)).size == pytest.approx(5)
    expected = torch.tensor([1.0, 2, 3, 2, 1]) / 3
    assert torch.allclose(field_of(ones(2)).gradient[18:23, 18:23], torch.outer(expected, expected))


def test_field_of_many_convolutions_is_smaller_than_what_they_reach() -> None:
    kernel = np.ones(1)
    for _ in range(10):
        kernel = np.convolve(kernel, np.ones(3))
    plane = np.outer(kernel, kernel) / kernel.max() ** 2
    field = field_of(ones(10))
    assert field.size == pytest.approx(np.sqrt((plane > 0.0455).sum()), rel=1e-6)
    reached = torch.nonzero(field.gradient)
    assert (reached.amax(dim=0) - reached.amin(dim=0) + 1).tolist() == [21, 21]
    assert 9 < field.size < 15 < 21
    assert not field.is_cut
    assert field_of(ones(10), side=9).is_cut


def test_a_cell_of_a_coarse_map_sees_its_pixels() -> None:
    pool = nn.AvgPool2d(4)
    (field,) = receptive_fields(lambda images: [pool(images)], [4], torch.rand(1, 3, 16, 16))
    assert field.size == 4
    assert field.is_inside[8:12, 8:12].all()


def test_the_line_compares_with_objects() -> None:
    fields = [field_of(ones(1)), field_of(ones(10), side=9)]
    line = describe_fields(fields, np.arange(1.0, 102.0))
    assert line == (
        "the network sees 3 px at stride 1, 9 px or more at stride 1 (effective, 2 sigma, in pixels of its input); "
        "nine of ten objects are 6 to 96 px"
    )
    assert "objects" not in describe_fields(fields, np.zeros(0))


def test_filters_of_the_first_layer_come_strongest_first() -> None:
    model = nn.Module()
    first = nn.Conv2d(3, 2, 3)
    model.backbone = nn.Sequential(first, nn.Conv2d(2, 4, 3))
    with torch.no_grad():
        first.weight[0], first.weight[1] = 0.5, -2.0
    filters = first_filters(model)
    assert filters is not None
    assert filters.shape == (2, 3, 3, 3)
    assert filters[:, 0, 0, 0].tolist() == [-2.0, 0.5]
    model.backbone = nn.Conv2d(12, 2, 3)
    assert first_filters(model) is None
