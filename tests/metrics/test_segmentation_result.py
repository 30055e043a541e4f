"""The numbers of semantic segmentation: published ones and by hand; explanations, table and file."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from detseg.metrics.segmentation import SegmentationEvaluator
from detseg.metrics.segmentation_result import SegmentationResult, segmentation_result
from detseg.structures import ClassTable
from tests.shared_data import shared_data

NAMES = ("sky", "road", "car")
NUM_IMAGES = 3


def result_of(confusion: list[list[int]], num_ignored: int = 0) -> SegmentationResult:
    """The result of a matrix, with bands that are intersected by half."""
    names = NAMES[: len(confusion)]
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
    assert list(result.headline) == ["mIoU", "pixel_accuracy", "boundary_IoU"]
    assert tuple(result.headline.values()) == (result.mean_iou, result.pixel_accuracy, 0.5)


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
