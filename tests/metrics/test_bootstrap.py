"""Resamples counted by weights give the numbers of the evaluator on the images that were drawn, each a copy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detseg.metrics.bootstrap import Weights, detection_samples, interval, resamples, segmentation_samples
from detseg.metrics.coco import coco_numbers
from detseg.metrics.interface import mean_defined
from detseg.metrics.records import DetectionRecords, IouType
from detseg.metrics.segmentation import SegmentationEvaluator
from detseg.metrics.voc import best_f1, best_matches, rank_classes
from detseg.structures import ClassTable, FloatArray
from tests.metrics.builders import Case


def drawn(records: DetectionRecords, weights: FloatArray | Weights) -> DetectionRecords:
    """The records of a resample, with a copy of an image for each time that it was drawn."""
    image_ids = np.sort(records.image_ids)
    parts = []
    for place, number in enumerate(weights.astype(int).tolist()):
        others = np.setdiff1d(image_ids, image_ids[place : place + 1])
        one = records.without_images(others)
        for copy in range(number):
            new: dict[str, Any] = {
                name: np.full(len(getattr(one, name)), place * 100 + copy, dtype=np.int64)
                for name in ("image_ids", "detection_image_ids", "object_image_ids")
            }
            parts.append(replace(one, **new))
    return type(records).concatenate(parts)


@given(
    case=st.builds(
        Case,
        seed=st.integers(0, 2**30),
        num_images=st.sampled_from([5, 6, 9]),
        num_objects=st.sampled_from([0, 1, 10, 40]),
        num_detections=st.sampled_from([0, 1, 30, 150]),
        num_classes=st.sampled_from([1, 3]),
        grid=st.sampled_from([0.0, 8.0]),
    ),
    masks=st.booleans(),
    max_detections=st.sampled_from([1, 7, 100]),
)
def test_a_resample_has_the_numbers_of_the_copied_images(case: Case, masks: bool, max_detections: int) -> None:
    records = case.mask_records() if masks else case.records()
    # All scores differ: which of equals comes first depends on the number of copies.
    scores = np.random.default_rng(case.seed).permutation(case.num_detections) / 1000
    records = type(records).concatenate([replace(records, detection_scores=scores)])
    f1_of: IouType = "segm" if masks else "bbox"
    f1_name = "mask_F1" if masks else "F1"
    how = {"num_resamples": 3, "seed": case.seed}
    samples = detection_samples(records, case.classes, max_detections, 0.5, f1_of=f1_of, **how)
    for row, weights in enumerate(np.concatenate(list(resamples(case.num_images, 3, case.seed)))):
        copied = drawn(records, weights)
        for kind, iou_type in (("mask_", "segm"), ("", "bbox")) if masks else (("", "bbox"),):
            expected = coco_numbers(copied, case.classes, max_detections, iou_type)  # type: ignore[arg-type]  # above
            for name in ("AP", "AP50", "AP75"):
                found = samples.numbers[kind + name][row]
                assert found == pytest.approx(expected.summary[name], abs=1e-12, nan_ok=True)
            assert samples.by_class[f"{kind}AP"][row] == pytest.approx(expected.class_ap, abs=1e-12, nan_ok=True)
            assert samples.by_class[f"{kind}AP50"][row] == pytest.approx(expected.class_ap50, abs=1e-12, nan_ok=True)
        rankings = rank_classes(copied, best_matches(copied, f1_of), 0.5, case.num_classes)
        f1 = [best_f1(ranking).f1 for ranking in rankings]
        assert samples.by_class[f1_name][row] == pytest.approx(f1, abs=1e-12, nan_ok=True)
        assert samples.numbers[f1_name][row] == pytest.approx(mean_defined(f1), abs=1e-12, nan_ok=True)


def test_resamples_are_draws_with_repetition() -> None:
    """Each of 50 images is drawn once on average, with the variance of a binomial distribution, 1 - 1 / 50."""
    weights = np.concatenate(list(resamples(50, 2000, seed=3)))
    assert weights.shape == (2000, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(50), abs=0.1)
    assert weights.var() == pytest.approx(0.98, abs=0.02)
    assert (np.concatenate(list(resamples(50, 2000, seed=3))) == weights).all()
    assert (np.concatenate(list(resamples(50, 100, seed=4))) != weights[:100]).any()


def test_interval() -> None:
    """Of 0, 1, ..., 1000 the quantiles 2.5 % and 97.5 % are 25 and 975, the mean is 500."""
    values = np.random.default_rng(0).permutation(1001).astype(float)
    assert interval(500, values) == pytest.approx((25, 975))
    assert interval(0, np.append(values, np.nan), 0.9) == pytest.approx((-450, 450))
    assert np.isnan(interval(0, np.full(3, np.nan))).all()


@given(seed=st.integers(0, 2**30), num_images=st.integers(5, 8))
def test_a_resample_of_label_maps_has_the_numbers_of_the_copied_images(seed: int, num_images: int) -> None:
    """Three classes, of which an image may lack some; a tenth of the pixels is ignored."""
    rng = np.random.default_rng(seed)
    truths = rng.integers(0, rng.integers(1, 4), (num_images, 12, 9)).astype(np.uint8)
    found = np.where(rng.random(truths.shape) < 0.7, truths, rng.integers(0, 3, truths.shape)).astype(np.uint8)
    truths[rng.random(truths.shape) < 0.1] = 255
    classes = ClassTable(("a", "b", "c"))
    kept = SegmentationEvaluator(classes)
    kept.keep_images()
    for predicted, truth in zip(found, truths, strict=True):
        kept.update(predicted, truth)
    samples = segmentation_samples(*kept.image_counts, num_resamples=3, seed=seed)
    for row, weights in enumerate(np.concatenate(list(resamples(num_images, 3, seed)))):
        copied = SegmentationEvaluator(classes)
        for image, number in enumerate(weights.tolist()):
            for _ in range(number):
                copied.update(found[image], truths[image])
        expected = copied.compute()
        assert {name: values[row] for name, values in samples.numbers.items()} == pytest.approx(
            {name: expected.numbers[name] for name in samples.numbers}, abs=1e-6, nan_ok=True
        )
        assert samples.by_class["IoU"][row] == pytest.approx(expected.by_class["IoU"], abs=1e-6, nan_ok=True)


def test_a_few_images_tell_nothing() -> None:
    """Of four images all resamples are alike, and of one all are the same."""
    confusions = np.tile(np.array([[5, 1], [2, 7]]), (4, 1, 1))
    bands = np.ones((4, 2, 2), dtype=np.int64)
    for num in (1, 4):
        samples = segmentation_samples(confusions[:num], bands[:num], num_resamples=10)
        assert all(np.isnan(values).all() for values in (*samples.numbers.values(), *samples.by_class.values()))
        assert np.isnan(interval(0.5, samples.numbers["mIoU"])).all()
    five = segmentation_samples(np.tile(confusions[:1], (5, 1, 1)), np.tile(bands[:1], (5, 1, 1)), num_resamples=10)
    assert not np.isnan(five.numbers["mIoU"]).any()
