"""Labels that are probably wrong: where a model that is sure of itself finds something else than the annotations say.

The kinds are those of ObjectLab (Tkachenko et al. 2023, "ObjectLab: Automated Diagnosis of Mislabeled Images in Object
Detection Data"): overlooked, swapped and badly located, and labels of nothing. A doubt is the difference of two scores
here, so that those of all kinds stand in one list.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from detseg.metrics.error_kinds import detection_ious, detections_and_objects, ious_of
from detseg.metrics.records import DetectionRecords, IouType
from detseg.structures import BoolArray, FloatArray, IntArray

_SAME, _BESIDE = 0.5, 0.1  # IoU from which a detection is on an object, and beside it
_LEAST = 0.1  # doubt; below it is the tail of the ranking
_SILENCE = 0.5  # what a label that the model does not see weighs: it may well be the model that is wrong


class Doubt(StrEnum):
    """Why a label is doubted."""

    OVERLOOKED = "no label"  # a detection where there is none
    SWAPPED = "other class"  # a detection of another class on it
    MISPLACED = "bad box"  # a detection of its class beside it
    NOTHING = "nothing there"  # no detection on it


@dataclass(frozen=True)
class Suspect:
    """A label that is probably wrong, or one that is probably missing.

    Attributes:
        doubt: how much the model disagrees, in [0, 1].
        kind: in what.
        image_id: of the image.
        object: position of the label in the records; -1: there is none.
        detection: position of the detection that disagrees; -1: there is none.
    """

    doubt: float
    kind: Doubt
    image_id: int
    object: int
    detection: int


def suspects(
    records: DetectionRecords, recalls: FloatArray, learned: BoolArray, iou_type: IouType = "bbox"
) -> list[Suspect]:
    """All doubts of 0.1 and more, the largest first; each label and each detection is in one of them at most, and so is
    each place without a label. Detections on a crowd region of their class say nothing.

    Args:
        records: of a model that was not trained on these labels, all its detections with their scores.
        recalls: (C,) fraction of the objects of each class that it finds, with which a label of nothing is weighed: one
            that the model does not see tells little where it does not see many; NaN for none.
        learned: (C,) whether the detections of a class say something.
        iou_type: compare boxes or masks.
    """
    found = list[Suspect]()
    images = detections_and_objects(records, len(records.detection_scores))
    for image_id, (rows, objects) in zip(np.sort(records.image_ids).tolist(), images, strict=True):
        ious = ious_of(records, rows, objects, iou_type)
        counts = learned[records.detection_labels[rows]] & ~_on_crowd(records, rows, objects, ious, iou_type)
        rows, ious = rows[counts], ious[counts]
        of_image = _Image(records, image_id, rows, objects, ious, iou_type)
        found += of_image.overlooked() + of_image.wrong(np.nan_to_num(recalls))
    found = sorted((suspect for suspect in found if suspect.doubt >= _LEAST), key=lambda suspect: -suspect.doubt)
    used, rest = set[tuple[str, int]](), list[Suspect]()
    for suspect in found:
        keys = {("object", suspect.object), ("detection", suspect.detection)} - {("object", -1), ("detection", -1)}
        if not keys & used:
            used |= keys
            rest.append(suspect)
    return rest


def _on_crowd(
    records: DetectionRecords, rows: IntArray, objects: IntArray, ious: FloatArray, iou_type: IouType
) -> BoolArray:
    """(N,) whether each detection lies in a crowd or on a difficult object of its class, and on no other of its class;
    the rule of ``error_kinds``."""
    same = records.detection_labels[rows][:, None] == records.object_labels[objects]
    crowd = records.object_ignore[objects]
    inside = ious_of(records, rows, objects[crowd], iou_type, crowd=True) > _SAME
    found: BoolArray = (inside & same[:, crowd]).any(axis=1) & ~((ious >= _SAME) & same & ~crowd).any(axis=1)
    return found


@dataclass(frozen=True, eq=False)
class _Image:
    records: DetectionRecords
    image_id: int
    rows: IntArray  # (N,) of its detections in the records, best first
    objects: IntArray  # (M,) of its objects
    ious: FloatArray  # (N, M)
    iou_type: IouType

    def overlooked(self) -> list[Suspect]:
        """Detections that lie on no label, and beside none; of those on one place the best, whatever their classes."""
        scores, kept = self.records.detection_scores, list[int]()
        alone = self.rows[(self.ious.max(axis=1, initial=0) < _BESIDE) & (scores[self.rows] >= _LEAST)]
        same = detection_ious(self.records, alone, self.iou_type) >= _SAME
        for place in range(len(alone)):  # best first
            if not same[place, kept].any():
                kept.append(place)
        rows = alone[kept].tolist()
        return [Suspect(float(scores[row]), Doubt.OVERLOOKED, self.image_id, -1, row) for row in rows]

    def wrong(self, recalls: FloatArray) -> list[Suspect]:
        """Labels that no detection confirms as surely as another one doubts them."""
        records, found = self.records, list[Suspect]()
        scores, labels = records.detection_scores[self.rows], records.detection_labels[self.rows]
        on, beside = self.ious >= _SAME, self.ious >= _BESIDE
        same = labels[:, None] == records.object_labels[self.objects]
        right = (on & same).any(axis=1)  # about another label these tell nothing
        for column, row_of_object in enumerate(self.objects.tolist()):
            if records.object_ignore[row_of_object]:
                continue
            expected = recalls[records.object_labels[row_of_object]]
            own = (scores * (on & same)[:, column]).max(initial=0)
            doubts = {
                Doubt.SWAPPED: scores * (on & ~same)[:, column],
                Doubt.MISPLACED: scores * ((beside & ~on & same)[:, column] & ~right),
            }
            for kind, of_kind in doubts.items():
                if (doubt := of_kind.max(initial=0) - own) > 0:
                    row = int(self.rows[of_kind.argmax()])
                    found.append(Suspect(float(doubt), kind, self.image_id, row_of_object, row))
            if (doubt := expected - (scores * beside[:, column]).max(initial=0)) > 0:
                found.append(Suspect(float(_SILENCE * doubt), Doubt.NOTHING, self.image_id, row_of_object, -1))
        return found
