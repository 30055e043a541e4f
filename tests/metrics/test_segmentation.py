"""Semantic segmentation: published numbers and by hand; pixels and bands by loops; batches, states, wrong input."""

from __future__ import annotations

import io
import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from detseg.errors import DetsegError
from detseg.metrics.segmentation import (
    SegmentationEvaluator,
    band_overlaps,
    band_width,
    bands,
    check_labels,
    count_by_scatter,
    count_with_opencv,
    pair_counts,
)
from detseg.metrics.segmentation_result import SegmentationResult, segmentation_result
from detseg.ops.letterbox import Letterbox
from detseg.ops.tensors import logits_at_original_size
from detseg.structures import Batch, BoolArray, BoxTargets, ClassTable, UInt8Array
from tests.shared_data import shared_data

RESULT_NAMES = ("sky", "road", "car")
NUM_IMAGES = 3


def result_of(confusion: list[list[int]], num_ignored: int = 0) -> SegmentationResult:
    """The result of a matrix, with bands that are intersected by half."""
    names = RESULT_NAMES[: len(confusion)]
    occurs = np.sum(confusion, axis=0) + np.sum(confusion, axis=1) > 0
    overlaps = np.array([occurs * 5, occurs * 10], dtype=np.int64)
    num_images = NUM_IMAGES if num_ignored or occurs.any() else 0
    return segmentation_result(names, np.array(confusion, dtype=np.int64), overlaps, num_images, num_ignored)


def column(result: SegmentationResult, name: str) -> list[float]:
    return [getattr(row, name) for row in result.classes]


def test_every_number_of_the_camvid_oracle() -> None:
    folder = shared_data("oracles", "semseg_camvid_pairs")
    expected = json.loads((folder / "expected.json").read_text())
    evaluator = SegmentationEvaluator(ClassTable(tuple(f"class {k}" for k in range(expected["num_classes"]))))
    for path in sorted((folder / "gt").glob("*.png")):
        evaluator.update(np.asarray(Image.open(folder / "pred" / path.name)), np.asarray(Image.open(path)))
    result = evaluator.compute()

    assert expected.pop("ignore_index") == 255
    assert result.num_images == expected.pop("pairs")
    assert len(result.classes) == expected.pop("num_classes")
    assert [list(row) for row in result.confusion] == expected.pop("confusion_rows_gt_cols_pred")
    assert result.num_pixels + result.num_ignored == 12 * 180 * 240
    computed = {
        "pixel_accuracy": result.pixel_accuracy,
        "class_accuracy": column(result, "recall"),
        "mean_class_accuracy": result.mean_accuracy,
        "iou": column(result, "iou"),
        "mean_iou": result.mean_iou,
        "dice": column(result, "dice"),
        "freq_weighted_iou": result.frequency_weighted_iou,
    }
    assert expected.keys() - computed.keys() == {"kind", "note"}  # no number of the file is left over
    for name, value in computed.items():
        assert value == pytest.approx(expected[name], abs=1e-12, rel=0), name
    assert result.explain() == []


def test_a_4_by_4_map_by_hand() -> None:
    """Truth 5, 4, 5 pixels; predicted 6, 5, 3; right 4, 3, 3 of 14."""
    result = result_of([[4, 1, 0], [1, 3, 0], [1, 1, 3]], num_ignored=2)
    assert column(result, "num_pixels") == [5, 4, 5]
    assert column(result, "num_predicted") == [6, 5, 3]
    assert column(result, "iou") == pytest.approx([4 / 7, 3 / 6, 3 / 5], rel=1e-15)
    assert column(result, "dice") == pytest.approx([8 / 11, 6 / 9, 6 / 8], rel=1e-15)
    assert column(result, "precision") == pytest.approx([4 / 6, 3 / 5, 1], rel=1e-15)
    assert column(result, "recall") == pytest.approx([4 / 5, 3 / 4, 3 / 5], rel=1e-15)
    assert column(result, "boundary_iou") == [0.5, 0.5, 0.5]
    assert result.mean_iou == pytest.approx((4 / 7 + 1 / 2 + 3 / 5) / 3)
    assert result.mean_dice == pytest.approx((8 / 11 + 2 / 3 + 3 / 4) / 3)
    assert result.mean_accuracy == pytest.approx((4 / 5 + 3 / 4 + 3 / 5) / 3)
    assert result.pixel_accuracy == pytest.approx(10 / 14)
    assert result.frequency_weighted_iou == pytest.approx((5 * 4 / 7 + 4 * 1 / 2 + 5 * 3 / 5) / 14)
    assert (result.num_pixels, result.num_ignored, result.num_images) == (14, 2, NUM_IMAGES)
    assert list(result.headline) == ["mIoU", "pixel_accuracy", "boundary_IoU", "Dice"]
    assert tuple(result.headline.values()) == (result.mean_iou, result.pixel_accuracy, 0.5, result.mean_dice)
    assert result.by_class["IoU"] == tuple(column(result, "iou"))


