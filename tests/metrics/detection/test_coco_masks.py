"""COCO's numbers of masks: against published results, against pycocotools on the same data, and by hand."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as referee_masks

from detseg.data.formats.coco import read_coco
from detseg.metrics.detection.evaluator import DetectionEvaluator
from detseg.metrics.detection.result import DetectionResult, MaskNumbers
from detseg.structures import ClassTable
from tests.metrics.detection.builders import (
    as_stats,
    coco_classes,
    evaluator_of_coco,
    images_of_coco,
    plain_cocoeval,
    xyxy,
)
from tests.metrics.detection.random_masks import compressed, random_coco_masks
from tests.shared_data import shared_data


def masks_of(result: DetectionResult) -> MaskNumbers:
    assert result.masks is not None
    return result.masks


def referee_stats(
    dataset: dict[str, Any], results: list[dict[str, Any]], iou_type: str, limit: int
) -> NDArray[np.float64]:
    """The twelve numbers by pycocotools for any limit on detections: AR_1 and AR_10 by its own limits.

    Its first number exists for a limit of 100 alone and is the mean of the table else.
    """
    held = plain_cocoeval(copy.deepcopy(dataset), copy.deepcopy(results), iou_type, [limit] * 3)
    usual = plain_cocoeval(copy.deepcopy(dataset), copy.deepcopy(results), iou_type)
    numbers: NDArray[np.float64] = np.array(held.stats)
    cells = held.eval["precision"][:, :, :, 0, 0]
    numbers[0] = cells[cells > -1].mean() if (cells > -1).any() else -1
    numbers[6:8] = usual.stats[6:8]
    return numbers


def class_means(evaluation: Any, dataset: dict[str, Any], threshold: int | slice) -> list[float]:
    """pycocotools' AP of each class in the order of the file; -1 where it has none."""
    sorted_ids = sorted(category["id"] for category in dataset["categories"])
    means = []
    for category in dataset["categories"]:
        cells = evaluation.eval["precision"][threshold, :, sorted_ids.index(category["id"]), 0, -1]
        means.append(float(cells[cells > -1].mean()) if (cells > -1).any() else -1.0)
    return means


def without(key: str, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in entry.items() if name != key} for entry in entries]


def by_image(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows by ascending image id, those of an image in their order."""
    return sorted(rows, key=lambda row: int(row["image_id"]))


def test_published_numbers_of_coco_val2014(tmp_path: Path) -> None:
    """All 24 numbers from one evaluator, the ground truth read by our reader (empty files stand for the images).

    The files of boxes and of masks hold the same 734 detections.  The boxes get their digits back that the float32 of
    ``Detections`` has not: there are overlaps that are exactly a threshold.
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
    evaluator = DetectionEvaluator(read.classes, masks=True)
    assert read.classes == coco_classes(dataset)[0]
    for index, (image_id, detections, _) in enumerate(images_of_coco(dataset, both, masks=True)):
        assert read.image_id(index) == image_id
        evaluator.update(image_id, detections, read.annotations(index))
    state = evaluator.state()
    state["detection_boxes"] = np.array([xyxy(row["bbox"]) for row in by_image(boxes)])
    evaluator.reset()
    evaluator.merge(state)
    result = evaluator.compute()
    numbers = masks_of(result)

    np.testing.assert_allclose(list(result.coco.values()), list(expected["bbox"].values()), rtol=0, atol=1e-12)
    np.testing.assert_allclose(list(numbers.summary.values()), list(expected["segm"].values()), rtol=0, atol=1e-12)
    of_boxes = plain_cocoeval(copy.deepcopy(dataset), boxes)
    of_masks = plain_cocoeval(copy.deepcopy(dataset), masks, "segm")
    assert list(result.coco.values()) == of_boxes.stats.tolist()  # to the last bit
    assert list(numbers.summary.values()) == of_masks.stats.tolist()
    assert as_stats(numbers.class_ap).tolist() == class_means(of_masks, dataset, slice(None))
    assert as_stats(numbers.class_ap50).tolist() == class_means(of_masks, dataset, 0)


@pytest.mark.parametrize("seed", range(6))
def test_random_cases_equal_pycocotools_to_the_last_bit(seed: int) -> None:
    dataset, results = random_coco_masks(seed, num_images=12, most_detections=30)
    result = evaluator_of_coco(dataset, results, masks=True).compute()
    numbers = masks_of(result)
    of_masks = plain_cocoeval(copy.deepcopy(dataset), without("bbox", copy.deepcopy(results)), "segm")
    of_boxes = plain_cocoeval(copy.deepcopy(dataset), without("segmentation", results))
    assert numbers.summary["AP"] > 0
    assert as_stats(numbers.summary.values()).tolist() == of_masks.stats.tolist()
    assert as_stats(result.coco.values()).tolist() == of_boxes.stats.tolist()
    assert as_stats(numbers.class_ap).tolist() == class_means(of_masks, dataset, slice(None))
    assert as_stats(numbers.class_ap50).tolist() == class_means(of_masks, dataset, 0)


@pytest.mark.parametrize("limit", [1, 10, 100, 400])
def test_limits_on_detections(limit: int) -> None:
    dataset, results = random_coco_masks(7, num_images=3, most_detections=900)
    assert len(results) > 600
    result = evaluator_of_coco(dataset, results, masks=True, max_detections=limit).compute()
    numbers = masks_of(result)
    # With a limit of 1 or 10 two of the twelve share a name.
    names = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]
    names += ["AR_1", "AR_10", f"AR_{limit}", "AR_small", "AR_medium", "AR_large"]
    assert list(numbers.summary) == list(result.coco) == list(dict.fromkeys(names))
    expected = referee_stats(dataset, without("bbox", results), "segm", limit)
    ours = as_stats(numbers.summary[name] for name in names)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)
    expected = referee_stats(dataset, without("segmentation", results), "bbox", limit)
    np.testing.assert_allclose(as_stats(result.coco[name] for name in names), expected, rtol=0, atol=1e-12)


