"""COCO's matching rule at all thresholds and sizes and in all images at once.

In each group, at each IoU threshold and for each size, detections choose one after the other, best score first: of the
objects that are not taken the one with the highest IoU, of equals the last; one of the size if there is any, else one
that is to be ignored.  Crowd regions are never taken up.  Groups do not know each other, so all make their first
choices together, then all their second ones: there are as many rounds as the fullest group has detections that overlap
an object.  pycocotools, whose result is the same, loops over images, sizes, thresholds, detections and objects.

Letters: G objects, M detections that overlap an object, P pairs, S sizes, T IoU thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from detseg.metrics.coco_groups import Groups, places_in_runs
from detseg.metrics.coco_overlaps import Overlaps
from detseg.metrics.coco_rules import IOU_THRESHOLDS
from detseg.structures import BoolArray, IntArray

_PIECE = 1 << 13
"""Pairs decided at a time, so that memory does not grow with a round."""


class Matches(NamedTuple):
    """What the detections that overlap an object were matched with.

    Attributes:
        detections: (M,) int64, positions in ``Groups.detections``, ascending.
        found: (T, M, S) bool, an object that counts.
        ignored: (T, M, S) bool, one that does not.
    """

    detections: IntArray
    found: BoolArray
    ignored: BoolArray


def match(groups: Groups, overlaps: Overlaps, crowd: BoolArray, ignore: BoolArray) -> Matches:
    """Match detections with objects.

    Args:
        groups: of detections and objects.
        overlaps: the pairs that may match.
        crowd: (G,) whether an object of ``groups`` may be matched any number of times.
        ignore: (G, S) whether it is neither right nor wrong to find.
    """
    detections, rows = np.unique(overlaps.detections, return_inverse=True)
    rounds = places_in_runs(groups.detection_groups[detections])
    # The pairs of a detection lie together, the best last.
    order = np.lexsort((overlaps.ious, rows, rounds[rows]))
    rows, objects, ious = rows[order], overlaps.objects[order], overlaps.ious[order]
    enough = ious[:, None] >= np.minimum(IOU_THRESHOLDS, 1 - 1e-10)  # P T
    counts = ~ignore  # G S

    num_thresholds, num_sizes = len(IOU_THRESHOLDS), ignore.shape[1]
    cells = np.arange(num_thresholds * num_sizes).reshape(num_thresholds, num_sizes)
    free = np.ones((len(crowd), num_thresholds, num_sizes), dtype=np.bool_)
    flat = free.reshape(-1)
    found = np.zeros((num_thresholds, len(detections), num_sizes), dtype=np.bool_)
    ignored = np.zeros_like(found)
    for start, end in _pieces(rows, rounds):
        row, object_ = rows[start:end], objects[start:end]
        num = end - start
        # A choice as a number: the higher the better, at least `num` where the object counts, -1 where it cannot be.
        choices = np.arange(num, dtype=np.int32)[:, None] + np.int32(num) * counts[object_]  # p S
        possible = free[object_] & enough[start:end, :, None]  # p T S
        choices = np.where(possible, choices[:, None], np.int32(-1))
        firsts = np.flatnonzero(np.diff(row, prepend=-1))
        best = choices if len(firsts) == num else np.maximum.reduceat(choices, firsts)  # m T S
        row = row[firsts]
        found[:, row] = (best >= num).swapaxes(0, 1)
        ignored[:, row] = ((best >= 0) & (best < num)).swapaxes(0, 1)
        chosen = object_[np.where(best >= num, best - num, best)]  # m T S, where there is a choice
        flat[(chosen * cells.size + cells)[best >= 0]] = False
        free[object_[crowd[object_]]] = True
    return Matches(detections, found, ignored)


def _pieces(rows: IntArray, rounds: IntArray) -> Iterator[tuple[int, int]]:
    """Begin and end of about ``_PIECE`` pairs of one round, those of a detection undivided.

    Args:
        rows: (P,) int64, the detection of each pair, equal ones together, by round.
        rounds: (M,) int64, the round of each detection.
    """
    firsts = np.flatnonzero(np.diff(rows, prepend=-1))
    round_ = rounds[rows[firsts]]  # M, ascending
    begins = firsts[np.searchsorted(round_, round_, side="left")]
    piece = (firsts - begins) // _PIECE
    new = (np.diff(round_, prepend=-1) != 0) | (np.diff(piece, prepend=0) != 0)
    return pairwise([*firsts[new].tolist(), len(rows)])
