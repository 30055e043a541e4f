"""What a child process computes with an exported model. Nothing here imports torch, which children do not need."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.predict import load_predictor


def find(detector: Path, segmenter: Path, image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[Any], ...]:
    """The boxes in an image, its labels, and whether torch is loaded."""
    boxes, labels = load_predictor(detector, score_threshold=0.0)(image).boxes, load_predictor(segmenter)(image).labels
    return boxes, labels, np.array("torch" in sys.modules)
