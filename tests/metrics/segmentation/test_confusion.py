"""Pixels by true and predicted label: by hand, by loops over pixels, in every kind of input, and wrong labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from detseg.metrics.segmentation.confusion import check_labels, count_by_scatter, count_with_opencv, pair_counts


def random_pair(num_classes: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(predicted, truth), uint8, 20 % of the truth ignored; the highest label occurs."""
    random = np.random.default_rng(0)
    predicted = random.integers(0, num_classes, shape, dtype=np.uint8)
    truth = random.integers(0, num_classes, shape, dtype=np.uint8)
    truth[random.random(shape) < 0.2] = 255
    predicted.flat[0] = truth.flat[0] = num_classes - 1
    return torch.from_numpy(predicted), torch.from_numpy(truth)


def looped(predicted: Tensor, truth: Tensor) -> list[list[int]]:
    counts = [[0] * 256 for _ in range(256)]
    for found, true in zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True):
        counts[true][found] += 1
    return counts


def test_a_4_by_4_map_counted_by_hand() -> None:
    truth = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 255], [2, 2, 1, 255], [2, 2, 2, 0]], dtype=torch.uint8)
    predicted = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1], [2, 0, 0, 2], [2, 2, 1, 0]], dtype=torch.uint8)
    counts = pair_counts(predicted, truth)
    # Truth 0: 5 pixels, one of them taken for 1.  Truth 1: 4, one taken for 0.  Truth 2: 5, one for 0, one for 1.
    assert counts[:3, :3].tolist() == [[4, 1, 0], [1, 3, 0], [1, 1, 3]]
    assert counts[255, :3].tolist() == [0, 1, 1]
    assert (counts.dtype, int(counts.sum())) == (torch.int64, 16)


@pytest.mark.parametrize("num_classes", [1, 2, 21, 255])
@pytest.mark.parametrize("dtypes", [(torch.uint8, torch.uint8), (torch.int64, torch.uint8), (torch.uint8, torch.int64)])
def test_equals_a_loop_over_pixels(num_classes: int, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    """Both ways of counting; the one for GPUs runs on a CPU too."""
    predicted, truth = random_pair(num_classes, (2, 33, 41))
    counts = pair_counts(predicted.to(dtypes[0]), truth.to(dtypes[1]))
    assert counts.tolist() == looped(predicted, truth)
    assert torch.equal(count_by_scatter(predicted, truth), count_with_opencv(predicted, truth))
    check_labels(counts, num_classes)


def test_maps_that_are_not_contiguous_and_empty_ones() -> None:
    predicted, truth = random_pair(4, (20, 30))
    assert pair_counts(predicted.T[::2], truth.T[::2]).tolist() == looped(predicted.T[::2], truth.T[::2])
    for dtype in (torch.uint8, torch.int64):
        assert not pair_counts(predicted[:0].to(dtype), truth[:0].to(dtype)).any()


def test_more_pixels_than_float32_counts() -> None:
    """2²⁴ + 1 is the first whole number that float32, in which OpenCV counts, does not have."""
    labels = torch.zeros((1 << 24) + 3, dtype=torch.uint8)
    assert int(pair_counts(labels, labels)[0, 0]) == (1 << 24) + 3


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        ([0, 3], [0, 1], "predicted: expected labels 0 to 2 of 3 classes, got 3"),
        ([0, 255], [0, 255], "predicted: expected labels 0 to 2 of 3 classes, got 255"),
        ([0, 1], [0, 3], "truth: expected labels 0 to 2 of 3 classes, or 255 to ignore, got 3"),
        ([0, 1], [254, 255], "or 255 to ignore, got 254"),
        ([0, -1], [0, 1], r"got 255, or a label outside 0 to 255 in one of the maps"),
        ([0, 1], [0, -1], r"\(pixels to ignore are 255 in the truth, not -1\)"),
        ([0, 256], [0, 1], "outside 0 to 255"),
        ([0, 1], [511, 1], "outside 0 to 255"),
        ([0, 1], [-(2**63), 1], "outside 0 to 255"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_wrong_labels(predicted: list[int], truth: list[int], message: str, dtype: torch.dtype) -> None:
    if dtype == torch.uint8 and not 0 <= min(predicted + truth) <= max(predicted + truth) < 256:
        dtype = torch.int64
    with pytest.raises(ValueError, match=message):
        check_labels(pair_counts(torch.tensor(predicted, dtype=dtype), torch.tensor(truth, dtype=dtype)), 3)


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
    assert counts.tolist() == looped(predicted, truth)
