"""Precision and recall at the score threshold where F1 is best: the threshold to deploy with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detseg.metrics.matching import Ranking

_NAN = float("nan")


class OperatingPoint(NamedTuple):
    """What is reached by keeping the detections with ``score >= threshold``.

    Attributes:
        threshold: a score; NaN where no threshold finds anything.
        precision: in [0, 1]; NaN without detections.
        recall: in [0, 1].
        f1: 2 precision recall / (precision + recall), in [0, 1].
    """

    threshold: float
    precision: float
    recall: float
    f1: float


def best_operating_point(ranking: Ranking) -> OperatingPoint:
    """The point of the best F1; of equals the one with the highest threshold.

    A threshold cannot part detections of equal score, so they are kept or left together.

    Args:
        ranking: judged by the rule of ``detseg.metrics.matching`` (VOC's), at any IoU.

    Returns:
        The point; all NaN where there is nothing to find.
    """
    scores, found = ranking.scores, ranking.true_positives
    if not ranking.num_objects:
        return OperatingPoint(_NAN, _NAN, _NAN, _NAN)
    if not len(scores) or not found[-1]:
        return OperatingPoint(_NAN, 0.0 if len(scores) else _NAN, 0.0, 0.0)
    kept = np.arange(1, len(scores) + 1)
    last_of_equals = np.append(scores[1:] != scores[:-1], True)
    f1 = np.where(last_of_equals, 2 * found / (kept + ranking.num_objects), -1.0)
    best = int(np.argmax(f1))
    return OperatingPoint(
        threshold=float(scores[best]),
        precision=float(found[best] / kept[best]),
        recall=float(found[best] / ranking.num_objects),
        f1=float(f1[best]),
    )
