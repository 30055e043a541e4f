"""Pairs of boxes that overlap, against a loop, in chunks of any size."""

from __future__ import annotations

import numpy as np
import pytest

from detseg.metrics.detection.box_pairs import overlapping_pairs
from tests.metrics.detection.referee import Case


@pytest.mark.parametrize("chunk_size", [1, 7, 1 << 15])
def test_pairs_equal_a_loop(chunk_size: int) -> None:
    """Groups in any order, some without objects; boxes that touch do not overlap."""
    records = Case(seed=3, num_images=5, num_objects=40, num_detections=200, grid=8).records()
    boxes, object_boxes = records.detection_boxes, records.object_boxes
    rng = np.random.default_rng(0)
    groups, object_groups = rng.integers(0, 9, len(boxes)), np.sort(rng.integers(0, 7, len(object_boxes)))
    expected = []
    for d, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        for o, (left, top, right, bottom) in enumerate(object_boxes.tolist()):
            width, height = min(x2, right) - max(x1, left), min(y2, bottom) - max(y1, top)
            if groups[d] == object_groups[o] and width > 0 and height > 0:
                expected.append((d, o, width * height))
    chunks = list(overlapping_pairs(boxes, object_boxes, groups, object_groups, chunk_size))
    assert len(expected) > 50
    assert [pair for chunk in chunks for pair in zip(*(column.tolist() for column in chunk), strict=True)] == expected
