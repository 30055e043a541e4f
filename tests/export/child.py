"""What a child process computes with an exported model. Nothing here imports torch, which children do not need."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detseg.predict import load_predictor


def find_boxes(model: Path, image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], bool]:
    """The boxes in an image, and whether torch is loaded."""
    return load_predictor(model, score_threshold=0.0)(image).boxes, "torch" in sys.modules
