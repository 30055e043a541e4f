"""Whether scores are probabilities (Guo et al. 2017, "On Calibration of Modern Neural Networks"), and the map that
makes them so: isotonic regression by pool-adjacent-violators (Zadrozny and Elkan 2002, "Transforming Classifier Scores
into Accurate Multiclass Probability Estimates").

Letters: C classes, D detections, B ranges of scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detseg.evaluation.report.outcomes import Ranked
from detseg.structures import BoolArray, FloatArray, IntArray

_ENOUGH = 100
"""Detections of a class from which it has a map of its own."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """How far scores are from being probabilities.

    Attributes:
        counts: (B,) predictions whose confidence lies in each of B equal ranges of [0, 1].
        confidence: (B,) their mean confidence; NaN for none.
        accuracy: (B,) fraction of them that is right; NaN for none.
        error: the expected calibration error: the mean difference of the two, weighted by the counts; NaN for none.
    """

    counts: IntArray
    confidence: FloatArray
    accuracy: FloatArray
    error: float

    @classmethod
    def of_sums(cls, counts: IntArray, confidence: FloatArray, right: FloatArray) -> Calibration:
        """Of (B,) sums over the predictions of each range."""
        means = [
            np.divide(part, counts, out=np.full(len(counts), np.nan), where=counts > 0) for part in (confidence, right)
        ]
        total = counts.sum()
        error = float(np.abs(confidence - right).sum() / total) if total else float("nan")
        return cls(counts, means[0], means[1], error)


def calibration(scores: FloatArray, right: BoolArray, lowest: float = 0.0, num_bins: int = 10) -> Calibration:
    """Of (D,) detections with scores in [0, 1], without those below ``lowest``."""
    chosen = scores >= lowest
    scores, right = scores[chosen], right[chosen]
    bins = np.minimum((scores * num_bins).astype(np.int64), num_bins - 1)
    confidence = np.bincount(bins, scores, num_bins).astype(np.float64)
    accuracy = np.bincount(bins, right, num_bins).astype(np.float64)
    return Calibration.of_sums(np.bincount(bins, minlength=num_bins), confidence, accuracy)


def isotonic_fit(scores: FloatArray, right: BoolArray) -> list[tuple[float, float]]:
    """The monotone map from scores to the fraction that is right at them with the least squared error.

    Args:
        scores: (D,), in any order.
        right: (D,).

    Returns:
        Corners (score, fraction), scores ascending, between which the map is linear: the lowest and the highest score
        of each part of one fraction. None for no detections.
    """
    values, inverse = np.unique(scores, return_inverse=True)
    counts = np.bincount(inverse, minlength=len(values))
    sums = np.bincount(inverse, right, minlength=len(values))
    parts: list[tuple[float, float, float, float]] = []  # number, of these right, lowest and highest score
    for count, total, score in zip(counts.tolist(), sums.tolist(), values.tolist(), strict=True):
        low = score
        while parts and parts[-1][1] * count >= total * parts[-1][0]:  # the part before has as large a fraction
            before = parts.pop()
            count, total, low = count + before[0], total + before[1], before[2]
        parts.append((count, total, low, score))
    corners: list[tuple[float, float]] = []
    for count, total, low, high in parts:
        corners += dict.fromkeys([(low, total / count), (high, total / count)])
    return corners


def calibration_file(ranked: Sequence[Ranked], names: Sequence[str], iou: float) -> dict[str, Any]:
    """What ``detseg predict --calibration`` reads: the corners of the map of each of C classes with ``_ENOUGH``
    detections, and of all classes together, which the others take. ``iou``: from which a detection is right."""
    of_class = {
        name: isotonic_fit(one.scores, one.right)
        for name, one in zip(names, ranked, strict=True)
        if len(one.scores) >= _ENOUGH
    }
    scores, right = (np.concatenate([getattr(one, name) for one in ranked]) for name in ("scores", "right"))
    return {"iou": iou, "classes": of_class, "other classes": isotonic_fit(scores, right)}
