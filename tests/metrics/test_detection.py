"""The evaluator of detections and its result: what is counted and merged, wrong input, explanations and tables."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from rich.console import Console

from detseg.errors import ConfigError
from detseg.metrics.detection import DetectionEvaluator
from detseg.metrics.detection_result import DetectionResult
from detseg.metrics.records import DetectionRecords
from detseg.metrics.segmentation import SegmentationEvaluator
from detseg.ops.letterbox import Letterbox
from detseg.predict import Detections
from detseg.structures import Batch, BoxTargets, ClassTable, DetectorOutput, ImageAnnotations, InstanceMasks, RoiMasks
from tests.metrics.builders import CASES, Box, Case, found, rectangles, truth

CLASSES = ClassTable(("cat", "dog", "owl"), (90, 7, 12))
CAT, DOG, OWL = 0, 1, 2
HW = (80, 120)
LEFT, RIGHT, LOW = (0, 0, 40, 40), (50, 10, 90, 50), (20, 60, 60, 80)


def found_masks(rows: list[tuple[Box, float, int]], masks: list[Box] | None = None) -> DetectorOutput:
    """Detections whose masks fill their boxes, or the boxes of ``masks``."""
    return found(rows, rectangles([box for box, _, _ in rows] if masks is None else masks, HW))


def true_masks(rows: list[tuple[Box, int]], difficult: tuple[int, ...] = ()) -> ImageAnnotations:
    return truth(rows, difficult, masks=rectangles([box for box, _ in rows], HW))


def evaluate(*images: tuple[DetectorOutput, ImageAnnotations], **options: Any) -> DetectionResult:
    evaluator = DetectionEvaluator(CLASSES, **options)
    for image_id, image in enumerate(images):
        evaluator.update(image_id, *image)
    return evaluator.compute()


def mask_ap50(result: DetectionResult) -> float:
    assert result.masks is not None
    return result.masks.summary["AP50"]


def printed(result: DetectionResult) -> str:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(result.table())
    assert max(len(line) for line in captured.get().splitlines()) <= 80
    return captured.get()


def test_perfect_detections_and_a_class_that_does_not_occur() -> None:
    rows = [(LEFT, 0.9, CAT), (RIGHT, 0.8, DOG)]
    result = evaluate((found(rows), truth([(LEFT, CAT), (RIGHT, DOG)])))
    assert (result.coco["AP"], result.voc07_ap50, result.voc10_ap50) == pytest.approx((1, 1, 1))
    cat, dog, owl = result.classes
    counts = [(row.name, row.num_objects, row.num_detections) for row in result.classes]
    assert counts == [("cat", 1, 1), ("dog", 1, 1), ("owl", 0, 0)]
    assert (dog.precision, dog.recall, dog.f1, dog.threshold) == pytest.approx((1, 1, 1, 0.8))
    assert (cat.ap, cat.ap50) == pytest.approx((1, 1))
    numbers = (owl.ap, owl.ap50, owl.voc07_ap50, owl.voc10_ap50, owl.precision, owl.recall, owl.f1, owl.threshold)
    assert all(math.isnan(number) for number in numbers)
    assert result.explain() == []


def test_f1_iou_changes_f1_alone() -> None:
    result = evaluate((found([((0, 0, 40, 24), 0.9, CAT)]), truth([(LEFT, CAT)])), f1_iou=0.7)  # IoU 0.6
    assert (result.classes[CAT].f1, result.classes[CAT].voc10_ap50, result.f1_iou) == (0, 1, 0.7)


def test_masks_lead_the_headline() -> None:
    """The box is right and the mask half of it: IoU 0.5 by masks, right for AP50 and wrong for AP75."""
    image = found_masks([(LEFT, 0.9, CAT)], [(0, 0, 40, 20)]), true_masks([(LEFT, CAT)])
    with_masks, boxes_only = evaluate(image, masks=True), evaluate(image)
    assert list(with_masks.headline) == ["mask_AP", "mask_AP50", "mask_AP75", "AP", "AP50", "AP75", "F1"]
    assert list(with_masks.headline.values()) == pytest.approx([0.1, 1, 0, 1, 1, 1, 1])
    assert list(boxes_only.headline) == ["AP", "AP50", "AP75", "F1"]
    assert with_masks.by_class["mask_AP"] == pytest.approx((0.1, math.nan, math.nan), nan_ok=True)
    plain = with_masks.to_dict()
    assert plain.pop("masks").keys() == {"summary", "class_ap", "class_ap50"}
    assert boxes_only.to_dict() == plain


def test_f1_is_the_mean_of_the_best_of_each_class_that_has_objects() -> None:
    """Cat: right at 0.9, wrong at 0.8, one missed: 2/3 at 0.9. Dog: not found, 0. Owl: no objects."""
    rows = [(LEFT, 0.9, CAT), (LOW, 0.8, CAT)]
    result = evaluate((found(rows), truth([(LEFT, CAT), (RIGHT, CAT), (RIGHT, DOG)])))
    assert result.headline["F1"] == result.to_dict()["f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_weights_of_classes_give_one_more_metric_and_change_no_other() -> None:
    """AP: cat 1, dog 0, owl undefined, which enters with no weight."""
    image = found([(LEFT, 0.9, CAT)]), truth([(LEFT, CAT), (RIGHT, DOG)])
    weighted = evaluate(image, class_weights={"dog": 3.0, "owl": 100.0})
    assert weighted.headline["weighted_AP"] == weighted.to_dict()["weighted_AP"] == pytest.approx((1 * 1 + 3 * 0) / 4)
    plain = evaluate(image)
    assert {**plain.headline, "weighted_AP": 0.25} == pytest.approx(weighted.headline)
    assert plain.to_dict().keys() == weighted.to_dict().keys() - {"class_weights", "weighted_AP"}
    masks = evaluate(
        (found_masks([(LEFT, 0.9, CAT)], [(0, 0, 40, 20)]), true_masks([(LEFT, CAT)])),
        masks=True,
        class_weights={"cat": 2.0},
    )
    assert masks.headline["weighted_mask_AP"] == pytest.approx(0.1)
    assert math.isnan(evaluate(image, class_weights={"cat": 0.0, "dog": 0.0}).headline["weighted_AP"])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"cta": 2.0}, r"evaluation.class_weights: there is no class 'cta' \(did you mean 'cat'\?\); .* cat, dog, owl"),
        (dict.fromkeys(CLASSES.names, 0.0), "all are 0"),
    ],
)
def test_weights_that_no_class_has(weights: dict[str, float], message: str) -> None:
    for evaluator in (DetectionEvaluator, SegmentationEvaluator):
        with pytest.raises(ConfigError, match=message):
            evaluator(CLASSES, class_weights=weights)


def test_an_image_counts_once_and_the_first_time() -> None:
    evaluator = DetectionEvaluator(CLASSES, masks=True)
    evaluator.update(0, found_masks([(LEFT, 0.9, CAT)]), true_masks([(LEFT, CAT)]))
    evaluator.update(0, found_masks([(RIGHT, 1.0, CAT)]), true_masks([(LEFT, CAT)]))
    result = evaluator.compute()
    assert (result.num_images, result.num_objects, result.num_detections) == (1, 1, 1)
    assert (result.coco["AP50"], mask_ap50(result)) == pytest.approx((1, 1))
    evaluator.reset()
    assert evaluator.compute().num_images == 0


@pytest.mark.parametrize("masks", [False, True])
def test_merged_states_equal_one_evaluator(masks: bool) -> None:
    """Two processes, one image in both, images out of order; the states are arrays without Python objects."""
    images = {
        7: (found_masks([(LEFT, 0.5, CAT), (LOW, 0.5, DOG)], [LEFT, RIGHT]), true_masks([(LEFT, CAT), (LOW, DOG)])),
        3: (found_masks([(RIGHT, 0.5, CAT)]), true_masks([(LEFT, CAT), (RIGHT, DOG)], (1,))),
        5: (DetectorOutput.empty(), true_masks([(LOW, OWL)])),
        4: (DetectorOutput.empty(), truth([])),
        9: (found_masks([(LEFT, 0.25, OWL)]), truth([])),
    }
    together, first, second = (DetectionEvaluator(CLASSES, masks=masks) for _ in range(3))
    for evaluator, image_ids in ((together, images), (first, (7, 3, 4)), (second, (9, 5, 7))):
        for image_id in image_ids:
            evaluator.update(image_id, *images[image_id])
    first.merge(second.state())
    state = together.state()
    assert not any(values.dtype.hasobject for values in state.values())
    assert state["image_ids"].tolist() == [3, 4, 5, 7, 9]
    assert state["detection_image_ids"].tolist() == [3, 7, 7, 9]
    assert state["object_image_ids"].tolist() == [3, 3, 5, 7, 7]
    assert first.state().keys() == state.keys()
    for name, values in state.items():
        np.testing.assert_array_equal(first.state()[name], values)
    assert first.compute().to_dict() == together.compute().to_dict()
    assert 0 < first.compute().coco["AP50"] < 1
    if masks:
        assert state["image_hw"].tolist() == [[80, 120], [0, 0], [80, 120], [80, 120], [80, 120]]
        assert 0 < mask_ap50(first.compute()) < first.compute().coco["AP50"]
    first.merge(DetectionEvaluator(CLASSES, masks=masks).state())  # a process without images
    assert first.compute().to_dict() == together.compute().to_dict()


@settings(max_examples=25, deadline=None)
@given(CASES)
def test_any_scene_has_a_score_that_the_order_of_images_does_not_change(case: Case) -> None:
    records, results = case.records(), []
    for image_ids in (records.image_ids, records.image_ids[::-1]):
        evaluator = DetectionEvaluator(case.classes)
        for image_id in [*image_ids, *image_ids[:2]]:  # an image counts once
            evaluator.merge(records.without_images(records.image_ids[records.image_ids != image_id]).to_state())
        results.append(evaluator.compute())
    numbers = [*results[0].coco.values(), results[0].voc07_ap50, results[0].voc10_ap50]
    assert all(math.isnan(number) or 0 <= number <= 1 for number in numbers)
    assert results[0].to_dict() == results[1].to_dict()
    assert results[0].explain() == results[1].explain()


@settings(max_examples=20, deadline=None)
@given(CASES)
def test_the_truth_as_detections_scores_one(case: Case) -> None:
    """But for equal boxes of one class, of which VOC counts one as found, and boxes without area."""
    records = case.records()
    rows = np.column_stack([records.object_image_ids, records.object_labels, records.object_boxes])
    rows = np.unique(rows[~records.object_ignore], axis=0)
    rows = rows[(rows[:, 4:] > rows[:, 2:4]).all(axis=1)]
    (image_ids, labels), boxes = rows[:, :2].T.astype(np.int64), rows[:, 2:]
    scores, ignore, areas = np.ones(len(boxes)), np.zeros(len(boxes), dtype=np.bool_), np.full(len(boxes), 100.0)
    columns = image_ids, boxes, scores, labels, image_ids, boxes, labels, ignore, areas
    same = DetectionRecords(records.image_ids, *columns)
    evaluator = DetectionEvaluator(case.classes)
    evaluator.merge(same.to_state())
    result = evaluator.compute()
    for number in (result.coco["AP"], result.voc10_ap50):
        assert number == pytest.approx(1) if len(boxes) else math.isnan(number)


def test_mask_grids_of_a_batch_are_scored_in_original_pixels() -> None:
    """An image of 80 x 100 in an input of 40 x 50: the grid's left half is the object."""
    grids = torch.zeros(1, 8, 8)
    grids[:, :, :4] = 1
    box = torch.tensor([[0.0, 0.0, 20.0, 20.0]])
    predicted = DetectorOutput(box, torch.tensor([0.9]), torch.tensor([CAT]), grids=RoiMasks(grids, box))
    batch = Batch(
        images=torch.zeros(1, 3, 40, 50, dtype=torch.uint8),
        targets=[BoxTargets.empty()],
        indices=[0],
        letterboxes=[Letterbox.fit((80, 100), (40, 50))],
        image_ids=[3],
        annotations=[truth([(LEFT, CAT)], masks=rectangles([(0, 0, 20, 40)], (80, 100)))],
    )
    evaluator = DetectionEvaluator(CLASSES, masks=True)
    evaluator.update_batch(batch, [predicted])
    assert mask_ap50(evaluator.compute()) == pytest.approx(1)
    assert evaluator.compute().coco["AP50"] == pytest.approx(1)


