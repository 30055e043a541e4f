"""Pairs of boxes that meet, and the best object of each detection, against loops; pieces of any length."""

from __future__ import annotations

import numpy as np
import pytest

from detseg.metrics.detection import voc_matching as box_pairs
from detseg.metrics.detection.records import DetectionRecords
from detseg.metrics.detection.voc_matching import (
    BoxColumns,
    OverlappingPairs,
    best_matches,
    object_ranges,
    overlapping_pairs,
)
from tests.metrics.detection.referee import Case

CASE = Case(seed=3, num_images=5, num_objects=40, num_detections=200, grid=8)


@pytest.mark.parametrize("piece", [1, 7, 1 << 15])
def test_pairs_equal_a_loop(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups in any order, some without objects; boxes that touch do not meet."""
    monkeypatch.setattr(box_pairs, "_PIECE", piece)
    records = CASE.records()
    found, true = records.detection_boxes, records.object_boxes
    rng = np.random.default_rng(0)
    found_groups, true_groups = rng.integers(0, 9, len(found)), np.sort(rng.integers(0, 7, len(true)))
    expected = []
    for d, (x1, y1, x2, y2) in enumerate(found.tolist()):
        for o, (left, top, right, bottom) in enumerate(true.tolist()):
            width, height = min(x2, right) - max(x1, left), min(y2, bottom) - max(y1, top)
            if found_groups[d] == true_groups[o] and width > 0 and height > 0:
                expected.append((d, o, width * height))
    parts = list(overlapping_pairs(BoxColumns.of(found), BoxColumns.of(true), object_ranges(found_groups, true_groups)))
    ours = OverlappingPairs(*map(np.concatenate, zip(*parts, strict=True)))
    assert len(expected) > 50
    assert list(zip(*(column.tolist() for column in ours), strict=True)) == expected


@pytest.mark.parametrize("piece", [1, 7, 1 << 15])
def test_best_objects_equal_a_loop(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties go to the first object of the records, also where no object is met."""
    monkeypatch.setattr(box_pairs, "_PIECE", piece)
    records = CASE.records()
    in_order = DetectionRecords.concatenate([records])
    overlaps = best_matches(in_order)
    for d, (box, image, label) in enumerate(
        zip(in_order.detection_boxes, in_order.detection_image_ids, in_order.detection_labels, strict=True)
    ):
        same = np.flatnonzero((in_order.object_image_ids == image) & (in_order.object_labels == label))
        ious = [_iou(box.tolist(), in_order.object_boxes[o].tolist()) for o in same]
        best = int(np.argmax(ious)) if ious else -1
        assert overlaps.objects[d] == (same[best] if ious else -1)
        assert overlaps.ious[d] == (ious[best] if ious else 0)


def _iou(box: list[float], other: list[float]) -> float:
    width, height = (min(box[2 + k], other[2 + k]) - max(box[k], other[k]) for k in (0, 1))
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((right - left) * (bottom - top) for left, top, right, bottom in (box, other))
    return width * height / (areas - width * height)
