"""What becomes of detections and objects: by hand, and by loops that follow the rules word by word."""

from __future__ import annotations

import numpy as np
import pytest

from detseg.evaluation.report.calibration import calibration
from detseg.evaluation.report.outcomes import (
    NOT_KEPT,
    RIGHT,
    Curve,
    curve,
    curve_thresholds,
    outcomes,
    rank,
    slices,
)
from detseg.metrics.detection import DetectionEvaluator
from detseg.metrics.error_kinds import ErrorKind
from detseg.metrics.records import DetectionRecords
from detseg.structures import ClassTable
from tests.metrics.builders import Rows, found, truth

CLASSES = ClassTable(("cat", "dog"))
CAT, DOG = 0, 1
KINDS = list(ErrorKind)


def records_of(*images: tuple[Rows, list[tuple[tuple[float, ...], int]]]) -> DetectionRecords:
    parts = [DetectionRecords.of_image(k, found(rows), truth(objects)) for k, (rows, objects) in enumerate(images)]
    return DetectionRecords.concatenate(parts)


PLANTED = records_of(
    (
        [
            ((0, 0, 10, 10), 0.9, CAT),  # right
            ((0, 0, 10, 9), 0.8, CAT),  # a duplicate
            ((50, 50, 60, 60), 0.7, DOG),  # on nothing
            ((20, 20, 30, 30), 0.6, DOG),  # on a cat
            ((40, 0, 50, 10), 0.1, DOG),  # right, below the threshold
        ],
        [((0, 0, 10, 10), CAT), ((20, 20, 30, 30), CAT), ((40, 0, 50, 10), DOG), ((80, 80, 90, 90), DOG)],
    )
)


def test_each_detection_and_object_has_its_outcome() -> None:
    got = outcomes(PLANTED, CLASSES, np.array([0.5, 0.5]), 0.5)
    expected = [RIGHT, *(KINDS.index(kind) for kind in (ErrorKind.DUPLICATE, ErrorKind.BACKGROUND, ErrorKind.CLASS))]
    assert got.kinds.tolist() == [*expected, NOT_KEPT]
    assert got.objects[[0, 1, 3]].tolist() == [0, 0, 1]
    assert got.found.tolist() == [True, False, False, False]
    assert got.taken_for.tolist() == [-1, DOG, -1, -1]
    # Rows: cat, dog, on nothing; columns: cat, dog, missed.
    assert got.confusion.tolist() == [[1, 1, 0], [0, 0, 2], [1, 1, 0]]


def test_what_lies_in_a_crowd_of_its_class_is_no_error() -> None:
    """One hundredth of the region each: by IoU they would be on nothing."""
    rows = [((10, 10, 20, 20), 0.9, CAT), ((30, 30, 40, 40), 0.9, DOG)]
    parts = [DetectionRecords.of_image(0, found(rows), truth([((0, 0, 100, 100), CAT)], crowd=[0]))]
    got = outcomes(DetectionRecords.concatenate(parts), CLASSES, np.array([0.5, 0.5]), 0.5)
    assert got.kinds.tolist() == [NOT_KEPT, KINDS.index(ErrorKind.BACKGROUND)]
    assert got.confusion.tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_a_class_without_a_threshold_keeps_nothing() -> None:
    got = outcomes(PLANTED, CLASSES, np.array([0.5, np.nan]), 0.5)
    assert got.kinds.tolist()[2:] == [NOT_KEPT] * 3
    assert got.confusion.tolist() == [[1, 0, 1], [0, 0, 2], [1, 0, 0]]


def test_slices_count_what_is_in_them() -> None:
    got = outcomes(PLANTED, CLASSES, np.array([0.5, 0.5]), 0.5)
    of_objects, of_detections = np.array([0, 0, 2, 2]), np.array([0, 0, 2, 0, 2])
    assert [vars(row) for row in slices(got, ["small", "medium", "large"], of_objects, of_detections)] == [
        {"name": "small", "num_objects": 2, "num_found": 1, "num_kept": 3, "num_right": 1},
        {"name": "large", "num_objects": 2, "num_found": 0, "num_kept": 1, "num_right": 0},
    ]