def test_neither_images_nor_objects_nor_detections() -> None:
    nothing = evaluate()
    assert nothing.explain() == ["No image was evaluated: the split is empty."]
    assert "0 images" in printed(nothing)
    assert all(math.isnan(number) for number in (*nothing.coco.values(), nothing.voc07_ap50, nothing.voc10_ap50))

    no_objects = evaluate((found([(LEFT, 0.9, CAT)]), truth([])), (DetectorOutput.empty(), truth([])))
    assert all(math.isnan(number) for number in (*no_objects.coco.values(), no_objects.voc10_ap50))
    assert "2 images have no objects" in no_objects.explain()[0]

    no_detections = evaluate((DetectorOutput.empty(), truth([(LEFT, CAT), (LOW, DOG)])))
    assert no_detections.coco["AP"] == no_detections.coco["AR_100"] == no_detections.voc07_ap50 == 0
    (sentence,) = no_detections.explain()
    assert "no detections at all" in sentence

    ignored = evaluate((found([(LEFT, 0.9, CAT)]), truth([(LEFT, CAT)], difficult=[0])))
    assert (ignored.num_objects, ignored.num_ignored) == (0, 1)
    assert math.isnan(ignored.coco["AP"])
    assert "1 crowd or difficult" in ignored.explain()[0]


