"""Every cell of COCO's tables of precision and recall against pycocotools, to the last bit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.metrics.detection.coco import coco_tables
from detseg.metrics.detection.evaluator import DetectionEvaluator
from detseg.metrics.detection.records import DetectionRecords, MaskRecords
from detseg.structures import ClassTable
from tests.metrics.detection.referee import Case, referee_tables

CASES = st.builds(
    Case,
    seed=st.integers(0, 2**30),
    num_images=st.sampled_from([1, 2, 3, 8]),
    num_objects=st.sampled_from([0, 1, 3, 10, 40]),
    num_detections=st.sampled_from([0, 1, 5, 30, 150]),
    num_classes=st.sampled_from([1, 2, 3, 5]),
    grid=st.sampled_from([0.0, 1.0, 4.0, 8.0]),
    num_scores=st.sampled_from([1, 2, 5, 1000]),
)
LIMITS = st.sampled_from([1, 2, 5, 10, 11, 100, 400])


def check(records: DetectionRecords, classes: ClassTable, limit: int, like: DetectionRecords | None = None) -> None:
    """Compare with pycocotools' tables of the same records, or of ``like``."""
    ours = coco_tables(records, classes, limit, "segm" if isinstance(records, MaskRecords) else "bbox")
    for mine, other in zip(ours, referee_tables(like or records, classes, limit), strict=True):
        assert mine.shape == other.shape
        np.testing.assert_array_equal(mine, other)


@settings(max_examples=60, deadline=None)
@given(case=CASES, limit=LIMITS)
def test_boxes(case: Case, limit: int) -> None:
    """Ties of scores, of IoUs, IoUs that are a threshold, crowds, areas at the borders of sizes, boxes of no area,
    classes and images without objects or detections, records in any order, ids of any order."""
    check(case.records(), case.classes, limit)


@settings(max_examples=30, deadline=None)
@given(case=CASES, limit=LIMITS)
def test_masks(case: Case, limit: int) -> None:
    check(case.mask_records(), case.classes, limit)


@pytest.mark.parametrize("limit", [3, 100, 400])
def test_crowded_images(limit: int) -> None:
    """Hundreds of detections of the same few dozen objects: more pairs than are compared at a time."""
    case = Case(seed=4, num_images=2, num_objects=100, num_detections=2000, num_classes=2, grid=4)
    check(case.records(), case.classes, limit)


def test_more_images_than_are_matched_at_a_time() -> None:
    case = Case(seed=5, num_images=2500, num_objects=4000, num_detections=6000, num_classes=2, grid=4)
    check(case.records(), case.classes, 100)


@pytest.mark.parametrize("first_id", [-(10**7), 10**7])
def test_more_images_and_classes_than_a_small_type_counts(first_id: int) -> None:
    """300 classes, and 70 000 images without anything before or after the others: 8 and 16 bits would wrap."""
    case = Case(seed=6, num_images=12, num_objects=60, num_detections=300, num_classes=300)
    records = case.records()
    padded = replace(records, image_ids=np.concatenate([np.arange(first_id, first_id + 70_000), records.image_ids]))
    check(padded, case.classes, 100, like=records)


def test_neither_classes_nor_images() -> None:
    for records in (DetectionRecords.concatenate([]), MaskRecords.concatenate([])):
        check(records, Case(7, 0, 0, 0).classes, 100)
    assert math.isnan(DetectionEvaluator(ClassTable(())).compute().coco["AP"])
