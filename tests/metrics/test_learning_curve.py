"""Learning curves that are planted are found again, and what is no such curve is not extrapolated."""

from __future__ import annotations

import json

import numpy as np
import pytest

from detseg.metrics.learning_curve import LearningCurve, Point

FRACTIONS = (1 / 8, 1 / 4, 1 / 2, 1)


def curve_of(scores: list[float], reached: float | None = None) -> LearningCurve:
    """Of 25, 50, 100, 200, ... images."""
    return LearningCurve(tuple(Point(25 * 2**k, score, 0) for k, score in enumerate(scores)), "AP", reached)


@pytest.mark.parametrize(("sd", "num_seeds"), [(0.003, 1), (0.01, 1), (0.01, 3), (0.03, 3)])
def test_intervals_hold_planted_curves(sd: float, num_seeds: int) -> None:
    """a - b · n^-c with exponents around those of Hestness et al., and as much noise as seeds make: the score with
    twice the images, and what they bring, lie within their 95 % intervals in 90 to 100 % of 150 curves."""
    rng, gains, scores, number = np.random.default_rng(0), 0, 0, 0
    for _ in range(150):
        top, exponent, most = rng.uniform(0.5, 0.95), rng.uniform(0.2, 0.8), int(rng.choice([200, 1000, 10_000]))
        factor = rng.uniform(0.05, 0.3) / ((most / 8) ** -exponent - most**-exponent)
        truth = {ratio: top - factor * (most * ratio) ** -exponent for ratio in (*FRACTIONS, 2)}
        points = [
            Point(round(most * ratio), truth[ratio] + sd * rng.standard_normal(), seed)
            for ratio in FRACTIONS
            for seed in range(num_seeds)
        ]
        curve = LearningCurve(tuple(points), "AP")
        if curve.doubt:
            continue
        number += 1
        gain, low, high = curve.gain
        assert low <= gain <= high
        gains += low <= truth[2] - truth[1] <= high
        _, low, high = curve.band([2 * most])[0]
        scores += low <= truth[2] <= high
    assert number >= 140
    assert gains / number >= 0.90
    assert scores / number >= 0.90


def test_a_curve_without_noise_is_found_exactly() -> None:
    """0.8 - n^-0.5: 400 images bring 200^-0.5 - 400^-0.5 more than 200."""
    curve = curve_of([0.8 - (25 * 2**k) ** -0.5 for k in range(5)])
    expected = 400**-0.5 - 800**-0.5
    assert curve.num_images == 400
    assert curve.gain == pytest.approx((expected,) * 3, abs=1e-3)
    assert curve.band([25, 400, 800])[:, 0] == pytest.approx([0.6, 0.75, 0.8 - 800**-0.5], abs=1e-3)
    assert curve.verdict.startswith("twice the images (800) would bring AP +0.015 (0.01")
    point = json.loads(json.dumps(curve.to_dict()))["points"][1]
    assert point == {"num_images": 50, "score": 0.8 - 50**-0.5, "seed": 0}


@pytest.mark.parametrize(
    ("scores", "reached", "line"),
    [
        ([0.3, 0.4, 0.5], None, "no prediction: 3 numbers of images are too few for a curve; train on 4 or more"),
        ([0.5, 0.45, 0.4, 0.35], None, "no prediction: AP falls with more images"),
        ([0.3, 0.6, 0.3, 0.6], None, "no prediction: trainings differ by 0.186 from any curve"),
        ([0.2, 0.35, 0.5, 0.65], None, "no prediction: AP rises as no power law does that ends at 1"),
        ([0.1, 0.2, 0.25, 0.28], 0.6, "no prediction: the trainings were too short: AP with all images is 0.280, and"),
        ([0.1, float("nan"), 0.25, 0.28], None, "no prediction: AP of a training is not defined"),
        ([0.9, 0.9, 0.901, 0.9], 0.91, "not clear that more images help: twice the images (400) would bring AP +0.000"),
        ([0.3, 0.4, 0.48, 0.53], 0.6, "twice the images (400) would bring AP +0.0"),
    ],
)
def test_what_is_said(scores: list[float], reached: float | None, line: str) -> None:
    curve = curve_of(scores, reached)
    assert curve.verdict.startswith(line)
    assert bool(curve.doubt) == bool(np.isnan(curve.gain).all()) == bool(np.isnan(curve.band([100, 400])).all())
    json.dumps(curve.to_dict(), allow_nan=False)