def test_hundreds_of_objects_of_a_class_in_one_image() -> None:
    """260 nuclei, all found, of which 100 detections are 100.

    pycocotools 2.0.11 cannot take the areas of more than 255 masks at once; their IoU it can.
    """
    dataset: dict[str, Any] = {
        "images": [{"id": 1, "height": 160, "width": 200}],
        "categories": [{"id": 1, "name": "nucleus"}],
        "annotations": [],
    }
    results = []
    for n in range(260):
        mask = np.zeros((160, 200), dtype=np.uint8)
        y, x = n // 20 * 10, n % 20 * 10
        mask[y : y + 8, x : x + 7] = 1
        entry = {"image_id": 1, "category_id": 1, "bbox": [x, y, 7, 8], "segmentation": compressed(mask)}
        dataset["annotations"].append({**entry, "id": n + 1, "area": 56, "iscrowd": 0})
        results.append({**entry, "score": 1 - n / 512})
    every = masks_of(evaluator_of_coco(dataset, results, masks=True, max_detections=400).compute())
    assert (every.summary["AP"], every.summary["AR_400"], *every.class_ap) == pytest.approx((1, 1, 1))
    usual = masks_of(evaluator_of_coco(dataset, results, masks=True).compute())
    assert usual.summary["AR_100"] == pytest.approx(100 / 260)


def test_the_size_of_a_detection_is_that_of_its_mask() -> None:
    """A wrong detection with a large box and a small mask: among small objects it is wrong by its mask, and of another
    size by its box."""
    hw = (200, 200)
    small, thin = np.zeros(hw, dtype=np.uint8), np.zeros(hw, dtype=np.uint8)
    small[10:20, 10:20] = 1
    thin[60:190, 100] = thin[100, 60:190] = 1
    dataset = {
        "images": [{"id": 5, "height": 200, "width": 200}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 5,
                "category_id": 1,
                "bbox": [10, 10, 10, 10],
                "area": 100,
                "iscrowd": 0,
                "segmentation": compressed(small),
            },
        ],
    }
    results = [
        {"image_id": 5, "category_id": 1, "bbox": [60, 60, 130, 130], "segmentation": compressed(thin), "score": 0.9},
        {"image_id": 5, "category_id": 1, "bbox": [10, 10, 10, 10], "segmentation": compressed(small), "score": 0.8},
    ]
    result = evaluator_of_coco(dataset, results, masks=True).compute()
    assert masks_of(result).summary["AP_small"] == pytest.approx(0.5)
    assert result.coco["AP_small"] == pytest.approx(1)


def test_crowds_are_regions_of_pixels() -> None:
    """A detection on the crowd's pixels counts neither way; one in its box but beside its pixels is wrong."""
    hw = (100, 100)
    masks = {name: np.zeros(hw, dtype=np.uint8) for name in ("cat", "crowd", "on", "beside")}
    masks["cat"][0:20, 0:20] = 1
    masks["crowd"][40:100, 40:100] = 1
    masks["crowd"][40:90, 50:100] = 0  # what is left has the form of an L
    masks["on"][92:98, 60:90] = 1
    masks["beside"][45:75, 60:90] = 1
    boxes = {name: referee_masks.toBbox(compressed(mask)).tolist() for name, mask in masks.items()}
    parts = {
        name: {"image_id": 1, "category_id": 1, "bbox": boxes[name], "segmentation": compressed(mask)}
        for name, mask in masks.items()
    }
    dataset = {
        "images": [{"id": 1, "height": 100, "width": 100}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {**parts["cat"], "id": 1, "area": 400, "iscrowd": 0},
            {**parts["crowd"], "id": 2, "area": 1100, "iscrowd": 1},
        ],
    }
    for name, of_masks in (("on", 1), ("beside", 0.5)):
        results = [{**parts[name], "score": 0.9}, {**parts["cat"], "score": 0.8}]
        result = evaluator_of_coco(dataset, results, masks=True).compute()
        assert masks_of(result).summary["AP"] == pytest.approx(of_masks)
        assert result.coco["AP"] == pytest.approx(1)


def test_masks_leave_the_numbers_of_boxes_as_they_are() -> None:
    dataset, results = random_coco_masks(11, num_images=6, most_detections=20)
    alone = evaluator_of_coco(dataset, results).compute().to_dict()
    beside = evaluator_of_coco(dataset, results, masks=True).compute().to_dict()
    assert beside.pop("masks").keys() == {"summary", "class_ap", "class_ap50"}
    assert beside == alone


def test_nothing_to_score() -> None:
    numbers = masks_of(DetectionEvaluator(ClassTable(("cat", "dog")), masks=True).compute())
    assert np.isnan([*numbers.summary.values(), *numbers.class_ap, *numbers.class_ap50]).all()
    assert len(numbers.summary) == 12
