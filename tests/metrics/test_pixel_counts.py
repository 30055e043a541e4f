"""Pixels by true and predicted label and bands along outlines: by hand, by loops over pixels, and wrong labels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from detseg.metrics.segmentation import (
    band_overlaps,
    band_width,
    bands,
    check_labels,
    count_by_scatter,
    count_with_opencv,
    pair_counts,
)
from detseg.structures import BoolArray, UInt8Array


def random_pair(num_classes: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(predicted, truth), uint8, 20 % of the truth ignored; the highest label occurs."""
    random = np.random.default_rng(0)
    predicted = random.integers(0, num_classes, shape, dtype=np.uint8)
    truth = random.integers(0, num_classes, shape, dtype=np.uint8)
    truth[random.random(shape) < 0.2] = 255
    predicted.flat[:1] = truth.flat[:1] = num_classes - 1
    return torch.from_numpy(predicted), torch.from_numpy(truth)


def one_by_one(predicted: Tensor, truth: Tensor) -> list[list[int]]:
    counts = np.zeros((256, 256), dtype=np.int64)
    np.add.at(counts, (truth.flatten().numpy(), predicted.flatten().numpy()), 1)
    rows: list[list[int]] = counts.tolist()
    return rows


def test_a_4_by_4_map_counted_by_hand() -> None:
    truth = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 255], [2, 2, 1, 255], [2, 2, 2, 0]], dtype=torch.uint8)
    predicted = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1], [2, 0, 0, 2], [2, 2, 1, 0]], dtype=torch.uint8)
    counts = pair_counts(predicted, truth)
    # Truth 0: 5 pixels, one of them taken for 1.  Truth 1: 4, one taken for 0.  Truth 2: 5, one for 0, one for 1.
    assert counts[:3, :3].tolist() == [[4, 1, 0], [1, 3, 0], [1, 1, 3]]
    assert counts[255, :3].tolist() == [0, 1, 1]
    assert (counts.dtype, int(counts.sum())) == (torch.int64, 16)


@pytest.mark.parametrize("num_classes", [1, 2, 21, 255])
@pytest.mark.parametrize("shape", [(2, 33, 41), (0, 0), (1, 1), (1, 300_000)])
def test_pixels_counted_one_by_one(num_classes: int, shape: tuple[int, ...]) -> None:
    """Both ways of counting (the one for GPUs runs on a CPU too), all types, and maps that are not contiguous."""
    predicted, truth = random_pair(num_classes, shape)
    expected = one_by_one(predicted, truth)
    for first, second in ((torch.uint8, torch.uint8), (torch.int64, torch.uint8), (torch.uint8, torch.int64)):
        counts = pair_counts(predicted.to(first), truth.to(second))
        assert counts.tolist() == expected
        check_labels(counts, num_classes)
    assert torch.equal(count_by_scatter(predicted, truth), count_with_opencv(predicted, truth))
    strided = predicted.mT[..., ::2, :], truth.mT[..., ::2, :]
    assert pair_counts(*strided).tolist() == one_by_one(*strided)


def test_more_pixels_than_float32_counts() -> None:
    """2²⁴ + 1 is the first whole number that float32, in which OpenCV counts, does not have."""
    labels = torch.zeros((1 << 24) + 3, dtype=torch.uint8)
    assert int(pair_counts(labels, labels)[0, 0]) == (1 << 24) + 3


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        (3, 0, "predicted: expected labels 0 to 2 of 3 classes, got 3"),
        (255, 255, "predicted: expected labels 0 to 2 of 3 classes, got 255"),
        (0, 3, "truth: expected labels 0 to 2 of 3 classes, or 255 to ignore, got 3"),
        (0, 254, "or 255 to ignore, got 254"),
        (-1, 0, r"got 255, or a label outside 0 to 255 in one of the maps"),
        (0, -1, r"\(pixels to ignore are 255 in the truth, not -1\)"),
        *[
            (predicted, truth, "outside 0 to 255")
            for predicted, truth in ((256, 1), (0, 511), (0, -(2**63)), (2**40, 0))
        ],
    ],
)
def test_wrong_labels(predicted: int, truth: int, message: str) -> None:
    for dtype in (torch.uint8, torch.int64) if 0 <= predicted < 256 > truth >= 0 else (torch.int64,):
        with pytest.raises(ValueError, match=message):
            check_labels(pair_counts(*(torch.tensor([0, label], dtype=dtype) for label in (predicted, truth))), 3)


def test_wrong_shapes_and_types() -> None:
    labels = torch.zeros(2, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"got \(2, 3\) predicted and \(6,\) true"):
        pair_counts(labels, labels.flatten())
    with pytest.raises(ValueError, match=r"truth: expected labels as uint8 or int64, got torch\.float32"):
        pair_counts(labels, labels.float())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_on_a_gpu_the_host_does_not_wait(dtype: torch.dtype) -> None:
    predicted, truth = random_pair(21, (2, 64, 64))
    maps = predicted.to("cuda", dtype), truth.to("cuda", dtype)
    torch.cuda.set_sync_debug_mode("error")
    try:
        counts = pair_counts(*maps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert counts.tolist() == one_by_one(predicted, truth)


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


def test_band_width_by_hand() -> None:
    """Diagonals of 500, 625 (12.5 rounds to the even number, as in the paper's code), 5 (at least a pixel) and 50."""
    assert [band_width(hw, 0.02) for hw in ((300, 400), (375, 500), (3, 4))] == [10, 12, 1]
    assert band_width((30, 40), 0.5) == 25


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