@pytest.mark.parametrize(
    ("rows", "masks", "parts"),
    [
        # Boxes of an image half the size.
        ([((0, 0, 20, 20), 0.9, CAT), (LOW, 0.9, DOG)], None, ["None of the 2 detections overlaps", "best: 0.25"]),
        ([(LEFT, 0.9, DOG), (RIGHT, 0.8, CAT)], None, ["labels are wrong", "0.000, and 1.000 with the labels ignored"]),
        ([(LEFT, 0.01, CAT), (RIGHT, 0.01, DOG)], None, ["highest score of all detections is 0.010"]),
        ([(LEFT, 0.9, CAT)], None, ["without a single detection: dog."]),
        ([*[(LOW, 0.9, k) for k in (CAT, DOG) * 30], (LEFT, 0.5, CAT)], None, ["Hardly any objects", "--score 0.05"]),
        ([(LEFT, 0.9, CAT), (LOW, 0.9, DOG)], None, ["hardly found: dog (AP 0.000, recall 0.000, 1 objects): "]),
        ([(LEFT, 0.1, CAT), (RIGHT, 0.8, DOG)], None, ["at low scores only: cat: ", "--score 0.10"]),
        ([(LEFT, 0.9, CAT), (RIGHT, 0.8, DOG)], None, []),
        ([(LEFT, 0.9, CAT), (RIGHT, 0.8, DOG)], [RIGHT, LEFT], ["masks are wrong", "1.000 of the boxes and 0.000"]),
        ([(LEFT, 0.9, CAT), (RIGHT, 0.8, DOG)], [LEFT, LOW], []),  # half of them are right: it learns
        ([(LOW, 0.9, CAT), (LOW, 0.9, DOG)], [LEFT, LEFT], ["None of the 2 detections overlaps"]),
    ],
)
def test_explanations(rows: list[tuple[Box, float, int]], masks: list[Box] | None, parts: list[str]) -> None:
    image = found_masks(rows, masks), true_masks([(LEFT, CAT), (RIGHT, DOG)])
    sentences = evaluate(image, masks=masks is not None).explain()
    assert len(sentences) == bool(parts)
    assert all(part in sentences[0] for part in parts)


