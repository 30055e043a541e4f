"""Why a detector missed an object, and what to try (Hoiem et al. 2012, "Diagnosing Error in Object Detectors", ask the
same of detections)."""

from __future__ import annotations

from detseg.explain.advice import Adviser, Setting
from detseg.explain.misses import Cause, ImageMisses, Miss, explain_misses
from detseg.explain.run import explain_image, explain_split
from detseg.explain.summary import CauseCount, MissSummary

__all__ = [
    "Adviser",
    "Cause",
    "CauseCount",
    "ImageMisses",
    "Miss",
    "MissSummary",
    "Setting",
    "explain_image",
    "explain_misses",
    "explain_split",
]
