"""The best-F1 threshold: against trying every threshold on the evaluator's input, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detseg.metrics.detection.records import DetectionRecords
from detseg.metrics.detection.voc_matching import (
    Ranking,
    best_matches,
    best_operating_point,
    match_at_iou,
    rank_classes,
)
from tests.metrics.detection.builders import found, truth


def test_by_hand() -> None:
    """Right, right, wrong, right, wrong with 4 objects: F1 is 2/5, 4/6, 4/7, 6/8, 6/9."""
    ranking = Ranking(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([1, 2, 2, 3, 3]), num_objects=4)
    assert best_operating_point(ranking) == pytest.approx((0.6, 3 / 4, 3 / 4, 6 / 8))


def test_equal_scores_stay_together() -> None:
    """The first of two equal scores alone would be perfect, but no threshold parts them."""
    ranking = Ranking(np.array([0.9, 0.9]), np.array([1, 1]), num_objects=1)
    assert best_operating_point(ranking) == pytest.approx((0.9, 1 / 2, 1.0, 2 / 3))


def test_nothing_found() -> None:
    missed = best_operating_point(Ranking(np.array([0.9]), np.array([0]), num_objects=2))
    assert (missed.precision, missed.recall, missed.f1) == (0, 0, 0)
    assert math.isnan(missed.threshold)
    silent = best_operating_point(Ranking(np.zeros(0), np.zeros(0, dtype=np.int64), num_objects=2))
    assert (silent.recall, silent.f1) == (0, 0)
    assert math.isnan(silent.precision)
    assert all(math.isnan(x) for x in best_operating_point(Ranking(np.array([0.9]), np.array([0]), num_objects=0)))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("iou_threshold", [0.5, 0.7])
def test_equals_trying_every_threshold(seed: int, iou_threshold: float) -> None:
    """Every score is tried by matching the kept detections alone, object by object."""
    rng = np.random.default_rng(seed)
    objects = [((30.0 * k, 0.0, 30.0 * k + 20, 20.0), 0) for k in range(10)]
    rows = []
    for _ in range(40):
        box = np.array(objects[int(rng.integers(10))][0]) + rng.integers(-5, 6, 4)
        rows.append((box.tolist(), float(rng.integers(1, 20) / 32), 0))
    records = DetectionRecords.of_image(1, found(rows), truth(objects))
    point = best_operating_point(
        rank_classes(records, match_at_iou(records, best_matches(records), iou_threshold), 1)[0]
    )

    tried = []
    for threshold in sorted({score for _, score, _ in rows}, reverse=True):
        kept = [box for box, score, _ in rows if score >= threshold]
        hit = set()
        for box in kept:
            overlaps = [_iou(box, other) for other, _ in objects]
            if max(overlaps) >= iou_threshold:
                hit.add(overlaps.index(max(overlaps)))
        precision, recall = len(hit) / len(kept), len(hit) / 10
        tried.append((2 * precision * recall / (precision + recall) if hit else 0.0, threshold, precision, recall))
    f1, threshold, precision, recall = max(tried, key=lambda row: (round(row[0], 12), row[1]))
    assert f1 > 0
    assert point == pytest.approx((threshold, precision, recall, f1))


def _iou(a: list[float], b: tuple[float, ...]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union
