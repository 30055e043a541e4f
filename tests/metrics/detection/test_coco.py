"""COCO's numbers: against published results, against pycocotools on the same data, and by hand."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from detseg.metrics.detection.evaluator import DetectionEvaluator
from detseg.structures import ClassTable
from tests.metrics.detection.builders import (
    evaluator_of_coco,
    evaluator_of_coco_in_float64,
    found,
    plain_cocoeval,
    stats,
    truth,
    xyxy,
)
from tests.shared_data import shared_data

ONE_CLASS = ClassTable(("cat",))


def same(number: float, cells: NDArray[np.float64]) -> bool:
    """Whether a number is the mean of pycocotools' cells: NaN where all are -1, that is, undefined."""
    defined = cells[cells > -1]
    return number == np.mean(defined) if len(defined) else math.isnan(number)


def test_published_numbers_of_coco_val2014() -> None:
    folder = shared_data("oracles", "coco_val2014_fake100")
    dataset = json.loads((folder / "instances_val2014_100.json").read_text())
    results = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    expected = json.loads((folder / "expected.json").read_text())["bbox"]
    evaluator = evaluator_of_coco_in_float64(dataset, results)
    ours = stats(evaluator)
    np.testing.assert_allclose(ours, list(expected.values()), rtol=0, atol=1e-15)

    referee = plain_cocoeval(dataset, results)
    assert ours.tolist() == referee.stats.tolist()  # to the last bit
    class_ap = [row.ap for row in evaluator.compute().classes]
    for row, label in zip(class_ap, np.argsort(np.argsort([c["id"] for c in dataset["categories"]])), strict=True):
        cells = referee.eval["precision"][:, :, label, 0, 2]
        assert same(row, cells)


def test_predictions_written_as_coco_json_score_the_same() -> None:
    """What ``Detections.to_coco`` writes, scored by pycocotools alone, is our number to the last bit."""
    folder = shared_data("oracles", "coco_val2014_fake100")
    dataset = json.loads((folder / "instances_val2014_100.json").read_text())
    results = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    ids = [category["id"] for category in dataset["categories"]]
    classes = ClassTable(tuple(category["name"] for category in dataset["categories"]), tuple(ids))
    written = []
    for image in dataset["images"]:
        rows = [row for row in results if row["image_id"] == image["id"]]
        detections = found([(xyxy(row["bbox"]), row["score"], ids.index(row["category_id"])) for row in rows])
        written += replace(detections, classes=classes).to_coco(image["id"])
    ours = stats(evaluator_of_coco(dataset, results))
    assert ours.tolist() == plain_cocoeval(dataset, written).stats.tolist()


def test_toyexample_is_right_in_spite_of_annotation_id_zero() -> None:
    folder = shared_data("oracles", "voc_toyexample")
    dataset = json.loads((folder / "gts_coco_format" / "toy_example_coco.JSON").read_text())
    results = json.loads((folder / "dets_coco_format" / "coco_dets.json").read_text())["annotations"]
    expected = json.loads((folder / "expected.json").read_text())
    assert min(entry["id"] for entry in dataset["annotations"]) == 0
    ours = stats(evaluator_of_coco(dataset, results))
    right = expected["recomputed_coco_pycocotools_after_adding_1_to_annotation_ids"]
    np.testing.assert_allclose(ours, list(right.values()), rtol=0, atol=1e-15)