@pytest.mark.parametrize("seed", range(5))
def test_curves_and_outcomes_by_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(6):
        objects = [(tuple(box), int(rng.integers(2))) for box in random_boxes(rng, 8)]
        rows = [(box, float(rng.integers(1, 20)) / 20, int(rng.integers(2))) for box in random_boxes(rng, 25)]
        images.append((rows, objects))
    records = records_of(*images)
    ranked = rank(records, 2, 0.5)
    thresholds = curve_thresholds(ranked, np.array([0.33, np.nan]))
    assert 0.33 in thresholds
    got = [curve([one], thresholds) for one in ranked]
    for label, one in enumerate(got):
        for k, threshold in enumerate(thresholds.tolist()):
            kept, right, num_objects = count(images, label, threshold)
            assert (one.kept[k], one.right[k], one.num_objects) == (kept, right, num_objects)
            assert one.f1[k] == pytest.approx(2 * right / (kept + num_objects))
    both = curve(ranked, thresholds)
    assert both.kept.tolist() == (got[0].kept + got[1].kept).tolist()
    assert_the_best_is_the_evaluators(images, got)

    cut = outcomes(records, CLASSES, np.array([0.4, 0.6]), 0.5)
    for label, threshold in enumerate((0.4, 0.6)):
        kept, right, num_objects = count(images, label, threshold)
        of_class = records.detection_labels == label
        assert np.count_nonzero(cut.kinds[of_class] == RIGHT) == right == cut.confusion[label, label]
        assert np.count_nonzero(cut.kinds[of_class] > NOT_KEPT) == kept == cut.confusion[:, label].sum()
        assert cut.confusion[label].sum() == num_objects


def assert_the_best_is_the_evaluators(
    images: list[tuple[Rows, list[tuple[tuple[float, ...], int]]]], got: list[Curve]
) -> None:
    evaluator = DetectionEvaluator(CLASSES)
    for k, (rows, objects) in enumerate(images):
        evaluator.update(k, found(rows), truth(objects))
    for row, one in zip(evaluator.compute().classes, got, strict=True):
        assert one.f1.max() == pytest.approx(row.f1)


def random_boxes(rng: np.random.Generator, num: int) -> list[tuple[float, ...]]:
    corners = rng.integers(0, 4, (num, 2)) * 5
    return [(float(x), float(y), float(x + 6 + rng.integers(3)), float(y + 7)) for x, y in corners]


def count(
    images: list[tuple[Rows, list[tuple[tuple[float, ...], int]]]], label: int, threshold: float
) -> tuple[int, int, int]:
    """VOC's rule in a loop: best score first, each compared with the object of its class that it overlaps most."""
    kept = right = num_objects = 0
    for rows, objects in images:
        boxes = [box for box, of in objects if of == label]
        num_objects += len(boxes)
        taken = set[int]()
        scores = [float(np.float32(score)) for _, score, _ in rows]
        own = [(s, box) for s, (box, _, of) in zip(scores, rows, strict=True) if of == label and s >= threshold]
        for _, box in sorted(own, key=lambda pair: -pair[0]):
            kept += 1
            ious = [iou(box, other) for other in boxes]
            best = int(np.argmax(ious)) if ious else -1
            if best >= 0 and ious[best] >= 0.5 and best not in taken:
                taken.add(best)
                right += 1
    return kept, right, num_objects


def iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    inside = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return inside / (sum(areas) - inside)


def test_the_calibration_error_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(1000)
    right = rng.random(1000) < scores**2
    got = calibration(scores, right, lowest=0.1)
    error, total = 0.0, sum(score >= 0.1 for score in scores)
    for k in range(10):
        own = [(s, r) for s, r in zip(scores, right, strict=True) if s >= 0.1 and k / 10 <= s < (k + 1) / 10]
        assert got.counts[k] == len(own)
        if own:
            confidence, accuracy = (sum(pair[i] for pair in own) / len(own) for i in (0, 1))
            assert (got.confidence[k], got.accuracy[k]) == (pytest.approx(confidence), pytest.approx(accuracy))
            error += len(own) / total * abs(confidence - accuracy)
    assert got.error == pytest.approx(error)
    assert np.isnan(calibration(scores[:0], right[:0]).error)
