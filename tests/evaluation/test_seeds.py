"""Two groups of numbers, by hand and by SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detseg.evaluation.seeds import welch


def test_by_hand() -> None:
    """Both variances are 0.0002, so there are 2 degrees of freedom: t is 4.30265 from tables, and p in closed form."""
    found = welch((0.50, 0.52), (0.54, 0.56))
    error = math.sqrt(0.0002 / 2 + 0.0002 / 2)
    assert (found.first_sd, found.second_sd) == pytest.approx((math.sqrt(0.0002),) * 2)
    assert (found.low, found.high) == pytest.approx((0.04 - 4.30265 * error, 0.04 + 4.30265 * error), abs=1e-6)
    t = 0.04 / error
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t**2), abs=1e-4)
    assert not found.is_clear


def test_equal_runs_and_undefined_ones() -> None:
    same = welch((0.5, 0.5), (0.5, 0.5, 0.5))
    assert (same.low, same.high, same.p, same.is_clear) == (0, 0, 1, False)
    other = welch((0.5, 0.5), (0.75, 0.75))
    assert (other.low, other.high, other.p, other.is_clear) == (0.25, 0.25, 0, True)
    undefined = welch((math.nan, 0.5), (0.5, 0.6))
    assert math.isnan(undefined.low)
    assert math.isnan(undefined.p)
    assert not undefined.is_clear


def test_as_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for _ in range(100):
        groups = [rng.normal(0.5, rng.uniform(0.0001, 0.03), rng.integers(2, 9)).tolist() for _ in range(2)]
        found, expected = welch(*groups), stats.ttest_ind(groups[1], groups[0], equal_var=False)
        ends = expected.confidence_interval(0.95)
        width = ends.high - ends.low
        assert found.p == pytest.approx(expected.pvalue, abs=1e-4)
        assert (found.low, found.high) == pytest.approx((ends.low, ends.high), abs=1e-3 * width)
