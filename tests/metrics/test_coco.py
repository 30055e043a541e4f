"""COCO's numbers of boxes and masks: against published results, every cell of pycocotools' tables, and by hand."""

from __future__ import annotations

import contextlib
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.data.formats.coco import read_coco
from detseg.metrics.coco import CocoNumbers, coco_tables
from detseg.metrics.detection import DetectionEvaluator
from detseg.metrics.records import DetectionRecords, MaskRecords
from detseg.structures import ClassTable, DetectorOutput, FloatArray, ImageAnnotations
from tests.metrics.builders import (
    CASES,
    Case,
    as_stats,
    coco_classes,
    found,
    images_of_coco,
    plain_cocoeval,
    rectangles,
    referee,
    referee_tables,
    truth,
    xyxy,
)
from tests.shared_data import shared_data

CAT = ClassTable(("cat",))


def mean(cells: FloatArray) -> float:
    defined = cells[cells > -1]
    return float(np.mean(defined)) if len(defined) else float("nan")


def class_means(evaluation: Any, dataset: dict[str, Any], threshold: int | slice) -> list[float]:
    """pycocotools' AP of each class in the order of the file; -1 where it has none."""
    sorted_ids = sorted(category["id"] for category in dataset["categories"])
    places = [sorted_ids.index(category["id"]) for category in dataset["categories"]]
    return as_stats(mean(evaluation.eval["precision"][threshold, :, k, 0, -1]) for k in places)


def numbers(
    *images: tuple[DetectorOutput, ImageAnnotations], masks: bool = False, max_detections: int = 100
) -> dict[str, float]:
    evaluator = DetectionEvaluator(CAT, max_detections, masks=masks)
    for image_id, image in enumerate(images):
        evaluator.update(image_id, *image)
    result = evaluator.compute()
    return result.masks.summary if result.masks else result.coco


def test_published_numbers_of_coco_val2014(tmp_path: Path) -> None:
    """All 24 numbers from one evaluator, the ground truth read by our reader (empty files stand for the images).

    The files of boxes and of masks hold the same 734 detections.  The boxes get their digits back that the float32 of
    ``DetectorOutput`` has not: there are overlaps that are exactly a threshold.
    """
    folder = shared_data("oracles", "coco_val2014_fake100")
    dataset = json.loads((folder / "instances_val2014_100.json").read_text())
    boxes = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    masks = json.loads((folder / "instances_val2014_fakesegm100_results.json").read_text())
    expected = json.loads((folder / "expected.json").read_text())
    both = [{**box, "segmentation": mask["segmentation"]} for box, mask in zip(boxes, masks, strict=True)]
    for image in dataset["images"]:
        (tmp_path / image["file_name"]).touch()
    read = read_coco(tmp_path, folder / "instances_val2014_100.json", masks=True)
    assert read.classes == coco_classes(dataset)
    evaluator = DetectionEvaluator(read.classes, masks=True)
    for index, (image_id, detections, _) in enumerate(images_of_coco(dataset, both, masks=True)):
        assert read.image_id(index) == image_id
        evaluator.update(image_id, detections, read.annotations(index))
    state = evaluator.state()
    state["detection_boxes"] = np.array([xyxy(row["bbox"]) for row in sorted(boxes, key=lambda row: row["image_id"])])
    evaluator.reset()
    evaluator.merge(state)
    result = evaluator.compute()
    assert result.masks

    class_ap, class_ap50 = [row.ap for row in result.classes], [row.ap50 for row in result.classes]
    of_boxes = CocoNumbers(result.coco, tuple(class_ap), tuple(class_ap50))
    for ours, iou_type, results in ((of_boxes, "bbox", boxes), (result.masks, "segm", masks)):
        np.testing.assert_allclose(list(ours.summary.values()), list(expected[iou_type].values()), rtol=0, atol=1e-12)
        reference = plain_cocoeval(dataset, results, iou_type)
        assert list(ours.summary.values()) == reference.stats.tolist()  # to the last bit
        assert as_stats(ours.class_ap) == class_means(reference, dataset, slice(None))
        assert as_stats(ours.class_ap50) == class_means(reference, dataset, 0)


def test_toyexample_is_right_in_spite_of_annotation_id_zero() -> None:
    folder = shared_data("oracles", "voc_toyexample")
    dataset = json.loads((folder / "gts_coco_format" / "toy_example_coco.JSON").read_text())
    results = json.loads((folder / "dets_coco_format" / "coco_dets.json").read_text())["annotations"]
    expected = json.loads((folder / "expected.json").read_text())
    assert min(entry["id"] for entry in dataset["annotations"]) == 0
    evaluator = DetectionEvaluator(coco_classes(dataset))
    for image in images_of_coco(dataset, results):
        evaluator.update(*image)
    ours = as_stats(evaluator.compute().coco.values())
    right = expected["recomputed_coco_pycocotools_after_adding_1_to_annotation_ids"]
    np.testing.assert_allclose(ours, list(right.values()), rtol=0, atol=1e-15)


