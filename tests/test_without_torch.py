"""An environment that pip fills with ``detseg[onnx]`` alone: what its packages lack would be seen nowhere else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.peaks import ROOT
from tests.tiny import TinyRun

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_exports_predict_without_torch_as_the_checkpoints_do(tiny_run: TinyRun, tiny_segmentation: TinyRun) -> None:
    """An image, a folder, and tiles."""
    pytest.importorskip("onnxruntime")
    images = tiny_run.data_root / "JPEGImages"
    runs = [str(run.run_dir) for run in (tiny_run, tiny_segmentation)]
    command = [sys.executable, "-m", "benchmarks.without_torch", *runs, "--images", str(images)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
