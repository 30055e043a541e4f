"""Where the tests find the real data: ``DETSEG_DATA``, or the folder beside the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared_data(*parts: str) -> Path:
    """The path of a file or folder of the shared data; skips the test where it is absent, but fails it in CI."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("DETSEG_DATA", default)).joinpath(*parts)
    if not path.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{path} is missing: in CI the shared data must be there")
        pytest.skip(f"{path} is missing: set DETSEG_DATA to the folder of the shared data")
    return path
