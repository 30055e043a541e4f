"""Why a data set trains to an AP of zero: the usual causes, told apart by what the detections look like."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from detseg.metrics.detection.records import DetectionRecords
from detseg.metrics.detection.voc_matching import (
    BestMatches,
    best_matches,
    match_at_iou,
    rank_all,
    voc10_average_precision,
)

_IOU = 0.5
_LOW_SCORE = 0.05
_LABELS_SUSPECT = 0.2  # AP50 without labels from which it is worth asking where the labels went
_MASKS_SUSPECT = 0.3  # AP50 of boxes from which it is worth asking where the masks went


@dataclass(frozen=True)
class Evidence:
    """What tells the causes apart.

    Attributes:
        highest_score: of any detection; NaN without detections.
        highest_iou: of any detection with any object of its image, whatever the labels; NaN without detections.
        num_overlapping: detections with IoU >= 0.5 with an object of their image, whatever the labels.
        pooled_ap50: VOC 2010 AP at IoU 0.5 of all classes ranked together; NaN without objects.
        unlabelled_ap50: the same with all labels set aside.
    """

    highest_score: float
    highest_iou: float
    num_overlapping: int
    pooled_ap50: float
    unlabelled_ap50: float


def gather_evidence(records: DetectionRecords, overlaps: BestMatches) -> Evidence:
    """Look at the detections with their labels, whose ``overlaps`` are known, and without."""
    unlabelled = replace(
        records,
        detection_labels=np.zeros_like(records.detection_labels),
        object_labels=np.zeros_like(records.object_labels),
    )
    unlabelled_overlaps = best_matches(unlabelled)
    ious = unlabelled_overlaps.ious
    return Evidence(
        highest_score=float(records.detection_scores.max()) if len(ious) else float("nan"),
        highest_iou=float(ious.max()) if len(ious) else float("nan"),
        num_overlapping=int(np.count_nonzero(ious >= _IOU)),
        pooled_ap50=voc10_average_precision(rank_all(records, match_at_iou(records, overlaps, _IOU))),
        unlabelled_ap50=voc10_average_precision(
            rank_all(unlabelled, match_at_iou(unlabelled, unlabelled_overlaps, _IOU))
        ),
    )


def diagnose(
    num_images: int,
    num_objects: int,
    num_ignored: int,
    num_detections: int,
    undetected_classes: list[str],
    evidence: Evidence,
) -> list[str]:
    """Name what is wrong or suspicious, one sentence each.

    Args:
        num_images: evaluated images.
        num_objects: objects to find.
        num_ignored: crowd and difficult objects.
        num_detections: all detections.
        undetected_classes: names of classes that have objects and no detection.
        evidence: gathered from the same records.
    """
    if not num_images:
        return ["No image was evaluated: the split is empty."]
    if not num_objects:
        ignored = f" ({num_ignored} crowd or difficult ones do not count)" if num_ignored else ""
        return [f"The {num_images} images have no objects to find{ignored}: AP is not defined; check the annotations."]
    if not num_detections:
        return [
            "The model returned no detections at all, so AP is 0: its scores are all below the score threshold; "
            "lower the threshold to see what is there, or train longer."
        ]
    words = []
    if not evidence.num_overlapping:
        words.append(
            f"None of the {num_detections} detections overlaps an object by IoU >= 0.5, whatever its label (best: "
            f"{evidence.highest_iou:.2f}): the model has not learned yet, or boxes are in other coordinates than "
            "the objects (another image size, xywh read as xyxy)."
        )
    with_labels, without = evidence.pooled_ap50, evidence.unlabelled_ap50
    if without >= _LABELS_SUSPECT and with_labels < without / 2:
        words.append(
            f"Boxes are found but labels are wrong: AP50 of all objects together is {with_labels:.3f}, and "
            f"{without:.3f} with the labels set aside; check the order and numbering of the classes."
        )
    if evidence.highest_score < _LOW_SCORE:
        words.append(
            f"The highest score of all detections is {evidence.highest_score:.3f}: the model is sure of nothing, as at "
            "the beginning of training."
        )
    if undetected_classes:
        words.append(f"Classes with objects but without a single detection: {', '.join(undetected_classes)}.")
    return words


def diagnose_masks(box_ap50: float, mask_ap50: float) -> list[str]:
    """Name what is suspicious about masks, given COCO's AP50 of boxes and of masks (NaN where not defined)."""
    if not (box_ap50 > _MASKS_SUSPECT and mask_ap50 < box_ap50 / 10):
        return []
    return [
        f"Boxes are found but their masks are wrong: AP50 is {box_ap50:.3f} of the boxes and {mask_ap50:.3f} of the "
        "masks; the mask head has not learned yet, or the annotations' masks do not lie in their boxes (another image "
        "size, x and y swapped): draw some."
    ]
