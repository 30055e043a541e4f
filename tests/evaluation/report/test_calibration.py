"""Calibrated scores: the map by brute force, what a file of it does, and that it makes scores probabilities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.errors import DataError
from detseg.evaluation.report.calibration import calibration, calibration_file, isotonic_fit
from detseg.evaluation.report.outcomes import Ranked
from detseg.predict import Detections
from detseg.predict.refine import Refinement, ScoreCalibration, read_calibration
from detseg.structures import ClassTable

CLASSES = ClassTable(("cat", "dog", "owl"))


def test_by_hand() -> None:
    """0.2 wrong, 0.4 right, 0.6 wrong, 0.8 right, 0.9 right: the middle two change places, and become a half each."""
    corners = isotonic_fit(np.array([0.8, 0.2, 0.6, 0.4, 0.9]), np.array([True, False, False, True, True]))
    assert corners == [(0.2, 0.0), (0.4, 0.5), (0.6, 0.5), (0.8, 1.0), (0.9, 1.0)]
    calibrate = ScoreCalibration({}, corners)
    scores = np.array([0.95, 0.7, 0.5, 0.3, 0.1], dtype=np.float32)
    found = Detections(np.zeros((5, 4), np.float32), scores, np.zeros(5, np.int64), CLASSES)
    np.testing.assert_allclose(calibrate(found).scores, [1, 0.75, 0.5, 0.25, 0], atol=1e-6)
    assert calibrate.lowest(0.5) == pytest.approx(0.4, abs=1e-5)
    assert calibrate.lowest(0.75) == pytest.approx(0.7, abs=1e-5)
    assert calibrate.lowest(0.0) == 0.0
    assert ScoreCalibration({}, [(0.5, 0.3)]).lowest(0.4) == 1.0
    assert isotonic_fit(np.zeros(0), np.zeros(0, np.bool_)) == []


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_the_map_is_the_best_monotone_one(rows: list[tuple[int, bool]]) -> None:
    """Of a score the highest, over what lies below it, of the lowest fractions of all that begins there and ends above
    (Barlow et al. 1972)."""
    scores, right = np.array([row[0] / 12 for row in rows]), np.array([row[1] for row in rows])
    corners = np.array(isotonic_fit(scores, right))
    assert (np.diff(corners[:, 0]) > 0).all()
    assert (np.diff(corners[:, 1]) >= 0).all()
    for score in np.unique(scores):
        starts, ends = np.unique(scores[scores <= score]), np.unique(scores[scores >= score])
        parts = [[right[(scores >= a) & (scores <= b)].mean() for b in ends] for a in starts]
        assert np.interp(score, *corners.T) == pytest.approx(max(map(min, parts)))


def planted(num: int, seed: int) -> tuple[list[Ranked], list[Detections]]:
    """Detections of three classes, by class and as found in images: cats are right in s² of the cases, dogs in √s; of
    owls there are few."""
    rng = np.random.default_rng(seed)
    ranked = []
    for chance, count in ((np.square, num), (np.sqrt, num), (np.square, 20)):
        scores = np.sort(rng.random(count).astype(np.float32).astype(np.float64))[::-1]
        ranked.append(Ranked(scores, rng.random(count) < chance(scores), np.arange(count), count))
    boxes = [np.tile(np.array([0, 0, 9, 9], np.float32), (len(one.scores), 1)) for one in ranked]
    found = [
        Detections(box, one.scores.astype(np.float32), np.full(len(box), label), CLASSES)
        for label, (box, one) in enumerate(zip(boxes, ranked, strict=True))
    ]
    return ranked, found


def test_calibrated_scores_are_probabilities(tmp_path: Path) -> None:
    """Fit on some detections, judged on others of the same kind."""
    fitted, _ = planted(3000, 0)
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(calibration_file(fitted, CLASSES.names, 0.5)))
    calibrate = read_calibration(file)
    assert set(calibrate.classes) == {"cat", "dog"}
    others, found = planted(3000, 1)
    for label in (0, 1):
        before = calibration(others[label].scores, others[label].right).error
        after = calibration(calibrate(found[label]).scores.astype(np.float64), others[label].right).error
        assert before > 0.1
        assert after < 0.03
    np.testing.assert_allclose(
        calibrate(found[2]).scores, np.interp(found[2].scores, *np.array(calibrate.others).T), rtol=1e-6
    )
    refine = Refinement(calibration=calibrate, thresholds=dict.fromkeys(CLASSES.names, 0.5))
    kept = refine(found[0])  # s² is 0.5 at 0.71
    assert found[0].scores[len(kept) - 1] == pytest.approx(0.71, abs=0.03)
    assert (kept.scores >= 0.5).all()
    assert calibrate.lowest(0.5) < 0.3  # of dogs √s is 0.5 at 0.25
    assert calibrate.fingerprint == read_calibration(file).fingerprint != ScoreCalibration({}, [(0.5, 0.5)]).fingerprint


def test_scores_of_several_classes_are_ranked_anew() -> None:
    calibrate = ScoreCalibration({"cat": [(0.0, 0.0), (1.0, 0.5)]}, [(0.0, 0.0), (1.0, 1.0)])
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = Detections(boxes, np.array([0.9, 0.8, 0.2], np.float32), np.array([0, 1, 2]), CLASSES)
    ranked = calibrate(found)
    assert ranked.names == ["dog", "cat", "owl"]
    np.testing.assert_allclose(ranked.scores, [0.8, 0.45, 0.2], rtol=1e-6)
    assert ranked.boxes.tolist() == boxes[[1, 0, 2]].tolist()
    assert len(calibrate(found[:0])) == 0


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"cat": 0.5},
        {"classes": {}, "other classes": []},
        {"classes": {}, "other classes": [[0.5, 0.9], [0.6, 0.8]]},
        {"classes": {"cat": [[0.5]]}, "other classes": [[0.5, 0.5]]},
        {"classes": {}, "other classes": [[0.5, 1.5]]},
    ],
)
def test_other_files_are_refused(content: Any, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"c\.json: expected corners \(score, fraction right\) that ascend from 0 to 1"):
        read_calibration(tmp_path / "c.json")
