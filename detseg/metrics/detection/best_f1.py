"""Precision, recall and score threshold of a class where its F1 is best."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detseg.metrics.detection.voc import Ranking

_NAN = float("nan")


class BestF1(NamedTuple):
    """What the detections with ``score >= threshold`` reach.

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


def best_f1(ranking: Ranking) -> BestF1:
    """The threshold with the best F1, the highest of equals; all NaN where there is nothing to find.

    Detections of equal score are kept or dropped together, since no threshold separates them.
    """
    scores, found = ranking.scores, ranking.true_positives
    if not ranking.num_objects:
        return BestF1(_NAN, _NAN, _NAN, _NAN)
    if not len(scores) or not found[-1]:
        return BestF1(_NAN, 0.0 if len(scores) else _NAN, 0.0, 0.0)
    kept = np.arange(1, len(scores) + 1)
    last_of_equals = np.append(scores[1:] != scores[:-1], True)
    f1 = np.where(last_of_equals, 2 * found / (kept + ranking.num_objects), -1.0)
    best = int(np.argmax(f1))
    return BestF1(
        threshold=float(scores[best]),
        precision=float(found[best] / kept[best]),
        recall=float(found[best] / ranking.num_objects),
        f1=float(f1[best]),
    )