def random_coco(seed: int, num_images: int, most_detections: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Objects and detections near them; coordinates in eighths of a pixel and scores in 1/64, exact in float32.

    Category ids are neither sorted nor contiguous; scores tie often; one category is detected but has no objects.
    """
    rng = np.random.default_rng(seed)
    ids = [17, 3, 40, 8]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image_id in range(num_images):
        for _ in range(int(rng.integers(0, 8))):
            bbox = (rng.integers(1, [1200, 1200, 1600, 1600]) / 8).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.choice(ids[:3])),
                    "bbox": bbox,
                    "area": bbox[2] * bbox[3] * float(rng.choice([0.5, 1.0])),
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
        near = [entry for entry in annotations if entry["image_id"] == image_id]
        for _ in range(int(rng.integers(0, most_detections))):
            base = rng.choice([entry["bbox"] for entry in near]) if near else np.array([50.0, 50, 60, 60])
            shift = rng.integers(-60, 60, 4) / 8 * rng.choice([0, 1, 4])
            x, y, width, height = base + shift
            results.append(
                {
                    "image_id": image_id,
                    "category_id": int(rng.choice(ids)),
                    "bbox": [x, y, max(width, 1.0), max(height, 1.0)],
                    "score": float(rng.integers(1, 64) / 64),
                }
            )
    dataset = {
        "images": [{"id": image_id} for image_id in rng.permutation(num_images).tolist()],
        "categories": [{"id": source_id, "name": f"class {source_id}"} for source_id in ids],
        "annotations": annotations,
    }
    return dataset, results


@pytest.mark.parametrize("seed", range(6))
def test_random_cases_equal_pycocotools_to_the_last_bit(seed: int) -> None:
    dataset, results = random_coco(seed, num_images=12, most_detections=30)
    ours = stats(evaluator_of_coco(dataset, results))
    assert ours[0] > 0
    assert ours.tolist() == plain_cocoeval(copy.deepcopy(dataset), copy.deepcopy(results)).stats.tolist()


@pytest.mark.parametrize("max_detections", [300, 5])
def test_other_limits_on_detections(max_detections: int) -> None:
    """pycocotools can be held to a limit by handing it the best detections of each class alone."""
    dataset, results = random_coco(7, num_images=2, most_detections=700)
    assert len(results) > 500
    ranked = sorted(results, key=lambda row: -row["score"])
    groups: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in ranked:
        groups.setdefault((row["image_id"], row["category_id"]), []).append(row)
    kept = [row for group in groups.values() for row in group[:max_detections]]

    result = evaluator_of_coco(dataset, results, max_detections=max_detections).compute()
    referee = plain_cocoeval(dataset, kept)
    referee.params.maxDets = [1, 10, 1000]
    referee.evaluate()
    referee.accumulate()
    precision = referee.eval["precision"][..., 2]
    recall = referee.eval["recall"][..., 2]
    for size, name in enumerate(["", "_small", "_medium", "_large"]):
        cells = precision[:, :, :, size]
        assert same(result.coco[f"AP{name}"], cells)
        cells = recall[:, :, size]
        assert same(result.coco[f"AR{name}" if name else f"AR_{max_detections}"], cells)
    assert len(result.coco) == 12
    assert result.max_detections == max_detections


def test_more_detections_find_more() -> None:
    """One object that only the 150th detection finds."""
    object_box, elsewhere = (0, 0, 10, 10), (50, 50, 60, 60)
    rows = [(elsewhere, 0.9, 0)] * 149 + [(object_box, 0.5, 0)]
    numbers = {}
    for limit in (100, 300):
        evaluator = DetectionEvaluator(ONE_CLASS, max_detections=limit)
        evaluator.update(1, found(rows), truth([(object_box, 0)]))
        numbers[limit] = evaluator.compute().coco
    assert numbers[100]["AP"] == 0
    assert numbers[100]["AR_100"] == 0
    assert numbers[300]["AP"] == pytest.approx(1 / 150)
    assert numbers[300]["AR_300"] == 1


def test_two_of_three_found_by_hand() -> None:
    """Ranking right, wrong, right with 3 objects: precision 1 up to recall 1/3, then 2/3 up to 2/3, then 0.

    Of the 101 recall levels 34 (0 to 0.33) see precision 1, and 33 (0.34 to 0.66) see 2/3.
    """
    boxes = [(0, 0, 10, 10), (20, 20, 40, 40), (60, 60, 90, 90)]
    evaluator = DetectionEvaluator(ONE_CLASS)
    rows = [(boxes[0], 0.9, 0), ((200, 200, 210, 210), 0.8, 0), (boxes[1], 0.7, 0)]
    evaluator.update(1, found(rows), truth([(box, 0) for box in boxes]))
    result = evaluator.compute()
    assert result.coco["AP"] == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert result.coco["AR_100"] == pytest.approx(2 / 3)
    assert result.coco["AR_1"] == pytest.approx(1 / 3)
    assert result.coco["AP_small"] == result.coco["AP"]  # all three are smaller than 32 × 32


def test_difficult_and_crowd_count_neither_way() -> None:
    counted, hard = (0, 0, 50, 50), (100, 100, 150, 150)
    rows = [(hard, 0.9, 0), (counted, 0.8, 0)]
    for flags in ({"difficult": [1]}, {"crowd": [1]}):
        evaluator = DetectionEvaluator(ONE_CLASS)
        evaluator.update(1, found(rows), truth([(counted, 0), (hard, 0)], **flags))
        assert evaluator.compute().coco["AP"] == pytest.approx(1)
    evaluator = DetectionEvaluator(ONE_CLASS)
    evaluator.update(1, found(rows), truth([(counted, 0)]))
    assert evaluator.compute().coco["AP"] == pytest.approx(0.5)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    evaluator = DetectionEvaluator(ONE_CLASS)
    evaluator.update(1, found([((0, 0, 9, 9), 0.5, 0)]), truth([((0, 0, 9, 9), 0)]))
    evaluator.compute()
    assert capfd.readouterr() == ("", "")
