"""What becomes of each detection and object once scores are cut at a threshold, and what that tells of a detector.

Letters: C classes, D detections and G objects of all images, T thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from detseg.metrics.error_kinds import ErrorKind, error_kinds
from detseg.metrics.records import DetectionRecords, IouType
from detseg.metrics.voc import BestMatches, best_matches, rank_classes
from detseg.structures import BoolArray, ClassTable, FloatArray, IntArray

_KINDS = list(ErrorKind)
RIGHT, NOT_KEPT = -1, -2


@dataclass(frozen=True, eq=False)
class Ranked:
    """The detections of a class that count, best score first.

    Attributes:
        scores: (D,) descending.
        right: (D,) whether each is right: VOC's matching rule, as precision, recall and F1 have it.
        rows: (D,) their positions in the records.
        num_objects: to find.
    """

    scores: FloatArray
    right: BoolArray
    rows: IntArray
    num_objects: int


def rank(records: DetectionRecords, num_classes: int, iou: float, iou_type: IouType = "bbox") -> list[Ranked]:
    """Those of each class, by label; right from ``iou`` on, of boxes or of masks."""
    return _ranked(records, best_matches(records, iou_type), iou, num_classes)


def _ranked(records: DetectionRecords, matches: BestMatches, iou: float, num_classes: int) -> list[Ranked]:
    return [
        Ranked(one.scores, np.diff(one.true_positives, prepend=0) > 0, one.detections, one.num_objects)
        for one in rank_classes(records, matches, iou, num_classes)
    ]


@dataclass(frozen=True, eq=False)
class Curve:
    """What is kept at each of T thresholds, ascending.

    Attributes:
        thresholds: (T,) scores; what scores as much or more is kept.
        kept: (T,) detections that are kept.
        right: (T,) of these.
        num_objects: to find.
    """

    thresholds: FloatArray
    kept: IntArray
    right: IntArray
    num_objects: int

    @property
    def f1(self) -> FloatArray:
        """(T,) 2 · right / (kept + objects); 0 where there is neither."""
        return 2 * self.right / np.maximum(self.kept + self.num_objects, 1)


def curve(ranked: Sequence[Ranked], thresholds: FloatArray) -> Curve:
    """Of the detections of one class or more, together."""
    scores = np.concatenate([one.scores for one in ranked])
    right = np.concatenate([one.right for one in ranked])
    order = np.argsort(scores, kind="stable")
    first = np.searchsorted(scores[order], thresholds)  # the first one that is kept
    rights = np.append(np.cumsum(right[order][::-1])[::-1], 0)
    kept = len(scores) - first
    return Curve(thresholds, kept, rights[first].astype(np.int64), sum(one.num_objects for one in ranked))


def curve_thresholds(ranked: Sequence[Ranked], best: FloatArray) -> FloatArray:
    """(T,) thresholds that show each curve: every hundredth, those at which something is found, 100 of them at most,
    and the (C,) ``best`` of each class, so that a curve reaches its own best point."""
    found = np.sort(np.concatenate([one.scores[one.right] for one in ranked]))
    spread = found[np.linspace(0, len(found) - 1, min(len(found), 100)).round().astype(np.int64)]
    every = np.concatenate([np.arange(100) / 100, spread, best[~np.isnan(best)]])
    thresholds: FloatArray = np.unique(every)
    return thresholds


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What became of each detection and object, each class cut at its own threshold.

    Attributes:
        kinds: (D,) -1 right, -2 not kept (below the threshold, or on a crowd region), else the position of the error in
            ``ErrorKind``.
        objects: (D,) position of the object that a detection is about, -1 for none.
        found: (G,) by a right detection.
        taken_for: (G,) label of the best wrong detection on an object that is not found, -1 for none.
        to_find: (G,) not crowd or difficult.
        confusion: (C + 1, C + 1) objects by true and predicted class; the last row and column: on nothing, and missed.
    """

    kinds: IntArray
    objects: IntArray
    found: BoolArray
    taken_for: IntArray
    to_find: BoolArray
    confusion: IntArray


