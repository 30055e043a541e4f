"""The threshold of the best F1: by hand, and against trying every threshold on the evaluator's input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detseg.metrics.detection.best_f1 import best_f1
from detseg.metrics.detection.evaluator import DetectionEvaluator
from detseg.metrics.detection.voc import Ranking
from detseg.structures import ClassTable
from tests.metrics.detection.builders import Box, Rows, found, truth


def ranking(scores: list[float], true_positives: list[int], num_objects: int) -> Ranking:
    return Ranking(np.array(scores), np.array(true_positives, dtype=np.int64), num_objects)


def test_by_hand() -> None:
    """Right, right, wrong, right, wrong with 4 objects: F1 is 2/5, 4/6, 4/7, 6/8, 6/9."""
    best = best_f1(ranking([0.9, 0.8, 0.7, 0.6, 0.5], [1, 2, 2, 3, 3], 4))
    assert best == pytest.approx((0.6, 3 / 4, 3 / 4, 6 / 8))


def test_equal_scores_stay_together() -> None:
    """The first of two equal scores alone would be perfect, but no threshold separates them."""
    assert best_f1(ranking([0.9, 0.9], [1, 1], 1)) == pytest.approx((0.9, 1 / 2, 1.0, 2 / 3))


def test_nothing_found() -> None:
    assert best_f1(ranking([0.9], [0], 2)) == pytest.approx((math.nan, 0, 0, 0), nan_ok=True)
    assert best_f1(ranking([], [], 2)) == pytest.approx((math.nan, math.nan, 0, 0), nan_ok=True)
    assert all(math.isnan(number) for number in best_f1(ranking([0.9], [0], 0)))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("f1_iou", [0.5, 0.7])
def test_equals_trying_every_threshold(seed: int, f1_iou: float) -> None:
    """The kept detections alone are matched, object by object, for every score."""
    rng = np.random.default_rng(seed)
    objects = [(30.0 * k, 0.0, 30.0 * k + 20, 20.0) for k in range(10)]
    rows: Rows = []
    for _ in range(40):
        moved = np.array(objects[int(rng.integers(10))]) + rng.integers(-5, 6, 4)
        rows.append((moved.tolist(), float(rng.integers(1, 20) / 32), 0))
    evaluator = DetectionEvaluator(ClassTable(("cat",)), f1_iou=f1_iou)
    evaluator.update(1, found(rows), truth([(box, 0) for box in objects]))
    (cat,) = evaluator.compute().classes

    tried = []
    for threshold in sorted({score for _, score, _ in rows}, reverse=True):
        kept = [box for box, score, _ in rows if score >= threshold]
        hit = set()
        for box in kept:
            ious = [_iou(box, other) for other in objects]
            if max(ious) >= f1_iou:
                hit.add(ious.index(max(ious)))
        precision, recall = len(hit) / len(kept), len(hit) / 10
        tried.append((2 * precision * recall / (precision + recall) if hit else 0.0, threshold, precision, recall))
    f1, threshold, precision, recall = max(tried, key=lambda row: (round(row[0], 12), row[1]))
    assert f1 > 0
    assert (cat.threshold, cat.precision, cat.recall, cat.f1) == pytest.approx((threshold, precision, recall, f1))


def _iou(a: Box, b: Box) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union
