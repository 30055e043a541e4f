"""What is wrong with each detection, and what AP50 would gain without each kind of error (Bolya et al. 2020, "TIDE: A
General Toolbox for Identifying Object Detection Errors").

The rules are those of the authors' package ``tidecv``, and so are the numbers. They differ from COCO's in that the best
detections of an image count, of all classes together, and that a class without objects counts, as 0, if there are
detections of it.

Letters: C classes, D detections, G objects, N detections and M objects of an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from detseg.metrics.coco import ious_of_masks, mask_ious
from detseg.metrics.records import DetectionRecords, IouType, MaskRecords
from detseg.structures import BoolArray, ClassTable, FloatArray, IntArray

_LEVELS: FloatArray = np.arange(101) / 100


class ErrorKind(StrEnum):
    """Why a detection is wrong, in the order in which reasons are looked for; and objects that nothing points at."""

    LOCATION = "location"  # of the right class, beside an object: IoU too low
    CLASS = "class"  # on an object of another class
    DUPLICATE = "duplicate"  # on an object that a better detection has found
    BACKGROUND = "background"  # on nothing
    BOTH = "class and location"  # beside an object of another class, or what else is left
    MISSED = "missed"  # an object that no detection would find if its class or location were corrected


_KINDS = list(ErrorKind)
_RIGHT, _NOT_COUNTED = -1, -2


@dataclass(frozen=True, eq=False)
class ErrorKinds:
    """The errors of a set.

    Attributes:
        ap50: by TIDE's rules, in [0, 1].
        gains: of each kind, what ``ap50`` would gain if it alone were fixed: a class or location corrected, a wrong
            detection removed, a missed object left out; NaN if nothing is left then.
        false_positive_gain, false_negative_gain: if no detection were wrong, and if no object were missed.
        counts: errors of each kind.
        kinds: (D,) position in ``ErrorKind``; -1 right, -2 not among the best of its image.
        objects: (D,) position of the object that it has found, or would with another class or location, or that a
            better one has; -1 for none.
        ignored: (D,) on a crowd region: no error counts against it.
        missed: (G,) nothing has found it.
    """

    ap50: float
    gains: dict[ErrorKind, float]
    false_positive_gain: float
    false_negative_gain: float
    counts: dict[ErrorKind, int]
    kinds: IntArray
    objects: IntArray
    ignored: BoolArray
    missed: BoolArray


def error_kinds(
    records: DetectionRecords,
    classes: ClassTable,
    max_detections: int = 100,
    iou_type: IouType = "bbox",
    right_iou: float = 0.5,
    background_iou: float = 0.1,
) -> ErrorKinds:
    """Find the errors and what they cost.

    Args:
        records: ``MaskRecords`` for masks.
        classes: of the labels.
        max_detections: of an image that count, best first; TIDE has 100.
        iou_type: compare boxes (``bbox``) or masks (``segm``).
        right_iou: from which on a detection is right.
        background_iou: up to which it is on nothing.
    """
    num_detections, num_objects = len(records.detection_scores), len(records.object_labels)
    kinds = np.full(num_detections, _NOT_COUNTED, dtype=np.int64)
    objects = np.full(num_detections, -1, dtype=np.int64)
    ignored, used = np.zeros(num_detections, dtype=np.bool_), np.zeros(num_objects, dtype=np.bool_)
    for found, true in detections_and_objects(records, max_detections):
        to_find, crowd = true[~records.object_ignore[true]], true[records.object_ignore[true]]
        labels = records.detection_labels[found]
        ious = ious_of(records, found, to_find, iou_type)
        same = labels[:, None] == records.object_labels[to_find]
        own = _matches(ious * same, right_iou)
        right = own >= 0
        there = np.zeros(len(to_find), dtype=np.bool_)
        there[own[right]] = True
        inside = ious_of(records, found, crowd, iou_type, crowd=True) > right_iou
        of_crowd = (inside & (labels[:, None] == records.object_labels[crowd])).any(axis=1) & ~right
        kind, nearest = _explained(ious, same, there, right_iou, background_iou)
        kinds[found] = np.where(right, _RIGHT, kind)
        nearest = np.where(right, own, nearest)
        objects[found] = np.where(nearest >= 0, np.append(to_find, -1)[nearest], -1)
        ignored[found], used[to_find] = of_crowd, there
    missed = ~used & ~records.object_ignore
    return _costs(records, len(classes), kinds, objects, ignored, missed)


def detections_and_objects(records: DetectionRecords, max_detections: int) -> list[tuple[IntArray, IntArray]]:
    """Of each image, by its id: positions of the best detections, best first, and of the objects."""
    image_ids = np.sort(records.image_ids)
    best_first = np.lexsort((-records.detection_scores, records.detection_image_ids))
    detections = np.searchsorted(records.detection_image_ids[best_first], image_ids)
    objects = np.argsort(records.object_image_ids, kind="stable")
    starts = np.searchsorted(records.object_image_ids[objects], image_ids)
    return [
        (found[:max_detections], true)
        for found, true in zip(
            np.split(best_first, detections)[1:] if len(image_ids) else [],
            np.split(objects, starts)[1:] if len(image_ids) else [],
            strict=True,
        )
    ]


def ious_of(
    records: DetectionRecords, found: IntArray, true: IntArray, iou_type: IouType, crowd: bool = False
) -> FloatArray:
    """(N,) detections and (M,) objects of an image, by their positions, → (N, M) IoU; with ``crowd`` regions the
    fraction of the detection that is inside."""
    if not len(found) or not len(true):
        return np.zeros((len(found), len(true)))
    if iou_type == "segm":
        assert isinstance(records, MaskRecords)
        return mask_ious(records, found, true, crowd)
    return pairwise_ious(records.detection_boxes[found], records.object_boxes[true], crowd)


def detection_ious(records: DetectionRecords, found: IntArray, iou_type: IouType) -> FloatArray:
    """(N,) detections of an image, by their positions, → (N, N) IoU with one another."""
    if iou_type == "bbox" or not len(found):
        return pairwise_ious(records.detection_boxes[found], records.detection_boxes[found])
    assert isinstance(records, MaskRecords)
    hw = records.image_hw[records.image_ids == records.detection_image_ids[found[0]]][0].tolist()
    masks = records.detection_masks[found]
    return ious_of_masks(hw, masks, masks, crowd=False)


def pairwise_ious(boxes: FloatArray, others: FloatArray, crowd: bool = False) -> FloatArray:
    """(N, 4) and (M, 4) xyxy → (N, M) IoU; with ``crowd`` regions the fraction of the first that is inside."""
    sides = np.minimum(boxes[:, None, 2:], others[:, 2:]) - np.maximum(boxes[:, None, :2], others[:, :2])
    inside = sides.clip(min=0).prod(axis=-1)
    areas, other_areas = ((b[..., 2:] - b[..., :2]).prod(axis=-1) for b in (boxes[:, None], others))
    ious: FloatArray = inside / np.maximum(areas if crowd else areas + other_areas - inside, 1e-300)
    return ious


def _matches(ious: FloatArray, right_iou: float) -> IntArray:
    """(N,) the object that each detection finds, -1 for none; the best score chooses first, of the objects that are
    free the one that it overlaps most."""
    matches = np.full(len(ious), -1, dtype=np.int64)
    free = np.ones(ious.shape[1])
    for row in np.flatnonzero((ious >= right_iou).any(axis=1)).tolist():
        nearest = int((ious[row] * free).argmax())
        if ious[row, nearest] * free[nearest] >= right_iou:
            matches[row], free[nearest] = nearest, 0
    return matches


def _explained(
    ious: FloatArray, same: BoolArray, used: BoolArray, right_iou: float, background_iou: float
) -> tuple[IntArray, IntArray]:
    """(N,) the kind of error that each detection is if it is wrong, and the object that it is about, -1 for none."""
    nothing = np.full(len(ious), _KINDS.index(ErrorKind.BACKGROUND)), np.full(len(ious), -1)
    if not ious.shape[1] or not len(ious):
        return nothing
    of_class, of_others, of_used = ious * same, ious * ~same, ious * same * used
    beside = of_class.max(axis=1)
    reasons = {
        ErrorKind.LOCATION: (background_iou <= beside) & (beside <= right_iou),
        ErrorKind.CLASS: of_others.max(axis=1) >= right_iou,
        ErrorKind.DUPLICATE: of_used.max(axis=1) >= right_iou,
        ErrorKind.BACKGROUND: ious.max(axis=1) <= background_iou,
    }
    about = [of_class.argmax(axis=1), of_others.argmax(axis=1), of_used.argmax(axis=1), nothing[1]]
    kind = np.select(list(reasons.values()), [_KINDS.index(name) for name in reasons], _KINDS.index(ErrorKind.BOTH))
    return kind, np.select(list(reasons.values()), about, ious.argmax(axis=1))


def _costs(
    records: DetectionRecords,
    num_classes: int,
    kinds: IntArray,
    objects: IntArray,
    ignored: BoolArray,
    missed: BoolArray,
) -> ErrorKinds:
    scores, labels = records.detection_scores, records.detection_labels
    true_labels = np.append(records.object_labels, 0)  # of no object (-1), which nothing asks for
    num_objects = np.bincount(records.object_labels[~records.object_ignore], minlength=num_classes)
    right, wrong = np.flatnonzero(kinds == _RIGHT), np.flatnonzero(kinds >= 0)
    kind_of_wrong = kinds[wrong]
    correctable = np.isin(kind_of_wrong, [_KINDS.index(ErrorKind.LOCATION), _KINDS.index(ErrorKind.CLASS)])
    correctable[correctable] = missed[objects[wrong[correctable]]]
    # Of several that would find the same object once they are corrected, the best score does.
    candidates = np.flatnonzero(correctable)
    candidates = candidates[np.argsort(-scores[wrong[candidates]], kind="stable")]
    first_of_object = np.unique(objects[wrong[candidates]], return_index=True)[1]
    corrected = np.zeros(len(wrong), dtype=np.bool_)
    corrected[candidates[first_of_object]] = True
    never = missed.copy()
    never[objects[wrong[corrected]]] = False

    def ap(there: BoolArray, fixed: BoolArray, label: IntArray, to_find: IntArray) -> float:
        """With the wrong detections that are there, some of them right now, by their labels. Of equal scores wrong ones
        come first, as in the authors' package."""
        rows, is_right = np.append(wrong[there], right), np.append(fixed[there], np.ones(len(right), dtype=np.bool_))
        return _mean_ap(np.append(label[there], labels[right]), scores[rows], is_right, to_find)

    def without(kind: ErrorKind) -> float:
        of_kind = kind_of_wrong == _KINDS.index(kind)
        fixed = of_kind & corrected
        label = np.where(fixed, true_labels[objects[wrong]], labels[wrong])
        of_never = np.bincount(records.object_labels[never], minlength=num_classes)
        to_find = num_objects - of_never if kind is ErrorKind.MISSED else num_objects
        return ap(np.where(of_kind, fixed, ~ignored[wrong]), fixed, label, to_find)

    counted = np.flatnonzero((kinds != _NOT_COUNTED) & ~ignored)
    is_right, none = kinds[counted] == _RIGHT, np.zeros(len(wrong), dtype=np.bool_)
    ap50 = _mean_ap(labels[counted], scores[counted], is_right, num_objects)
    all_found = num_objects - np.bincount(records.object_labels[missed], minlength=num_classes)
    counts = np.bincount(kind_of_wrong, minlength=len(_KINDS))
    counts[_KINDS.index(ErrorKind.MISSED)] = np.count_nonzero(never)
    return ErrorKinds(
        ap50=ap50,
        gains={kind: max(without(kind) - ap50, 0.0) for kind in ErrorKind},
        false_positive_gain=_mean_ap(labels[counted], is_right * 1.0, is_right, num_objects) - ap50,
        false_negative_gain=ap(~ignored[wrong], none, labels[wrong], all_found) - ap50,
        counts=dict(zip(ErrorKind, counts.tolist(), strict=True)),
        kinds=kinds,
        objects=objects,
        ignored=ignored,
        missed=missed,
    )


def _mean_ap(labels: IntArray, scores: FloatArray, is_right: BoolArray, num_objects: IntArray) -> float:
    """The mean AP of the classes that have objects or detections."""
    order = np.lexsort((-scores, labels))  # stable: of equal scores the first row comes first
    ends = np.searchsorted(labels[order], np.arange(len(num_objects) + 1)).tolist()
    found = []
    for num, start, end in zip(num_objects.tolist(), ends[:-1], ends[1:], strict=True):
        if num or end > start:
            found.append(_ap(is_right[order[start:end]], num))
    return float(np.mean(found)) if found else float("nan")


def _ap(is_right: BoolArray, num_objects: int) -> float:
    """The mean over 101 recall levels of the best precision at that recall or beyond; (D,) best score first."""
    if not num_objects:
        return 0.0
    found = np.cumsum(is_right)
    precision = found / np.arange(1, len(found) + 1)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    return float(best[np.searchsorted(found / num_objects, _LEVELS)].mean())