def outcomes(
    records: DetectionRecords, classes: ClassTable, thresholds: FloatArray, iou: float, iou_type: IouType = "bbox"
) -> Outcomes:
    """Cut at the (C,) thresholds of the classes (NaN: nothing of the class is kept); right from ``iou`` on, of boxes or
    of masks."""
    matches = best_matches(records, iou_type)
    ranked = _ranked(records, matches, iou, len(classes))
    counted, right = (np.zeros(len(records.detection_scores), dtype=np.bool_) for _ in range(2))
    for one in ranked:
        counted[one.rows], right[one.rows] = True, one.right
    kept = counted & (records.detection_scores >= thresholds[records.detection_labels])  # NaN: nothing
    rows = np.flatnonzero(kept)
    columns = {name: column[rows] for name, column in vars(records).items() if name.startswith("detection_")}
    errors = error_kinds(replace(records, **columns), classes, len(kept) + 1, iou_type, right_iou=iou)
    kinds, objects = np.full(len(kept), NOT_KEPT), np.full(len(kept), -1)
    # By VOC's rule a detection is not right where its object is taken, though TIDE's gives it another one.
    wrong = np.where(errors.kinds == RIGHT, _KINDS.index(ErrorKind.DUPLICATE), errors.kinds)
    kinds[rows], objects[rows] = np.where(right[rows], RIGHT, wrong), errors.objects
    kinds[rows[errors.ignored & ~right[rows]]] = NOT_KEPT
    is_right = kinds == RIGHT
    objects[is_right] = matches.objects[is_right]
    found = np.zeros(len(records.object_labels), dtype=np.bool_)
    found[objects[is_right]] = True
    taken_for = np.full(len(found), -1)
    confused = np.flatnonzero(kinds == _KINDS.index(ErrorKind.CLASS))
    confused = confused[~found[objects[confused]]]
    confused = confused[np.argsort(records.detection_scores[confused], kind="stable")]
    taken_for[objects[confused]] = records.detection_labels[confused]  # the best score comes last
    to_find = ~records.object_ignore
    confusion = _confusion(records, kinds, objects, found, taken_for, to_find, len(classes))
    return Outcomes(kinds, objects, found, taken_for, to_find, confusion)


def _confusion(
    records: DetectionRecords,
    kinds: IntArray,
    objects: IntArray,
    found: BoolArray,
    taken_for: IntArray,
    to_find: BoolArray,
    num_classes: int,
) -> IntArray:
    confusion = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    true = records.object_labels
    predicted = np.where(found, true, np.where(taken_for >= 0, taken_for, num_classes))
    np.add.at(confusion, (true[to_find], predicted[to_find]), 1)
    # A wrong detection is on nothing, unless it is the one that an object is taken for.
    wrong = np.bincount(records.detection_labels[kinds >= 0], minlength=num_classes)
    confusion[num_classes, :num_classes] = wrong - np.bincount(taken_for[taken_for >= 0], minlength=num_classes)
    return confusion


@dataclass(frozen=True)
class Slice:
    """A part of the objects and detections.

    Attributes:
        name: of the part.
        num_objects: to find.
        num_found: of these.
        num_kept: detections above their thresholds.
        num_right: of these.
    """

    name: str
    num_objects: int
    num_found: int
    num_kept: int
    num_right: int


def slices(outcome: Outcomes, names: Sequence[str], of_objects: IntArray, of_detections: IntArray) -> list[Slice]:
    """The parts that hold something. (G,) and (D,): position in ``names`` of the part of each."""
    kept, right = outcome.kinds > NOT_KEPT, outcome.kinds == RIGHT
    columns = [
        np.bincount(part[chosen], minlength=len(names)).tolist()
        for part, chosen in (
            (of_objects, outcome.to_find),
            (of_objects, outcome.to_find & outcome.found),
            (of_detections, kept),
            (of_detections, right),
        )
    ]
    return [Slice(name, *row) for name, *row in zip(names, *columns, strict=True) if row[0] or row[2]]
