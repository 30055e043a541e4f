"""The evaluator with masks: what is counted and merged, wrong input, words and tables."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console

from detseg.metrics.detection.evaluator import DetectionEvaluator
from detseg.metrics.detection.result import DetectionResult
from detseg.ops.letterbox import Letterbox
from detseg.structures import (
    Batch,
    BoxTargets,
    ClassTable,
    Detections,
    ImageAnnotations,
    InstanceMasks,
    RoiMasks,
)
from tests.metrics.detection.builders import Box, found, truth

CLASSES = ClassTable(("cat", "dog", "owl"), (90, 7, 12))
CAT, DOG, OWL = 0, 1, 2
HW = (80, 100)
LEFT, RIGHT, LOW = (0, 0, 40, 40), (50, 10, 90, 50), (20, 60, 60, 80)
HEADLINE = ["mask_AP", "mask_AP50", "mask_AP75", "AP", "AP50", "AP75"]


def boxes_filled(boxes: list[Box], hw: tuple[int, int] = HW) -> InstanceMasks:
    """Masks that fill boxes of whole pixels."""
    masks: NDArray[np.bool_] = np.zeros((len(boxes), *hw), dtype=np.bool_)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[int(y1) : int(y2), int(x1) : int(x2)] = True
    return InstanceMasks.from_dense(masks)


def found_masks(rows: list[tuple[Box, float, int]], masks: list[Box] | None = None) -> Detections:
    """Detections whose masks fill their boxes, or the boxes of ``masks``."""
    return replace(found(rows), masks=boxes_filled([box for box, _, _ in rows] if masks is None else masks))


def true_masks(rows: list[tuple[Box, int]], difficult: list[int] | None = None) -> ImageAnnotations:
    return replace(truth(rows, difficult or []), masks=boxes_filled([box for box, _ in rows]))


def evaluate(*images: tuple[Detections, ImageAnnotations], max_detections: int = 100) -> DetectionEvaluator:
    evaluator = DetectionEvaluator(CLASSES, max_detections, masks=True)
    for image_id, image in enumerate(images):
        evaluator.update(image_id, *image)
    return evaluator


def mask_ap50(result: DetectionResult) -> float:
    assert result.masks is not None
    return result.masks.summary["AP50"]


def through_a_file(values: NDArray[Any]) -> NDArray[Any]:
    """An array of numbers comes back; one of objects is refused."""
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    file.seek(0)
    back: NDArray[Any] = np.load(file, allow_pickle=False)
    return back


def test_masks_lead_the_headline() -> None:
    """The box is right and the mask half of it: IoU 0.5 by masks, right for AP50 and wrong for AP75."""
    result = evaluate((found_masks([(LEFT, 0.9, CAT)], [(0, 0, 40, 20)]), true_masks([(LEFT, CAT)]))).compute()
    assert list(result.headline) == HEADLINE
    assert list(result.headline.values()) == pytest.approx([0.1, 1, 0, 1, 1, 1])
    boxes_only = DetectionEvaluator(CLASSES)
    boxes_only.update(0, found_masks([(LEFT, 0.9, CAT)]), true_masks([(LEFT, CAT)]))
    assert list(boxes_only.compute().headline) == ["AP", "AP50", "AP75"]
    assert boxes_only.compute().masks is None
    assert "masks" not in boxes_only.compute().to_dict()


def test_an_image_counts_once_and_the_first_time() -> None:
    evaluator = evaluate((found_masks([(LEFT, 0.9, CAT)]), true_masks([(LEFT, CAT)])))
    evaluator.update(0, found_masks([(LEFT, 0.9, CAT)], [LOW]), true_masks([(LEFT, CAT)]))
    assert evaluator.compute().num_images == 1
    assert mask_ap50(evaluator.compute()) == pytest.approx(1)


def test_merged_states_equal_one_evaluator() -> None:
    """Two processes, one image in both, images out of order; the state goes through a file of plain arrays."""
    images = {
        7: (found_masks([(LEFT, 0.5, CAT), (LOW, 0.5, DOG)], [LEFT, RIGHT]), true_masks([(LEFT, CAT), (LOW, DOG)])),
        3: (found_masks([(RIGHT, 0.5, CAT)]), true_masks([(LEFT, CAT), (RIGHT, DOG)], difficult=[1])),
        5: (Detections.empty(), true_masks([(LOW, OWL)])),
        4: (Detections.empty(), truth([])),
        9: (found_masks([(LEFT, 0.25, OWL)]), truth([])),
    }
    together, first, second = (DetectionEvaluator(CLASSES, masks=True) for _ in range(3))
    for image_id, image in images.items():
        together.update(image_id, *image)
    for image_id in (7, 3, 4):
        first.update(image_id, *images[image_id])
    for image_id in (9, 5, 7):
        second.update(image_id, *images[image_id])
    first.merge({name: through_a_file(values) for name, values in second.state().items()})
    assert first.state().keys() == together.state().keys()
    for name, values in together.state().items():
        np.testing.assert_array_equal(first.state()[name], values)
    assert together.state()["image_hw"].tolist() == [[80, 100], [0, 0], [80, 100], [80, 100], [80, 100]]
    assert first.compute().to_dict() == together.compute().to_dict()
    assert 0 < mask_ap50(first.compute()) < first.compute().coco["AP50"]
    first.merge(DetectionEvaluator(CLASSES, masks=True).state())  # a process that saw no image
    assert first.compute().to_dict() == together.compute().to_dict()


def test_grids_of_a_batch_are_scored_in_original_pixels() -> None:
    """An image of 80 x 100 in an input of 40 x 50: the grid's left half is the object."""
    grids = torch.zeros(1, 8, 8)
    grids[:, :, :4] = 1
    box = torch.tensor([[0.0, 0.0, 20.0, 20.0]])
    predicted = Detections(box, torch.tensor([0.9]), torch.tensor([CAT]), grids=RoiMasks(grids, box))
    batch = Batch(
        images=torch.zeros(1, 3, 40, 50, dtype=torch.uint8),
        targets=[BoxTargets.empty()],
        indices=[0],
        letterboxes=[Letterbox.fit(HW, (40, 50))],
        image_ids=[3],
        annotations=[replace(truth([(LEFT, CAT)]), masks=boxes_filled([(0, 0, 20, 40)]))],
    )
    evaluator = DetectionEvaluator(CLASSES, masks=True)
    evaluator.update_batch(batch, [predicted])
    assert mask_ap50(evaluator.compute()) == pytest.approx(1)
    assert evaluator.compute().coco["AP"] == pytest.approx(1)