def test_file_and_screen() -> None:
    image = (found([(LEFT, 0.75, CAT)]), truth([(LEFT, CAT), (RIGHT, DOG)]))
    result = evaluate(image, max_detections=300)
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (plain["coco"]["AP_large"], plain["coco"]["AR_300"]) == (None, 0.5)
    assert (plain["classes"][CAT]["threshold"], plain["classes"][OWL]["ap"]) == (0.75, None)

    lines = [line.split() for line in printed(result).splitlines()]
    assert ["AP", "0.500", "AR_1", "0.500"] in lines
    assert ["AP_large", "-", "AR_large", "-"] in lines
    assert ["AP75", "0.500", "AR_300", "0.500"] in lines
    assert ["cat", "1", "1", *["1.000"] * 7, "0.750"] in lines
    assert ["dog", "1", "0", *["0.000"] * 4, "-", "0.000", "0.000", "-"] in lines
    assert ["owl", "0", "0", *["-"] * 8] in lines
    assert ["all", "2", "1", *["0.500"] * 5] in lines
    assert "the best 300 detections" in " ".join(printed(result).split())


def test_file_and_screen_with_masks() -> None:
    image = found_masks([(LEFT, 0.75, CAT)], [(0, 0, 40, 20)]), true_masks([(LEFT, CAT), (RIGHT, DOG)])
    result = evaluate(image, max_detections=400, masks=True)
    masks = json.loads(json.dumps(result.to_dict(), allow_nan=False))["masks"]
    assert (masks["summary"]["AR_400"], masks["summary"]["AP_large"]) == (pytest.approx(0.05), None)
    assert (masks["class_ap"], masks["class_ap50"]) == ([pytest.approx(0.1), 0, None], [pytest.approx(1), 0, None])

    lines = [line.split() for line in printed(result).splitlines()]
    of_boxes, of_masks = lines.index(["COCO,", "boxes"]), lines.index(["COCO,", "masks"])
    assert of_boxes < lines.index(["AP75", "0.500", "AR_400", "0.500"]) < of_masks
    assert of_masks < lines.index(["AP75", "0.000", "AR_400", "0.050"])
    assert ["class", "objects", "dets", "AP", "AP50", "AP", "AP50", "prec.", "recall", "F1", "score"] in lines
    assert ["cat", "1", "1", "1.000", "1.000", "0.100", *["1.000"] * 4, "0.750"] in lines
    assert ["all", "2", "1", "0.500", "0.500", "0.050", "0.500", "0.500"] in lines
    assert "VOC's AP of boxes at IoU 0.5: 0.500 (2007), 0.500 (2010)." in " ".join(printed(result).split())


