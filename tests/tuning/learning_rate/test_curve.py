"""What a curve suggests, on curves of known shape; its table and its drawing."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from detseg.tuning.learning_rate.curve import Floats, LrCurve, smooth
from detseg.tuning.learning_rate.plot import lr_plot

RATES = np.geomspace(1e-6, 1, 121)


def curve(losses: Floats, stopped: str | None = None) -> LrCurve:
    return LrCurve(RATES[: len(losses)], losses, stopped, 1e-3)


def valley(lowest: float, noise: float = 0.0, seed: int = 0) -> Floats:
    """From 3 down to 1 at the rate ``lowest``, a decade below it still close to 3; and up again at higher rates."""
    decades = np.log10(RATES / lowest)
    noises = np.random.default_rng(seed).normal(0, noise, len(RATES))
    return 3 - 2 / (1 + (2 * decades) ** 2) + np.maximum(decades, 0) + noises


def test_the_loss_is_smoothed_by_decades() -> None:
    """Of two rates a tenth of a decade apart: weights 1 and exp(-0.1² / (2 × 0.15²)) = 0.801."""
    smoothed = smooth(np.array([0.01, 0.01 * 10**0.1]), np.array([1.0, 2.0]))
    np.testing.assert_allclose(smoothed, [(1 + 0.801 * 2) / 1.801, (0.801 + 2) / 1.801], atol=1e-3)


@pytest.mark.parametrize("lowest", [2e-3, 1e-2, 6e-2])
def test_the_suggestion_is_a_twentieth_of_the_rate_of_the_lowest_loss(lowest: float) -> None:
    assert curve(valley(lowest)).suggestion == pytest.approx(lowest / 20, rel=0.15)  # a step is 12 %
    for seed in range(10):  # batches differ by a sixth of the fall
        assert 0.5 < (curve(valley(lowest, 0.3, seed)).suggestion or 0) / (lowest / 20) < 2


def test_it_does_not_depend_on_how_high_the_loss_rises() -> None:
    diverged = valley(2e-2)
    diverged[-10:] *= np.geomspace(1, 5, 10)
    assert curve(diverged, "the loss diverges").suggestion == curve(valley(2e-2)).suggestion


@pytest.mark.parametrize("seed", range(10))
def test_noise_alone_suggests_nothing(seed: int) -> None:
    flat = curve(np.random.default_rng(seed).normal(5, 1, len(RATES)))
    assert flat.suggestion is None
    assert flat.verdict.startswith("no suggestion: the loss does not fall clearly (from ")


@pytest.mark.parametrize(
    ("losses", "line"),
    [
        (np.full(121, 2.0), "the loss does not fall clearly (from 2 to 2, where steps differ by 0): more steps may sh"),
        (np.linspace(1, 2, 121), "the loss does not fall clearly (from "),
        (np.linspace(2, 1, 121), "the loss still falls at the highest rate, 1: raise it"),
        (valley(1e-5), "the loss falls within the first rates, from 1e-06 on: begin lower"),
    ],
)
def test_a_curve_without_a_valley_says_so(losses: Floats, line: str) -> None:
    assert curve(losses).suggestion is None
    assert curve(losses).verdict.startswith(f"no suggestion: {line}")


def test_a_loss_that_diverges_at_once_began_too_high() -> None:
    rises = LrCurve(RATES[:15], np.geomspace(2, 50, 15), "the loss diverges at a rate of 5e-06", 1e-3)  # 0.7 decades
    assert rises.verdict == (
        "no suggestion: the test ended soon after its first rate, 1e-06, without a fall: begin lower"
    )
    late = LrCurve(RATES, np.linspace(2, 9, 121), "the loss diverges at a rate of 1", 1e-3)
    assert "the loss does not fall clearly" in late.verdict


def test_a_loss_that_falls_until_it_is_infinite() -> None:
    falling = curve(np.linspace(2, 1, 100), "the loss is nan at a rate of 0.1")
    assert falling.suggestion == pytest.approx(RATES[99] / 20, rel=0.02)


def test_verdict() -> None:
    assert curve(valley(2e-2)).verdict == (
        "suggested optimizer.lr=0.00089 (now 0.001): a twentieth of the rate where the loss is lowest, 0.018"
    )


def test_table() -> None:
    found = curve(valley(2e-2, 0.1))
    rows = list(csv.DictReader(found.to_csv().splitlines()))
    assert list(rows[0]) == ["lr", "loss", "smoothed_loss"]
    assert [float(row["loss"]) for row in rows] == found.losses.tolist()
    assert [float(row["lr"]) for row in rows] == RATES.tolist()


@pytest.mark.parametrize(
    "losses", [valley(2e-2, 0.1), np.full(121, 2.0), np.full(121, 0.0), np.array([2.0]), -valley(2e-2), 1e9 * RATES]
)
def test_drawing(losses: Floats) -> None:
    found = curve(losses)
    root = ET.fromstring(lr_plot(found, "<runs> & \x1b"))
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert " ".join(texts).startswith(f"<runs> & \\x1b {found.verdict} ")
    assert ("suggested" in lr_plot(found, "").split("</style>")[1]) is (found.suggestion is not None)
    (line,) = root.iter("{http://www.w3.org/2000/svg}polyline")
    assert len(line.get("points", "").split()) == len(losses)