def test_masks_must_be_there_and_of_one_image() -> None:
    evaluator = DetectionEvaluator(CLASSES, masks=True)
    detections, objects = found_masks([(LEFT, 0.9, CAT)]), true_masks([(LEFT, CAT), (LOW, DOG)])
    with pytest.raises(ValueError, match="image 4: detections: expected 1 masks, got none"):
        evaluator.update(4, replace(detections, masks=None), objects)
    with pytest.raises(ValueError, match="image 4: ground truth: expected 2 masks, got none"):
        evaluator.update(4, detections, replace(objects, masks=None))
    with pytest.raises(ValueError, match="image 4: ground truth: expected 2 masks, got 1"):
        evaluator.update(4, detections, replace(objects, masks=boxes_filled([LEFT])))
    with pytest.raises(ValueError, match=r"image 4: .* of 100 x 80 pixels, those of the ground truth of 80 x 100"):
        evaluator.update(4, replace(detections, masks=boxes_filled([LEFT], (100, 80))), objects)
    assert evaluator.compute().num_images == 0


def test_explains_masks_that_are_wrong_where_boxes_are_right() -> None:
    objects = true_masks([(LEFT, CAT), (RIGHT, DOG)])
    rows: list[tuple[Box, float, int]] = [(LEFT, 0.9, CAT), (RIGHT, 0.8, DOG)]
    (words,) = evaluate((found_masks(rows, [RIGHT, LEFT]), objects)).compute().explain()
    assert "Boxes are found but their masks are wrong: AP50 is 1.000 of the boxes and 0.000 of the masks" in words
    assert evaluate((found_masks(rows), objects)).compute().explain() == []
    assert evaluate((found_masks(rows, [LEFT, LOW]), objects)).compute().explain() == []  # half of them: it learns


def test_says_no_word_of_masks_where_boxes_are_not_found() -> None:
    words = evaluate((found_masks([(LOW, 0.9, CAT)]), true_masks([(LEFT, CAT)]))).compute().explain()
    assert len(words) == 1
    assert "None of the 1 detections overlaps" in words[0]
    nothing = DetectionEvaluator(CLASSES, masks=True).compute().explain()
    assert nothing == ["No image was evaluated: the split is empty."]


def test_file_and_screen() -> None:
    image = found_masks([(LEFT, 0.75, CAT)], [(0, 0, 40, 20)]), true_masks([(LEFT, CAT), (RIGHT, DOG)])
    result = evaluate(image, max_detections=400).compute()
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["coco"]["AP"] == pytest.approx(0.5)
    assert plain["masks"]["summary"]["AP"] == pytest.approx(0.05)
    assert plain["masks"]["summary"]["AR_400"] == pytest.approx(0.05)
    assert plain["masks"]["summary"]["AP_small"] is None
    assert plain["masks"]["class_ap"] == [pytest.approx(0.1), 0, None]
    assert plain["masks"]["class_ap50"] == [pytest.approx(1), 0, None]

    console = Console(width=80)
    with console.capture() as captured:
        console.print(result.table())
    assert max(len(line) for line in captured.get().splitlines()) <= 80
    words = [line.split() for line in captured.get().splitlines()]
    of_boxes, of_masks = words.index(["COCO,", "boxes"]), words.index(["COCO,", "masks"])
    assert of_boxes < words.index(["AP75", "0.500", "AR_400", "0.500"]) < of_masks
    assert of_masks < words.index(["AP75", "0.000", "AR_400", "0.050"])
    assert ["class", "objects", "dets", "AP", "AP50", "AP", "AP50", "prec.", "recall", "F1", "score"] in words
    assert ["cat", "1", "1", "1.000", "1.000", "0.100", "1.000", "1.000", "1.000", "1.000", "0.750"] in words
    assert ["all", "2", "1", "0.500", "0.500", "0.050", "0.500"] in words
    footnote = " ".join(captured.get().split())
    assert "the best 400 detections" in footnote
    assert "VOC's AP of boxes at IoU 0.5: 0.500 (2007), 0.500 (2010)." in footnote
    assert "Precision, recall: of boxes, at the score of the best F1" in footnote
