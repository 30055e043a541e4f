"""Bands and their overlaps: by distances between pixels, and counted by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from detseg.metrics.segmentation.boundary import band_overlaps, band_width, bands
from detseg.structures import BoolArray, UInt8Array


def blobs(hw: tuple[int, int], num_classes: int, seed: int) -> UInt8Array:
    """A label map of regions larger than a pixel, with some ignored ones."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, num_classes + 1, (max(hw[0] // 7, 1), max(hw[1] // 7, 1)), dtype=np.uint8)
    coarse[coarse == num_classes] = 255
    return cv2.resize(coarse, (hw[1], hw[0]), interpolation=cv2.INTER_NEAREST).reshape(hw).astype(np.uint8)


def band_by_distance(mask: BoolArray, width: int) -> BoolArray:
    """Pixels of the mask no further than ``width`` (chessboard distance) from one outside it or outside the image."""
    outside = np.argwhere(~np.pad(mask, 1)) - 1
    band = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        band[y, x] = np.abs(outside - (y, x)).max(axis=1).min() <= width
    return band


@pytest.mark.parametrize(
    ("hw", "fraction", "width"),
    [
        ((300, 400), 0.02, 10),  # diagonal 500
        ((375, 500), 0.02, 12),  # diagonal 625: 12.5 rounds to the even number, as in the paper's code
        ((3, 4), 0.02, 1),  # a tenth of a pixel is one
        ((30, 40), 0.5, 25),
    ],
)
def test_band_width_by_hand(hw: tuple[int, int], fraction: float, width: int) -> None:
    assert band_width(hw, fraction) == width


@pytest.mark.parametrize("width", [1, 2, 3, 9, 40])
@pytest.mark.parametrize("hw", [(23, 31), (1, 17), (40, 2)])
def test_bands_equal_distances(hw: tuple[int, int], width: int) -> None:
    labels = blobs(hw, 3, seed=width)
    found = bands(torch.from_numpy(labels), width).numpy()
    assert found.shape == hw
    for label in range(3):
        np.testing.assert_array_equal(found == label, band_by_distance(labels == label, width))
    assert (found[labels == 255] == 255).all()


@pytest.mark.parametrize("seed", range(3))
def test_overlaps_equal_intersection_and_union_of_masks(seed: int) -> None:
    truth, predicted = blobs((40, 52), 4, seed), blobs((40, 52), 4, seed + 100)
    predicted[predicted == 255] = 0
    intersections, unions = band_overlaps(torch.from_numpy(predicted), torch.from_numpy(truth), 5, 3).numpy()
    for label in range(5):  # the last does not occur
        true = band_by_distance(truth == label, 3)
        found = band_by_distance((predicted == label) & (truth != 255), 3)
        assert intersections[label] == np.count_nonzero(true & found)
        assert unions[label] == np.count_nonzero(true | found)


def test_a_square_off_by_one_counted_by_hand() -> None:
    """An 8 × 8 square on 20 × 20 pixels, predicted one column too far right; width 1.

    Each band has 8² - 6² = 28 pixels; 7 of the upper and of the lower row are in both, 28 + 28 - 14 = 42 in either.
    """
    truth = torch.zeros(20, 20, dtype=torch.uint8)
    predicted = truth.clone()
    truth[6:14, 5:13], predicted[6:14, 6:14] = 1, 1
    assert band_overlaps(predicted, truth, 2, 1)[:, 1].tolist() == [14, 42]
