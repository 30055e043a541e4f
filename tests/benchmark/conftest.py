"""Small sets of made-up pictures."""

from __future__ import annotations

import pytest

from detseg.benchmark import synthetic


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight to train on, two of them copies, and six to validate on."""
    monkeypatch.setattr(synthetic, "_MOST_TRAIN", 8)
    monkeypatch.setattr(synthetic, "_NUM_VAL", 6)
    monkeypatch.setattr(synthetic, "_NUM_DRAWN", 6)
