"""Average precision by the rules of the Pascal VOC challenges (Everingham et al. 2010, section 4.2).

VOC counts pixels: a box reaches from the centre of its first to that of its last pixel, both included and counted from
1, and is ``xmax - xmin + 1`` wide.  detseg's boxes are half-open and counted from 0: ``x1 = xmin - 1``, ``x2 = xmax``.
Therefore ``x2 - x1`` is VOC's width, and ``min(x2) - max(x1)`` VOC's overlap with its "+ 1"; the plain IoU of our boxes
is the development kit's IoU, number by number, and no "+ 1" appears here.

Difficult (and crowd) objects are not to be found, and their detections count neither way; a second detection of an
object is a false positive.  Of equal scores the lower image id comes first, then the order within the image.
"""

from __future__ import annotations

import numpy as np

from detseg.metrics.matching import Ranking
from detseg.structures import FloatArray


def voc07_average_precision(ranking: Ranking) -> float:
    """VOC 2007: the mean over recall 0, 0.1, ..., 1 of the best precision at that recall or more.

    Returns:
        AP in [0, 1]; NaN where there is nothing to find.
    """
    if not ranking.num_objects:
        return float("nan")
    recall, precision = recall_precision(ranking)
    levels = np.arange(11) / 10  # division, so that a recall of 3/10 reaches the level 0.3 and is not an ulp below it
    best = [precision[recall >= level].max(initial=0) for level in levels]
    return float(np.mean(best))


def voc10_average_precision(ranking: Ranking) -> float:
    """VOC 2010 and later: the area under the precision-recall curve made monotone.

    Returns:
        AP in [0, 1]; NaN where there is nothing to find.
    """
    if not ranking.num_objects:
        return float("nan")
    recall, precision = recall_precision(ranking)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0) * envelope))


def recall_precision(ranking: Ranking) -> tuple[FloatArray, FloatArray]:
    """(D,) recall and (D,) precision, both in [0, 1], of the detections down to each."""
    found = ranking.true_positives
    return found / ranking.num_objects, found / np.arange(1, len(found) + 1)