def test_class_names_are_not_markup() -> None:
    names = ("[bold]", "[/]", ":car:", "<script>")
    assert set(names) <= set(printed(DetectionEvaluator(ClassTable(names)).compute()).split())


@pytest.mark.parametrize(("option", "expected"), [("max_detections", "1 or more"), ("f1_iou", "a number above 0")])
def test_wrong_options(option: str, expected: str) -> None:
    with pytest.raises(ValueError, match=f"{option}: expected {expected}.*, got 0"):
        DetectionEvaluator(CLASSES, **{option: 0})


DETECTIONS, OBJECTS = found_masks([(LEFT, 0.9, CAT)]), true_masks([(LEFT, CAT), (LOW, DOG)])
OTHERS = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ClassTable(("owl",)))
ONE_MASK = InstanceMasks.from_dense(rectangles([LEFT], (100, 80)))


@pytest.mark.parametrize(
    ("detections", "objects", "message"),
    [
        (found([(LEFT, 0.9, 3)]), truth([]), "detections: expected labels from 0 to 2, got 3"),
        (found([]), truth([(LEFT, -1)]), "ground truth: expected labels from 0 to 2, got -1"),
        (found([(LEFT, math.nan, CAT)]), truth([]), "scores of detections: 1 of 1 numbers are NaN"),
        (found([(LEFT, 0.5, CAT), ((0, 0, math.inf, 4), 0.5, CAT)]), truth([]), "boxes of detections: 1 of 8 numbers"),
        (found([((-math.inf, 0, 9, 9), 0.5, CAT)]), truth([]), "boxes of detections: 1 of 4 numbers are NaN or inf"),
        (found([]), truth([((0, 0, 9, math.nan), CAT)]), "boxes of the ground truth: 1 of 4 numbers are NaN or inf"),
        (OTHERS, truth([]), r"the detections' classes \['owl'\] are not the"),
        (replace(DETECTIONS, masks=None), OBJECTS, "detections: expected 1 masks .* got none"),
        (DETECTIONS, replace(OBJECTS, masks=None), "ground truth: expected 2 masks .* got none"),
        (DETECTIONS, replace(OBJECTS, masks=ONE_MASK), "ground truth: expected 2 masks .* got 1"),
        (replace(DETECTIONS, masks=ONE_MASK), OBJECTS, r"got masks of \(100, 80\) .* and of \(80, 120\)"),
    ],
)
def test_wrong_input(detections: DetectorOutput | Detections, objects: ImageAnnotations, message: str) -> None:
    with_masks = detections.masks is not None or objects.masks is not None
    evaluator = DetectionEvaluator(CLASSES, masks=with_masks)
    with pytest.raises(ValueError, match=f"image 4: .*{message}"):
        evaluator.update(4, detections, objects)
    assert evaluator.compute().num_images == 0
