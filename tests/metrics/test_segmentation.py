"""The evaluator of semantic segmentation: batches to original sizes, states that merge, wrong input."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from detseg.errors import DetsegError
from detseg.metrics.segmentation import SegmentationEvaluator
from detseg.ops.letterbox import Letterbox, logits_at_original_size
from detseg.structures import Batch, BoxTargets, ClassTable, UInt8Array

CLASSES = ClassTable(("sky", "road", "car"))
INPUT_HW = (32, 48)
SIZES = ((40, 50), (17, 31), (64, 64), (33, 48))  # of the original images


def truth_of(image_id: int) -> UInt8Array:
    random = np.random.default_rng(image_id)
    hw = SIZES[image_id % len(SIZES)]
    truth = random.integers(0, len(CLASSES), hw, dtype=np.uint8)
    truth[random.random(hw) < 0.1] = 255
    return truth


def logits_of(image_id: int) -> Tensor:
    return torch.randn(len(CLASSES), *INPUT_HW, generator=torch.Generator().manual_seed(image_id))


def batch_of(image_ids: Sequence[int]) -> tuple[Batch, Tensor]:
    truths = [truth_of(image_id) for image_id in image_ids]
    batch = Batch(
        images=torch.zeros(len(truths), 3, *INPUT_HW, dtype=torch.uint8),
        targets=[BoxTargets.empty() for _ in truths],
        indices=list(image_ids),
        letterboxes=[Letterbox.fit(truth.shape, INPUT_HW) for truth in truths],
        image_ids=list(image_ids),
        semantic_truths=truths,
    )
    return batch, torch.stack([logits_of(image_id) for image_id in image_ids])


def evaluator_of(*batches: Sequence[int]) -> SegmentationEvaluator:
    evaluator = SegmentationEvaluator(CLASSES)
    for image_ids in batches:
        evaluator.update_batch(*batch_of(image_ids))
    return evaluator


def test_a_batch_is_scored_at_the_size_of_the_labels() -> None:
    """Four sizes, by numpy's argmax and the counts of pairs."""
    result = evaluator_of([0, 1, 2, 3]).compute()
    expected = np.zeros((3, 3), dtype=np.int64)
    for image_id in range(4):
        truth = truth_of(image_id)
        large = logits_at_original_size(logits_of(image_id), Letterbox.fit(truth.shape, INPUT_HW))
        predicted = np.argmax(large.numpy(), axis=0)
        for true, found in itertools.product(range(3), range(3)):
            expected[true, found] += np.count_nonzero((truth == true) & (predicted == found))
    assert [list(row) for row in result.confusion] == expected.tolist()
    assert result.num_images == 4
    assert result.num_pixels + result.num_ignored == sum(height * width for height, width in SIZES)


def test_boundary_iou_is_over_all_images_together() -> None:
    """Width 1 pixel; 3 × 3 squares on 9 × 9: one found exactly, one missed.  Car: 8 pixels in both bands, 8 more in
    the truth's.  Sky: the rim and the ring around the hole (32 + 16) agree once; once the ring is only the truth's."""
    truth = np.zeros((9, 9), dtype=np.uint8)
    truth[3:6, 3:6] = 2
    evaluator = SegmentationEvaluator(CLASSES, boundary_width=0.05)
    evaluator.update(truth, truth)
    evaluator.update(np.zeros_like(truth), truth)
    sky, road, car = evaluator.compute().classes
    assert car.boundary_iou == 8 / 16
    assert sky.boundary_iou == (48 + 32) / (48 + 48)
    assert np.isnan(road.boundary_iou)


@pytest.mark.parametrize("num_ranks", [2, 3, 4])
def test_merged_ranks_are_identical_to_one_process_in_any_order(num_ranks: int) -> None:
    """Seven images, image i on rank i mod R, in batches of two; the last rank of four has only one."""
    whole = evaluator_of([0, 1], [2, 3], [4, 5], [6]).compute()
    ranks = [evaluator_of(*([k] for k in range(rank, 7, num_ranks))) for rank in range(num_ranks)]
    states = [rank.state() for rank in ranks]
    for order in itertools.permutations(range(num_ranks)):
        merged = SegmentationEvaluator(CLASSES)
        for rank in order:
            merged.merge(states[rank])
        assert merged.compute() == whole


