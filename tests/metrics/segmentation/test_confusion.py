"""The confusion matrix: counted by hand, by a loop over pixels, in every kind of input, and wrong input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from detseg.metrics.segmentation import confusion
from detseg.metrics.segmentation.confusion import ConfusionMatrix, histogram, histogram_by_scatter


def random_pair(num_classes: int, shape: tuple[int, ...], seed: int = 0, ignored: float = 0.2) -> tuple[Tensor, Tensor]:
    """(predicted, truth), uint8, a share of the truth ignored."""
    random = np.random.default_rng(seed)
    predicted = random.integers(0, num_classes, shape, dtype=np.uint8)
    truth = random.integers(0, num_classes, shape, dtype=np.uint8)
    truth[random.random(shape) < ignored] = 255
    return torch.from_numpy(predicted), torch.from_numpy(truth)


def looped(predicted: Tensor, truth: Tensor, num_classes: int) -> list[list[int]]:
    counts = [[0] * num_classes for _ in range(num_classes)]
    for found, true in zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True):
        if true != 255:
            counts[true][found] += 1
    return counts


def test_a_4_by_4_map_counted_by_hand() -> None:
    truth = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 255], [2, 2, 1, 255], [2, 2, 2, 0]], dtype=torch.uint8)
    predicted = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1], [2, 0, 0, 2], [2, 2, 1, 0]], dtype=torch.uint8)
    matrix = ConfusionMatrix(3)
    matrix.update(predicted, truth)
    # Truth 0: 5 pixels, one of them taken for 1.  Truth 1: 4, one taken for 0.  Truth 2: 5, one for 0, one for 1.
    assert matrix.counts.tolist() == [[4, 1, 0], [1, 3, 0], [1, 1, 3]]
    assert matrix.counts.dtype == torch.int64
    assert matrix.num_ignored == 2


@pytest.mark.parametrize("num_classes", [1, 2, 21, 254, 255])
@pytest.mark.parametrize("dtypes", [(torch.uint8, torch.uint8), (torch.int64, torch.uint8), (torch.uint8, torch.int64)])
def test_equals_a_loop_over_pixels(num_classes: int, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    predicted, truth = random_pair(num_classes, (2, 33, 41))
    predicted[0, 0, 0] = truth[0, 0, 0] = num_classes - 1
    matrix = ConfusionMatrix(num_classes)
    matrix.update(predicted.to(dtypes[0]), truth.to(dtypes[1]))
    assert matrix.counts.tolist() == looped(predicted, truth, num_classes)
    assert matrix.num_ignored == int((truth == 255).sum())


def test_pieces_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    predicted, truth = random_pair(5, (101,))
    monkeypatch.setattr(confusion, "_PIECE", 7)
    matrix = ConfusionMatrix(5)
    matrix.update(predicted, truth)
    assert matrix.counts.tolist() == looped(predicted, truth, 5)


@pytest.mark.parametrize("piece", [1 << 24, 1001])
def test_neighbours_that_are_counted_in_turn(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """More pixels than eight tables have cells, and not a multiple of eight; wrong labels are refused there too."""
    monkeypatch.setattr(confusion, "_PIECE", piece)
    predicted, truth = random_pair(5, (5003,))
    matrix = ConfusionMatrix(5)
    matrix.update(predicted, truth.to(torch.int64))
    assert matrix.counts.tolist() == looped(predicted, truth, 5)
    for name, labels in (("predicted", predicted), ("truth", truth)):
        wrong = labels.clone()
        wrong[4000] = 9
        with pytest.raises(ValueError, match=f"{name}: expected labels 0 to 4 of 5 classes.* got 9"):
            matrix.update(*((wrong, truth) if name == "predicted" else (predicted, wrong)))
    assert matrix.counts.tolist() == looped(predicted, truth, 5)


def test_more_pixels_than_float32_counts() -> None:
    """2²⁴ + 1 is the first whole number that float32, in which OpenCV counts, does not have."""
    labels = torch.zeros((1 << 24) + 3, dtype=torch.uint8)
    matrix = ConfusionMatrix(1)
    matrix.update(labels, labels)
    assert matrix.counts.tolist() == [[(1 << 24) + 3]]


def test_maps_that_are_not_contiguous_and_empty_ones() -> None:
    predicted, truth = random_pair(4, (20, 30))
    matrix = ConfusionMatrix(4)
    matrix.update(predicted.T[::2], truth.T[::2])
    matrix.update(predicted[:0], truth[:0])
    assert matrix.counts.tolist() == looped(predicted.T[::2], truth.T[::2], 4)


def test_the_parts_merged_are_the_whole() -> None:
    predicted, truth = random_pair(6, (4, 50, 50))
    whole, first, second = (ConfusionMatrix(6) for _ in range(3))
    whole.update(predicted, truth)
    first.update(predicted[:1], truth[:1])
    second.update(predicted[1:], truth[1:])
    second.merge(first)
    assert torch.equal(second.table, whole.table)
    assert torch.equal(ConfusionMatrix.from_table(whole.table).counts, whole.counts)
    with pytest.raises(ValueError, match="expected a matrix of 6 classes, got one of 5"):
        whole.merge(ConfusionMatrix(5))


def test_what_is_handed_out_is_a_copy() -> None:
    matrix = ConfusionMatrix(2)
    matrix.counts.add_(1)
    assert matrix.counts.sum() == 0


def test_counts_go_on_after_inference_mode() -> None:
    predicted, truth = random_pair(3, (9, 9))
    with torch.inference_mode():
        matrix = ConfusionMatrix(3)
        matrix.update(predicted, truth)
    matrix.update(predicted, truth)
    assert (matrix.counts / 2).tolist() == looped(predicted, truth, 3)


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        ([0, 3], [0, 1], "predicted: expected labels 0 to 2 of 3 classes, got 3"),
        ([0, 255], [0, 255], "predicted: expected labels 0 to 2 of 3 classes, got 255"),
        ([0, 1], [0, 3], "truth: expected labels 0 to 2 of 3 classes, or 255 to ignore, got 3"),
        ([0, 1], [254, 255], "or 255 to ignore, got 254"),
        ([0, -1], [0, 1], r"expected 0 to 2, or 255 in the truth .* got some outside 0 to 255"),
        ([0, 1], [0, -1], r"\(not -1\)"),
        ([0, 256], [0, 1], "outside 0 to 255"),
        ([0, 1], [511, 1], "outside 0 to 255"),
        ([0, 1], [-(2**63), 1], "outside 0 to 255"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_wrong_labels_are_refused_and_nothing_is_counted(
    predicted: list[int], truth: list[int], message: str, dtype: torch.dtype
) -> None:
    if dtype == torch.uint8 and not 0 <= min(predicted + truth) <= max(predicted + truth) < 256:
        dtype = torch.int64
    matrix = ConfusionMatrix(3)
    with pytest.raises(ValueError, match=message):
        matrix.update(torch.tensor(predicted, dtype=dtype), torch.tensor(truth, dtype=dtype))
    assert matrix.table.sum() == 0


def test_wrong_shapes_types_and_numbers_are_refused() -> None:
    labels = torch.zeros(2, 3, dtype=torch.uint8)
    matrix = ConfusionMatrix(3)
    with pytest.raises(ValueError, match=r"got \(2, 3\) predicted and \(6,\) true"):
        matrix.update(labels, labels.flatten())
    with pytest.raises(ValueError, match=r"truth: expected labels as uint8 or int64, got torch\.float32"):
        matrix.update(labels, labels.float())
    for num_classes in (0, 256):
        with pytest.raises(ValueError, match=f"num_classes: expected 1 to 255, got {num_classes}"):
            ConfusionMatrix(num_classes)


def test_both_histograms_equal_numpys() -> None:
    """The one for GPUs runs on a CPU too."""
    values = torch.randint(0, 50, (1000,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    expected = np.bincount(values.numpy(), minlength=60).tolist()
    assert histogram(values, 60).tolist() == expected
    assert histogram_by_scatter(values, 60).tolist() == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_host_does_not_wait_and_wrong_labels_are_found_later() -> None:
    predicted, truth = (labels.cuda() for labels in random_pair(21, (2, 64, 64)))
    matrix = ConfusionMatrix(21, "cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        matrix.update(predicted, truth)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert matrix.counts.tolist() == looped(predicted, truth, 21)
    matrix.update(predicted + 240, truth)
    with pytest.raises(ValueError, match="predicted: expected labels 0 to 20 of 21 classes"):
        _ = matrix.counts
