"""Matching and scores at odd inputs: nothing found, nothing there, all ignored, equal scores, boxes without area."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.metrics.detection.evaluator import DetectionEvaluator
from detseg.metrics.detection.records import DetectionRecords
from detseg.metrics.detection.voc import best_matches, rank_classes
from detseg.metrics.segmentation.confusion import check_labels, pair_counts
from detseg.structures import ClassTable, DetectorOutput, ImageAnnotations
from tests.fuzz.strategies import boxes_inside, seeds

CLASSES = ClassTable(("a", "b"))
Scene = list[tuple[DetectorOutput, ImageAnnotations]]


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Up to three images; boxes in whole pixels of a small one, so that many overlap; few scores, so that many tie."""
    rng = np.random.default_rng(draw(seeds))
    numbers = st.tuples(st.sampled_from([0, 1, 8]), st.sampled_from([0, 1, 6]))
    return [_image(rng, *pair) for pair in draw(st.lists(numbers, max_size=3))]


def _image(rng: np.random.Generator, num_found: int, num_true: int) -> tuple[DetectorOutput, ImageAnnotations]:
    truth = boxes_inside((12, 16), num_true, rng, cells=1)
    found = boxes_inside((12, 16), num_found, rng, cells=1)
    found[: num_true // 2] = truth[: min(num_true // 2, num_found)][: len(found[: num_true // 2])]
    truth[rng.random(num_true) < 0.1, 2:] = 3  # some without an area, or inside out
    truth = np.concatenate([truth[:, :2], np.maximum(truth[:, :2], truth[:, 2:])], axis=1)
    detections = DetectorOutput(
        torch.from_numpy(found),
        torch.from_numpy(rng.choice([0.25, 0.5, 1.0], num_found).astype(np.float32)),
        torch.from_numpy(rng.integers(0, 2, num_found)),
    )
    no = np.zeros(num_true, dtype=np.bool_)
    annotations = ImageAnnotations(
        truth.astype(np.float64),
        rng.integers(0, 2, num_true),
        crowd=rng.random(num_true) < 0.2,
        difficult=no,
        truncated=no,
        area=(truth[:, 2:] - truth[:, :2]).prod(axis=1).astype(np.float64),
    )
    return detections, annotations


@given(scenes(), st.sampled_from([0.25, 0.5, 1.0]))
def test_right_and_wrong_one_by_one(scene: Scene, threshold: float) -> None:
    """The development kit's rule in loops: a detection is compared with the object that it overlaps most, taken or
    not."""
    records = DetectionRecords.concatenate([DetectionRecords.of_image(k, *image) for k, image in enumerate(scene)])
    taken: set[int] = set()
    scores: list[list[float]] = [[], []]
    right: list[list[bool]] = [[], []]
    for row in sorted(range(len(records.detection_scores)), key=lambda row: -records.detection_scores[row]):
        best, overlap = -1, 0.0
        label = int(records.detection_labels[row])
        for other in range(len(records.object_labels)):
            same = records.object_image_ids[other] == records.detection_image_ids[row]
            if same and records.object_labels[other] == label:
                found = _iou(records.detection_boxes[row].tolist(), records.object_boxes[other].tolist())
                if best < 0 or found > overlap:
                    best, overlap = other, found
        hit = best >= 0 and overlap >= threshold
        if not (hit and records.object_ignore[best]):
            scores[label].append(float(records.detection_scores[row]))
            right[label].append(hit and best not in taken)
            taken |= {best} if hit else set()
    for label, ranking in enumerate(rank_classes(records, best_matches(records), threshold, 2)):
        assert ranking.scores.tolist() == scores[label]
        assert ranking.true_positives.tolist() == np.cumsum(right[label], dtype=np.int64).tolist()


def _iou(one: list[float], other: list[float]) -> float:
    sides = [max(min(one[k + 2], other[k + 2]) - max(one[k], other[k]), 0.0) for k in (0, 1)]
    union = sum((row[2] - row[0]) * (row[3] - row[1]) for row in (one, other)) - sides[0] * sides[1]
    return sides[0] * sides[1] / union if union > 0 else 0.0


def _numbers(scene: Scene, order: list[int]) -> dict[str, float]:
    evaluator = DetectionEvaluator(CLASSES)
    for k in order:
        evaluator.update(k, *scene[k])
        evaluator.update(k, *scene[k])  # an image counts once
    result = evaluator.compute()
    assert result.explain() is not None
    assert result.to_dict()
    return {**result.coco, "voc07": result.voc07_ap50, "voc10": result.voc10_ap50}


@settings(max_examples=25)
@given(scenes())
def test_any_scene_has_a_score_that_the_order_of_images_does_not_change(scene: Scene) -> None:
    numbers = _numbers(scene, list(range(len(scene))))
    assert all(math.isnan(value) or 0 <= value <= 1 for value in numbers.values()), numbers
    backwards = _numbers(scene, list(range(len(scene)))[::-1])
    np.testing.assert_equal(backwards, numbers)  # NaN is NaN


@settings(max_examples=20)
@given(scenes())
def test_the_truth_as_detections_scores_one(scene: Scene) -> None:
    evaluator = DetectionEvaluator(CLASSES)
    objects = 0
    for k, (_, truth) in enumerate(scene):
        boxes = np.unique(truth.boxes, axis=0)  # of equal boxes of one class VOC counts one as found
        boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
        num, no = len(boxes), np.zeros(len(boxes), dtype=np.bool_)
        objects += num
        area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        labels = np.zeros(num, dtype=np.int64)
        rows = torch.from_numpy(boxes.astype(np.float32))
        found = DetectorOutput(rows, torch.ones(num), torch.from_numpy(labels))
        evaluator.update(k, found, ImageAnnotations(boxes, labels, no, no, no, area))
    result = evaluator.compute()
    if objects:
        assert result.coco["AP"] == pytest.approx(1)
        assert result.voc10_ap50 == pytest.approx(1)
    else:
        assert math.isnan(result.coco["AP"])


@given(st.sampled_from([math.nan, math.inf, -math.inf]), st.booleans(), st.integers(0, 3))
def test_nan_and_infinite_numbers_raise(number: float, in_truth: bool, column: int) -> None:
    found, truth = _image(np.random.default_rng(0), 3, 3)
    (truth.boxes if in_truth else found.boxes)[1, column] = number
    with pytest.raises(ValueError, match=r"image 7: boxes of .*: 1 of 12 numbers are NaN or infinite"):
        DetectionEvaluator(CLASSES).update(7, found, truth)


@given(seeds, st.sampled_from([1, 2, 255]), st.sampled_from([(0, 0), (1, 1), (40, 30), (1, 300_000)]))
def test_pixels_counted_one_by_one(seed: int, num_classes: int, hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    predicted = rng.integers(0, num_classes, hw, dtype=np.uint8)
    truth = rng.integers(0, num_classes, hw, dtype=np.uint8)
    truth[rng.random(hw) < 0.2] = 255
    counts = pair_counts(torch.from_numpy(predicted), torch.from_numpy(truth))
    check_labels(counts, num_classes)
    expected = np.zeros((num_classes, num_classes), dtype=np.int64)
    counted = truth != 255
    np.add.at(expected, (truth[counted], predicted[counted]), 1)
    np.testing.assert_array_equal(counts[:num_classes, :num_classes].numpy(), expected)
    assert int(counts[255].sum()) == int((~counted).sum())


@given(st.sampled_from(["predicted", "truth"]), st.sampled_from([3, 4, 254, -1, 256, 2**40]))
def test_labels_outside_the_class_table_raise(side: str, wrong: int) -> None:
    maps = {"predicted": torch.zeros(4, 5, dtype=torch.int64), "truth": torch.zeros(4, 5, dtype=torch.int64)}
    maps[side][2, 3] = wrong
    with pytest.raises(ValueError, match="expected labels 0 to 2 of 3 classes"):
        check_labels(pair_counts(**maps), 3)
