"""Changes of colour as one matrix, against torchvision's functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from detseg.config.schema.data import ColorConfig
from detseg.data.augment.pipeline import changed_colors, hue_matrix, saturation_matrix, with_contrast
from detseg.structures import UInt8Array

NOTHING = ColorConfig(probability=1, brightness=0, contrast=0, saturation=0, hue=0)


def noise(low: int = 0, high: int = 256, seed: int = 0) -> UInt8Array:
    return np.random.default_rng(seed).integers(low, high, (24, 40, 3), dtype=np.uint8)


def exact(image: UInt8Array) -> torch.Tensor:
    """(3, H, W) float64 in 0..1, in which torchvision neither rounds nor clips below the ends."""
    return torch.from_numpy(image).permute(2, 0, 1).double() / 255


def levels(image: torch.Tensor) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = image.permute(1, 2, 0).numpy() * 255
    return found


class Drawn:
    """A stand-in for a generator: the upper ends of all ranges, in a given order."""

    def __init__(self, order: list[int]) -> None:
        self.order = order

    def random(self, length: int) -> npt.NDArray[np.float64]:
        return np.ones(length)

    def permutation(self, length: int) -> npt.NDArray[np.int64]:
        return np.array(self.order)


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.5])
def test_each_change_is_that_of_torchvision(factor: float) -> None:
    image = noise()
    mean = image.reshape(-1, 3).mean(axis=0)
    contrast = with_contrast(np.eye(3, 4), factor, mean)
    ours = image @ contrast[:, :3].T + contrast[:, 3], image @ saturation_matrix(factor).T
    theirs = F.adjust_contrast(exact(image), factor), F.adjust_saturation(exact(image), factor)
    for found, expected in zip(ours, theirs, strict=True):
        # Their weights of the grey are rounded to four digits.
        np.testing.assert_allclose(np.clip(found, 0, 255), levels(expected), atol=0.1)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_changes_in_a_row_are_those_of_torchvision_where_nothing_is_clipped(order: list[int]) -> None:
    image = noise(100, 150)
    largest = {"brightness": 0.1, "contrast": 0.3, "saturation": 0.4}
    functions = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)
    expected = exact(image)
    for change in order:
        expected = functions[change](expected, 1 + list(largest.values())[change])
    drawn: Any = Drawn([*order, 3])
    result = changed_colors(image, NOTHING.model_copy(update=largest), drawn)
    assert result.dtype == np.uint8
    # OpenCV rounds within 0.7; the mean grey is that of every fourth row.
    assert np.abs(levels(expected) - result).max() < 2


def test_a_third_of_the_circle_takes_red_to_green_to_blue() -> None:
    np.testing.assert_allclose(hue_matrix(1 / 3) @ np.eye(3), np.roll(np.eye(3), 1, axis=0), atol=1e-12)
    image = noise()
    for turn in (1 / 3, -1 / 3):
        np.testing.assert_allclose(
            image @ hue_matrix(turn).T, levels(F.adjust_hue(exact(image).float(), turn)), atol=0.01
        )
    np.testing.assert_allclose(hue_matrix(0.2) @ np.ones(3), np.ones(3))
    np.testing.assert_allclose(hue_matrix(0.2) @ hue_matrix(-0.2), np.eye(3), atol=1e-12)


def test_small_turns_of_hue_are_near_those_of_hsv() -> None:
    image = noise()
    for turn in (-0.015, 0.015):
        theirs = levels(F.adjust_hue(exact(image).float(), turn))
        difference = np.abs(np.clip(image @ hue_matrix(turn).T, 0, 255) - theirs)
        assert difference.max() < 13
        assert difference.mean() < 4
        movement = (theirs - image) * (image @ hue_matrix(turn).T - image)
        assert movement.sum() > 0  # the same way round


def test_factors_fill_their_range_and_ranges_of_nothing_change_nothing() -> None:
    image = noise()
    np.testing.assert_array_equal(changed_colors(image, NOTHING, np.random.default_rng(0)), image)
    grey = np.full((8, 8, 3), 100, dtype=np.uint8)
    config = NOTHING.model_copy(update={"brightness": 0.3})
    found = [int(changed_colors(grey, config, np.random.default_rng(seed))[0, 0, 0]) for seed in range(300)]
    assert 70 <= min(found) < 73
    assert 127 < max(found) <= 130
    assert abs(np.mean(found) - 100) < 4  # four standard deviations
