"""Numbers that tell apart why a data set trains to an AP of zero; ``DetectionResult.explain`` puts them into words."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from detseg.metrics.detection.records import DetectionRecords
from detseg.metrics.detection.voc import BestMatches, best_matches, rank_classes, voc10_average_precision

_IOU = 0.5


@dataclass(frozen=True)
class DiagnosisInputs:
    """What the detections look like, with and without their labels.

    Attributes:
        highest_score: of any detection; NaN without detections.
        highest_iou: of any detection with any object of its image, whatever the labels; NaN without detections.
        num_overlapping: detections with IoU >= 0.5 with an object of their image, whatever the labels.
        pooled_ap50: VOC 2010 AP at IoU 0.5 of all classes ranked together; NaN without objects.
        unlabelled_ap50: the same with all labels ignored.
    """

    highest_score: float
    highest_iou: float
    num_overlapping: int
    pooled_ap50: float
    unlabelled_ap50: float


def diagnosis_inputs(records: DetectionRecords, matches: BestMatches) -> DiagnosisInputs:
    """Compare the detections with their labels (``matches``) and without."""
    unlabelled = replace(
        records,
        detection_labels=np.zeros_like(records.detection_labels),
        object_labels=np.zeros_like(records.object_labels),
    )
    unlabelled_matches = best_matches(unlabelled)
    ious = unlabelled_matches.ious
    pooled, without = (
        voc10_average_precision(rank_classes(unlabelled, found, _IOU, num_classes=1)[0])
        for found in (matches, unlabelled_matches)
    )
    return DiagnosisInputs(
        highest_score=float(records.detection_scores.max()) if len(ious) else float("nan"),
        highest_iou=float(ious.max()) if len(ious) else float("nan"),
        num_overlapping=int(np.count_nonzero(ious >= _IOU)),
        pooled_ap50=pooled,
        unlabelled_ap50=without,
    )