def test_a_state_is_plain_integers_and_does_not_change_later() -> None:
    evaluator = evaluator_of([0])
    state = evaluator.state()
    before = {name: array.copy() for name, array in state.items()}
    evaluator.update_batch(*batch_of([1]))
    assert all(array.dtype == np.int64 and np.array_equal(array, before[name]) for name, array in state.items())
    evaluator.merge(SegmentationEvaluator(CLASSES).state())  # a process without images
    assert evaluator.compute() == evaluator_of([0, 1]).compute()


def test_an_image_counts_once_and_overlapping_states_raise() -> None:
    once = evaluator_of([0, 1])
    assert evaluator_of([0], [0, 1], [1]).compute() == once.compute()
    with pytest.raises(ValueError, match="image 1 and 0 others are in both evaluators"):
        once.merge(evaluator_of([1, 2]).state())
    assert once.compute() == evaluator_of([0, 1]).compute()


def test_reset_inference_mode_and_its_end() -> None:
    """Lightning validates in inference mode, and merges after it."""
    evaluator = evaluator_of([0, 1])
    evaluator.reset()
    with torch.inference_mode():
        evaluator.update_batch(*batch_of([0]))
    evaluator.merge(evaluator_of([3]).state())
    assert evaluator.compute() == evaluator_of([0, 3]).compute()


@pytest.mark.filterwarnings("error")
def test_arrays_and_tensors_of_both_types_are_one_and_read_only_ones_raise_no_warning() -> None:
    truth = truth_of(0)
    maps = [np.roll(np.where(truth == 255, 0, truth), 1, axis=1), truth]
    results = []
    for kind in (np.uint8, np.int64):
        arrays = [labels.astype(kind) for labels in maps]
        for array in arrays:
            array.flags.writeable = False
        for given in (arrays, [torch.tensor(labels.astype(kind)) for labels in maps]):
            evaluator = SegmentationEvaluator(CLASSES)
            evaluator.update(*given)
            results.append(evaluator.compute())
    assert results == results[:1] * 4


def test_wrong_input() -> None:
    batch, logits = batch_of([0, 1])
    evaluator = SegmentationEvaluator(CLASSES)
    for wrong in (logits[:, :2], logits[:1]):
        with pytest.raises(ValueError, match=r"of 2 images with a semantic truth and 3 classes, got \([12], "):
            evaluator.update_batch(batch, wrong)
    for value in (float("nan"), float("inf"), float("-inf")):
        wrong = logits.clone()
        wrong[1, 2, 3, 4] = value
        with pytest.raises(DetsegError, match=r"logits are NaN or infinite, so .* has training diverged"):
            evaluator.update_batch(batch, wrong)
    with pytest.raises(ValueError, match=r"expected a label map of shape \(H, W\), got shape \(1, 2, 3\)"):
        evaluator.update(np.zeros((1, 2, 3), np.uint8), np.zeros((1, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="truth: expected labels 0 to 2 of 3 classes, or 255 to ignore, got 3"):
        evaluator.update(np.zeros((2, 2), np.uint8), np.full((2, 2), 3, np.uint8))
    assert evaluator.compute().num_images == 0
    for num_classes in (0, 256):
        with pytest.raises(ValueError, match=f"classes: expected 1 to 255, got {num_classes}"):
            SegmentationEvaluator(ClassTable(tuple(map(str, range(num_classes)))))
    for width in (0, 0.6):
        with pytest.raises(ValueError, match=r"boundary_width: expected a number above 0 and up to 0\.5"):
            SegmentationEvaluator(CLASSES, width)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same_numbers() -> None:
    batch, logits = batch_of([0, 1, 2, 3])
    evaluator = SegmentationEvaluator(CLASSES)
    evaluator.update_batch(batch, logits.cuda())
    on_gpu, on_cpu = evaluator.compute(), evaluator_of([0, 1, 2, 3]).compute()
    # Interpolation may round otherwise there: a pixel in a thousand may change between classes that are level.
    difference = np.abs(np.subtract(on_gpu.confusion, on_cpu.confusion)).sum()
    assert difference <= 2 * on_cpu.num_pixels / 1000
    evaluator.merge(SegmentationEvaluator(CLASSES).state())
    assert evaluator.compute() == on_gpu
    evaluator.update(torch.full((2, 2), 3, dtype=torch.uint8, device="cuda"), np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="predicted: expected labels 0 to 2 of 3 classes, got 3"):
        evaluator.compute()