def test_weights_of_classes_give_one_more_metric() -> None:
    """IoU: sky 6/8, road 8/10, car undefined."""
    confusion, bands = np.array([[6, 2, 0], [0, 8, 0], [0, 0, 0]]), np.array([[1, 1, 0], [2, 2, 0]])
    result = segmentation_result(("sky", "road", "car"), confusion, bands, 1, 0, class_weights=(3.0, 1.0, 9.0))
    assert result.headline["weighted_mIoU"] == result.to_dict()["weighted_mIoU"]
    assert result.headline["weighted_mIoU"] == pytest.approx((3 * 6 / 8 + 8 / 10) / 4)


def test_a_class_that_does_not_occur_enters_no_mean() -> None:
    result = result_of([[6, 2, 0], [0, 8, 0], [0, 0, 0]])
    assert result.mean_iou == pytest.approx((6 / 8 + 8 / 10) / 2)
    assert result.mean_accuracy == pytest.approx((6 / 8 + 1) / 2)
    assert result.explain() == []
    plain: dict[str, Any] = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["confusion"] == [[6, 2, 0], [0, 8, 0], [0, 0, 0]]
    assert plain["classes"][0]["iou"] == 0.75
    undefined = dict.fromkeys(("iou", "dice", "precision", "recall", "boundary_iou"))
    assert plain["classes"][2] == {"name": "car", **undefined, "num_pixels": 0, "num_predicted": 0}


def test_a_class_that_is_only_predicted_enters_miou_with_zero_but_not_the_mean_accuracy() -> None:
    result = result_of([[6, 0, 2], [0, 8, 0], [0, 0, 0]])
    car = result.classes[2]
    assert (car.iou, car.dice, car.precision) == (0, 0, 0)
    assert math.isnan(car.recall)
    assert result.mean_iou == pytest.approx((6 / 8 + 1 + 0) / 3)
    assert result.mean_accuracy == pytest.approx((6 / 8 + 1) / 2)
    assert result.frequency_weighted_iou == pytest.approx((8 * 6 / 8 + 8 * 1) / 16)
    assert result.explain() == ["Classes that are predicted but never in the truth, which enter mIoU with 0: car."]


def test_a_class_that_is_never_predicted_has_no_precision() -> None:
    result = result_of([[6, 2, 0], [0, 8, 0], [3, 1, 0]])
    assert math.isnan(result.classes[2].precision)
    assert (result.classes[2].iou, result.classes[2].recall) == (0, 0)
    assert result.mean_accuracy == pytest.approx((6 / 8 + 1 + 0) / 3)
    assert result.explain() == ["Classes that are in the truth but never predicted: car."]


ZERO = [[0, 0, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("confusion", "num_ignored", "beginnings"),
    [
        (ZERO, 0, ["No image was evaluated"]),
        (ZERO, 700, ["All 700 pixels of the 3 images are ignored (their label is 255): mIoU is not defined"]),
        ([[9, 0, 0], [5, 0, 0], [2, 0, 0]], 0, ["Every pixel is predicted as 'sky': the model has not learned"]),
        ([[0, 0, 0], [4, 5, 0], [0, 0, 0]], 0, ["Every pixel that counts is of the class 'road'", "Classes that are"]),
        ([[0, 0, 0], [0, 9, 0], [0, 0, 0]], 0, ["Every pixel that counts is of the class 'road'"]),
        ([[90, 0, 0], [0, 9, 0], [20, 0, 1]], 0, ["Classes that are hardly found: car (IoU 0.048, recall 0.048)"]),
        ([[9, 1, 0], [0, 9, 0], [0, 0, 1]], 180, ["90% of the pixels are ignored (label 255)"]),
        ([[9, 1, 0], [0, 9, 0], [0, 0, 1]], 20, []),
    ],
)
def test_explanations(confusion: list[list[int]], num_ignored: int, beginnings: list[str]) -> None:
    sentences = result_of(confusion, num_ignored).explain()
    assert len(sentences) == len(beginnings)
    assert all(map(str.startswith, sentences, beginnings))


def printed(result: SegmentationResult) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(result.table())
    return console.export_text()


def test_without_pixels_nothing_is_defined() -> None:
    result = result_of(ZERO, 700)
    means = (result.frequency_weighted_iou, result.mean_accuracy, result.mean_dice, *result.headline.values())
    assert all(math.isnan(mean) for mean in means)
    assert "3 images" in printed(result)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["num_ignored"] == 700


def test_the_table_fits_80_columns() -> None:
    names = "a name [that] is much too long for a table of eighty columns", "b"
    text = printed(segmentation_result(names, np.array([[123_456_789, 1], [0, 3]]), np.array([[1, 0], [8, 0]]), 7, 0))
    assert max(map(len, text.splitlines())) <= 80
    for part in ("[that]", "100.0%", "0.125", "0.750", "0.857", "-"):  # IoU 3 / 4, Dice 6 / 7 of b
        assert part in text
    assert "…" not in text


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
