"""The evaluator and its result: what is counted, empty cases, wrong input, words and tables."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from detseg.metrics.detection.evaluator import DetectionEvaluator
from detseg.structures import ClassTable, Detections, ImageAnnotations
from tests.metrics.detection.builders import found, truth

CLASSES = ClassTable(("cat", "dog", "owl"))
CAT, DOG, OWL = 0, 1, 2
LEFT, RIGHT, FAR = (0, 0, 50, 50), (60, 0, 120, 50), (300, 300, 380, 380)


def evaluate(
    *images: tuple[Detections, ImageAnnotations], max_detections: int = 100, operating_iou: float = 0.5
) -> DetectionEvaluator:
    evaluator = DetectionEvaluator(CLASSES, max_detections, operating_iou)
    for image_id, image in enumerate(images):
        evaluator.update(image_id, *image)
    return evaluator


def test_perfect_detections_and_a_class_that_does_not_occur() -> None:
    rows = [(LEFT, 0.9, CAT), (RIGHT, 0.8, DOG)]
    result = evaluate((found(rows), truth([(LEFT, CAT), (RIGHT, DOG)]))).compute()
    assert result.coco["AP"] == pytest.approx(1)
    assert (result.voc07_ap50, result.voc10_ap50) == pytest.approx((1, 1))
    cat, dog, owl = result.classes
    assert [(row.name, row.num_objects, row.num_detections) for row in result.classes] == [
        ("cat", 1, 1),
        ("dog", 1, 1),
        ("owl", 0, 0),
    ]
    assert (dog.precision, dog.recall, dog.f1, dog.threshold) == pytest.approx((1, 1, 1, 0.8))
    assert (cat.ap, cat.ap50) == pytest.approx((1, 1))
    numbers = (owl.ap, owl.ap50, owl.voc07_ap50, owl.voc10_ap50, owl.precision, owl.recall, owl.f1, owl.threshold)
    assert all(math.isnan(number) for number in numbers)
    assert result.explain() == []


def test_operating_iou_is_heeded() -> None:
    """IoU 0.6: right at 0.5, wrong at 0.7."""
    image = (found([((0, 0, 50, 30), 0.9, CAT)]), truth([(LEFT, CAT)]))
    assert evaluate(image).compute().classes[CAT].f1 == 1
    result = evaluate(image, operating_iou=0.7).compute()
    assert result.classes[CAT].f1 == 0
    assert result.classes[CAT].voc10_ap50 == 1
    assert result.operating_iou == 0.7


def test_an_image_counts_once_and_the_first_time() -> None:
    evaluator = evaluate((found([(LEFT, 0.9, CAT)]), truth([(LEFT, CAT)])))
    evaluator.update(0, found([(FAR, 1.0, CAT)]), truth([(LEFT, CAT)]))
    result = evaluator.compute()
    assert (result.num_images, result.num_objects, result.num_detections) == (1, 1, 1)
    assert result.coco["AP50"] == pytest.approx(1)
    evaluator.reset()
    assert evaluator.compute().num_images == 0


def test_merged_states_equal_one_evaluator() -> None:
    """Two processes, one image in both, images out of order."""
    images = {
        7: (found([(LEFT, 0.5, CAT), (FAR, 0.5, DOG)]), truth([(LEFT, CAT)])),
        3: (found([(RIGHT, 0.5, CAT)]), truth([(LEFT, CAT), (RIGHT, DOG)], difficult=[1])),
        5: (Detections.empty(), truth([(FAR, OWL)])),
    }
    together, first, second = (DetectionEvaluator(CLASSES) for _ in range(3))
    for image_id, image in images.items():
        together.update(image_id, *image)
    for image_id in (7, 3):
        first.update(image_id, *images[image_id])
    for image_id in (5, 7):
        second.update(image_id, *images[image_id])
    first.merge(second.state())
    assert together.state()["image_ids"].tolist() == [3, 5, 7]
    assert together.state()["detection_image_ids"].tolist() == [3, 7, 7]
    assert together.state()["object_image_ids"].tolist() == [3, 3, 5, 7]
    for name, values in together.state().items():
        np.testing.assert_array_equal(first.state()[name], values)
    assert first.compute().to_dict() == together.compute().to_dict()


def test_neither_images_nor_objects_nor_detections() -> None:
    nothing = DetectionEvaluator(CLASSES).compute()
    assert all(math.isnan(number) for number in (*nothing.coco.values(), nothing.voc07_ap50, nothing.voc10_ap50))
    assert nothing.explain() == ["No image was evaluated: the split is empty."]

    no_objects = evaluate((found([(LEFT, 0.9, CAT)]), truth([])), (Detections.empty(), truth([]))).compute()
    assert all(math.isnan(number) for number in (*no_objects.coco.values(), no_objects.voc10_ap50))
    assert "2 images have no objects" in no_objects.explain()[0]

    no_detections = evaluate((Detections.empty(), truth([(LEFT, CAT), (FAR, DOG)]))).compute()
    assert no_detections.coco["AP"] == no_detections.coco["AR_100"] == no_detections.voc07_ap50 == 0
    assert "no detections at all" in no_detections.explain()[0]
    assert len(no_detections.explain()) == 1


def test_only_ignored_objects() -> None:
    result = evaluate((found([(LEFT, 0.9, CAT)]), truth([(LEFT, CAT)], difficult=[0]))).compute()
    assert (result.num_objects, result.num_ignored) == (0, 1)
    assert math.isnan(result.coco["AP"])
    assert "1 crowd or difficult" in result.explain()[0]


def test_explains_wrong_coordinates() -> None:
    """Boxes of an image half the size."""
    result = evaluate((found([((0, 0, 25, 25), 0.9, CAT)]), truth([(LEFT, CAT)]))).compute()
    (words,) = result.explain()
    assert "None of the 1 detections overlaps" in words
    assert "best: 0.25" in words


def test_explains_labels_off_by_one() -> None:
    rows = [(LEFT, 0.9, DOG), (RIGHT, 0.8, OWL)]
    result = evaluate((found(rows), truth([(LEFT, CAT), (RIGHT, DOG)]))).compute()
    words = " ".join(result.explain())
    assert result.coco["AP50"] == 0
    assert "labels are wrong" in words
    assert "is 0.000, and 1.000 with the labels set aside" in words
    assert "without a single detection: cat." in words


def test_explains_low_scores() -> None:
    result = evaluate((found([(LEFT, 0.01, CAT)]), truth([(LEFT, CAT)]))).compute()
    (words,) = result.explain()
    assert "highest score of all detections is 0.010" in words


def test_file_and_screen() -> None:
    result = evaluate((found([(LEFT, 0.75, CAT)]), truth([(LEFT, CAT), (RIGHT, DOG)])), max_detections=300).compute()
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["coco"]["AP_small"] is None
    assert plain["coco"]["AR_300"] == 0.5
    assert plain["classes"][CAT]["threshold"] == 0.75
    assert plain["classes"][OWL]["ap"] is None

    console = Console(width=80)
    with console.capture() as captured:
        console.print(result.table())
    words = [line.split() for line in captured.get().splitlines()]
    assert ["AP", "0.500", "AR_1", "0.500"] in words
    assert ["AP_small", "-", "AR_small", "-"] in words
    assert ["AP75", "0.500", "AR_300", "0.500"] in words
    assert ["cat", "1", "1", *["1.000"] * 7, "0.750"] in words
    assert ["dog", "1", "0", *["0.000"] * 4, "-", "0.000", "0.000", "-"] in words
    assert ["owl", "0", "0", *["-"] * 8] in words
    assert ["all", "2", "1", *["0.500"] * 4] in words
    assert "the best 300 detections" in " ".join(captured.get().split())


def test_class_names_are_not_markup() -> None:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(DetectionEvaluator(ClassTable(("[bold]", "[/]"))).compute().table())
    assert {"[bold]", "[/]"} <= set(captured.get().split())


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="max_detections: expected 1 or more, got 0"):
        DetectionEvaluator(CLASSES, max_detections=0)
    with pytest.raises(ValueError, match="operating_iou: expected a number above 0 and up to 1, got 0"):
        DetectionEvaluator(CLASSES, operating_iou=0)
    evaluator = DetectionEvaluator(CLASSES)
    with pytest.raises(ValueError, match="image 4: detections: expected labels from 0 to 2, got 3"):
        evaluator.update(4, found([(LEFT, 0.9, 3)]), truth([]))
    with pytest.raises(ValueError, match="image 4: ground truth: expected labels from 0 to 2, got -1"):
        evaluator.update(4, found([]), truth([(LEFT, -1)]))
    with pytest.raises(ValueError, match="image 4: scores of detections: 1 of 1 numbers are NaN"):
        evaluator.update(4, found([(LEFT, math.nan, CAT)]), truth([]))
    with pytest.raises(ValueError, match=r"image 4: the detections' classes \['owl'\] are not the evaluator's"):
        evaluator.update(4, replace(found([]), classes=ClassTable(("owl",))), truth([]))
    assert evaluator.compute().num_images == 0
