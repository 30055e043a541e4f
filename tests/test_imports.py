"""What importing detseg costs: a predictor needs none of the training libraries, and settings need no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TRAINING_LIBRARIES = ("lightning", "pytorch_lightning", "albumentations", "pycocotools", "tensorboard")


def imported_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after a statement."""
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_probe_sees_an_import() -> None:
    assert "pycocotools" in imported_by("import pycocotools")


@pytest.mark.parametrize("module", ["detseg", "detseg.structures", "detseg.draw", "detseg.factory"])
def test_importing_needs_no_training_library(module: str) -> None:
    assert not imported_by(f"import {module}") & set(TRAINING_LIBRARIES)


@pytest.mark.parametrize("module", ["detseg", "detseg.config.load", "detseg.errors", "detseg.formats"])
def test_wrong_settings_are_reported_before_torch_loads(module: str) -> None:
    assert "torch" not in imported_by(f"import {module}")