@pytest.mark.parametrize("limit", [1, 5, 10, 100, 400])
def test_every_number_is_the_mean_of_pycocotools_cells(limit: int) -> None:
    """To the last bit, also for the limits on detections that its own summary has no numbers for."""
    case = Case(seed=8, num_images=3, num_objects=40, num_detections=1500, num_classes=3, grid=2)
    evaluator = DetectionEvaluator(case.classes, limit, masks=True)
    evaluator.merge(case.mask_records().to_state())
    result = evaluator.compute()
    assert result.masks
    for ours, records in ((result.coco, case.records()), (result.masks.summary, case.mask_records())):
        precision, recall = referee_tables(records, case.classes, limit)
        limits, sizes = sorted({1, 10, limit}), list(enumerate(["small", "medium", "large"], 1))
        expected = {"AP": mean(precision[..., 0])}
        expected |= {"AP50": mean(precision[0, ..., 0]), "AP75": mean(precision[5, ..., 0])}
        expected |= {f"AP_{name}": mean(precision[..., k]) for k, name in sizes}
        expected |= {f"AR_{num}": mean(recall[:, :, 0, limits.index(num)]) for num in (1, 10, limit)}
        expected |= {f"AR_{name}": mean(recall[:, :, k, limits.index(limit)]) for k, name in sizes}
        assert list(ours) == list(expected)
        assert ours["AP"] > 0
        np.testing.assert_equal(ours, expected)  # NaN is NaN
        if limit == 100:
            reference = referee(records, case.classes, 100)
            with contextlib.redirect_stdout(io.StringIO()):
                reference.summarize()
            assert as_stats(ours.values()) == reference.stats.tolist()


def test_two_of_three_found_by_hand() -> None:
    """Ranking right, wrong, right with 3 objects: precision 1 up to recall 1/3, then 2/3 up to 2/3, then 0.

    Of the 101 recall levels 34 (0 to 0.33) see precision 1, and 33 (0.34 to 0.66) see 2/3.
    """
    boxes = [(0, 0, 10, 10), (20, 20, 40, 40), (60, 60, 90, 90)]
    rows = [(boxes[0], 0.9, 0), ((200, 200, 210, 210), 0.8, 0), (boxes[1], 0.7, 0)]
    coco = numbers((found(rows), truth([(box, 0) for box in boxes])))
    assert coco["AP"] == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert (coco["AR_1"], coco["AR_100"]) == pytest.approx((1 / 3, 2 / 3))
    assert coco["AP_small"] == coco["AP"]  # all three are smaller than 32 × 32


def test_hundreds_of_masks_of_a_class_in_one_image() -> None:
    """260 nuclei, all found; pycocotools 2.0.11 cannot take the areas of more than 255 masks at once."""
    boxes = [(n % 20 * 10, n // 20 * 10, n % 20 * 10 + 7, n // 20 * 10 + 8) for n in range(260)]
    masks = rectangles(boxes, (160, 200))
    detections = found([(box, 1 - n / 512, 0) for n, box in enumerate(boxes)], masks)
    image = detections, truth([(box, 0) for box in boxes], masks=masks)
    every = numbers(image, masks=True, max_detections=400)
    assert (every["AP"], every["AR_400"]) == pytest.approx((1, 1))
    assert numbers(image, masks=True)["AR_100"] == pytest.approx(100 / 260)


def test_nothing_to_score_and_nothing_printed(capfd: pytest.CaptureFixture[str]) -> None:
    numbers((found([((0, 0, 9, 9), 0.5, 0)]), truth([((0, 0, 9, 9), 0)])))
    for masks in (False, True):
        assert np.isnan(list(numbers(masks=masks).values())).all()
    assert capfd.readouterr() == ("", "")


LIMITS = st.sampled_from([1, 2, 5, 10, 11, 100, 400])


def check_cells(
    records: DetectionRecords, classes: ClassTable, limit: int, like: DetectionRecords | None = None
) -> None:
    """Compare with pycocotools' tables of the same records, or of ``like``."""
    ours = coco_tables(records, classes, limit, "segm" if isinstance(records, MaskRecords) else "bbox")
    for mine, other in zip(ours, referee_tables(like or records, classes, limit), strict=True):
        assert mine.shape == other.shape
        np.testing.assert_array_equal(mine, other)


@settings(max_examples=60, deadline=None)
@given(case=CASES, limit=LIMITS)
def test_cells_of_boxes(case: Case, limit: int) -> None:
    """Ties of scores, of IoUs, IoUs that are a threshold, crowds, areas at the borders of sizes, boxes of no area,
    classes and images without objects or detections, records in any order, ids of any order."""
    check_cells(case.records(), case.classes, limit)


@settings(max_examples=30, deadline=None)
@given(case=CASES, limit=LIMITS)
def test_cells_of_masks(case: Case, limit: int) -> None:
    check_cells(case.mask_records(), case.classes, limit)


@pytest.mark.parametrize("limit", [3, 100, 400])
def test_crowded_images(limit: int) -> None:
    """Hundreds of detections of the same few dozen objects: more pairs than are compared at a time."""
    case = Case(seed=4, num_images=2, num_objects=100, num_detections=2000, num_classes=2, grid=4)
    check_cells(case.records(), case.classes, limit)


def test_more_images_than_are_matched_at_a_time() -> None:
    case = Case(seed=5, num_images=2500, num_objects=4000, num_detections=6000, num_classes=2, grid=4)
    check_cells(case.records(), case.classes, 100)


@pytest.mark.parametrize("first_id", [-(10**7), 10**7])
def test_more_images_and_classes_than_a_small_type_counts(first_id: int) -> None:
    """300 classes, and 70 000 images without anything before or after the others: 8 and 16 bits would wrap."""
    case = Case(seed=6, num_images=12, num_objects=60, num_detections=300, num_classes=300)
    records = case.records()
    padded = replace(records, image_ids=np.concatenate([np.arange(first_id, first_id + 70_000), records.image_ids]))
    check_cells(padded, case.classes, 100, like=records)


def test_neither_classes_nor_images() -> None:
    for records in (DetectionRecords.concatenate([]), MaskRecords.concatenate([])):
        check_cells(records, Case(7, 0, 0, 0).classes, 100)
    assert math.isnan(DetectionEvaluator(ClassTable(())).compute().coco["AP"])
