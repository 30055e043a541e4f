"""What label maps are wrong about: by hand, and by loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest

from detseg.evaluation.report.map_page import MapReport
from detseg.evaluation.report.maps import REGION_SIZES, MapStudy, fixed_confusions, image_ious
from detseg.metrics.segmentation import SegmentationEvaluator
from detseg.structures import ClassTable


def one_hot(labels: np.ndarray, num_classes: int, sure: float = 1.0) -> np.ndarray:
    """(C, H, W) probabilities: ``sure`` for the label, the rest shared out."""
    rest = (1 - sure) / max(num_classes - 1, 1)
    return np.where(labels == np.arange(num_classes)[:, None, None], sure, rest).astype(np.float32)


def test_curves_and_calibration_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    study = MapStudy(3, 0.02)
    pairs = []
    for _ in range(3):
        logits = rng.normal(size=(3, 9, 11)).astype(np.float32)
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=0)
        truth = rng.integers(0, 3, (9, 11)).astype(np.uint8)
        truth[rng.random((9, 11)) < 0.2] = 255
        study.update(probabilities, truth)
        pairs += [
            (probabilities[:, y, x].astype(np.float64), int(truth[y, x]))
            for y, x in np.ndindex(9, 11)
            if truth[y, x] != 255
        ]
    for label, found in enumerate(study.curves()):
        assert found.num_objects == sum(true == label for _, true in pairs)
        for k in (0, 20, 55, 90):
            kept = [true for p, true in pairs if p[label] >= k / 100]
            assert (found.kept[k], found.right[k]) == (len(kept), kept.count(label))
    error = 0.0
    for k in range(10):
        own = [(p.max(), p.argmax() == true) for p, true in pairs if k / 10 <= p.max() < (k + 1) / 10]
        error += abs(sum(p for p, _ in own) - sum(right for _, right in own)) / len(pairs)
    assert study.calibration().error == pytest.approx(error)


def test_a_class_that_its_own_probability_finds_is_hidden() -> None:
    """Of 1600 pixels 400 are of class 1, to which the model gives 0.3, and 0.1 elsewhere; class 2 is nowhere likely."""
    truth = np.zeros((40, 40), dtype=np.uint8)
    truth[:10], truth[39] = 1, 2
    probabilities = np.full((3, 40, 40), 0.05, dtype=np.float32)
    probabilities[1] = np.where(truth == 1, 0.305, 0.105)
    probabilities[0] = 0.95 - probabilities[1]
    classes, study = ClassTable(("sky", "pole", "dog")), MapStudy(3, 0.02)
    study.update(probabilities, truth)
    evaluator = SegmentationEvaluator(classes)
    evaluator.keep_images()
    evaluator.update(probabilities.argmax(axis=0), truth)
    found = MapReport.of(evaluator, study, ["a.png"], lambda place: (truth, truth, truth))
    assert found.hidden == {"pole": (1.0, 0.3)}
    text = " ".join(found.in_short())
    assert "class_weights" not in text  # which the run may have
    assert "pole is never the most probable class, but from a probability of 0.30 on found with F1 1.00" in text
    assert "dog is" not in text


def test_a_frequent_class_is_not_hidden_by_chance() -> None:
    """A quarter of the pixels, whose probability is noise: all pixels together have an F1 of 0.4."""
    rng = np.random.default_rng(0)
    truth = (np.arange(1600).reshape(40, 40) % 4 == 0).astype(np.uint8)
    probabilities = np.stack([np.ones((40, 40)), rng.uniform(0.2, 0.3, (40, 40))]).astype(np.float32)
    probabilities[0] -= probabilities[1]
    classes, study = ClassTable(("sky", "pole")), MapStudy(2, 0.02)
    study.update(probabilities, truth)
    evaluator = SegmentationEvaluator(classes)
    evaluator.keep_images()
    evaluator.update(probabilities.argmax(axis=0), truth)
    assert study.curves()[1].f1.max() >= 0.4
    assert MapReport.of(evaluator, study, ["a.png"], lambda place: (truth, truth, truth)).hidden == {}


def test_wrong_pixels_are_inside_or_along_the_outlines() -> None:
    truth = np.zeros((40, 40), dtype=np.uint8)
    truth[:, 20:] = 1
    found = truth.copy()
    found[:, 20] = 0  # along
    found[10:12, 5:7] = 1  # inside
    study = MapStudy(2, 0.03)  # 2 pixels wide
    study.update(one_hot(found, 2), truth)
    assert study.wrong.tolist() == [4, 40]
    assert study.pixels.sum() == 1600
    # Two bands of two columns along the middle, and two pixels along the border of the image.
    assert study.pixels[1] == 1600 - (40 - 4) * (20 - 4) * 2


def test_regions_count_as_found_by_half() -> None:
    truth = np.zeros((64, 64), dtype=np.uint8)
    truth[2:6, 2:6] = 1  # 16 pixels, half of them found
    truth[20:30, 20:30] = 1  # 100 pixels, less than half
    found = np.zeros_like(truth)
    found[2:6, 2:4] = 1
    found[20:30, 20:24] = 1
    study = MapStudy(2, 0.02)
    study.update(one_hot(found, 2), truth)
    assert study.regions[1].tolist() == [1, 1, 0, 0, 0]
    assert study.regions_found[1].tolist() == [1, 0, 0, 0, 0]
    assert study.regions[0].tolist() == [0, 0, 0, 1, 0] == study.regions_found[0].tolist()
    assert len(REGION_SIZES) == 5


def test_a_region_that_the_model_is_sure_of_is_doubted() -> None:
    truth = np.zeros((40, 40), dtype=np.uint8)
    found = truth.copy()
    found[10:16, 20:25] = 1
    found[30, 30] = 1  # too small
    study = MapStudy(2, 0.01)
    study.update(one_hot(found, 2, 0.9), truth)
    (region,) = study.doubted
    assert (region.image, region.box, region.area, region.label, region.found) == (0, (20, 10, 25, 16), 30, 0, 1)
    assert region.doubt == pytest.approx(30 * 0.8, rel=1e-5)
    study.update(one_hot(found, 2, 0.7), truth)  # not sure enough
    assert len(study.doubted) == 1


def test_large_regions_of_one_label_do_not_hide_those_of_others() -> None:
    """Five large ones of a class that is never found, and a small one of another."""
    truth = np.zeros((80, 80), dtype=np.uint8)
    truth[::16] = 0
    for row in range(5):
        truth[16 * row + 2 : 16 * row + 12, 10:40] = 2
    truth[30:40, 60:70] = 1
    study = MapStudy(3, 0.01)
    study.update(one_hot(np.zeros_like(truth), 3, 0.9), truth)
    assert [region.label for region in study.doubted] == [2, 2, 2, 1]


def test_gains_of_fixed_confusions_by_hand() -> None:
    confusion = np.array([[6, 2], [0, 2]])
    # IoU now: 6 / 8 and 2 / 4; with the two pixels right both are 1.
    assert fixed_confusions(confusion) == [(0, 1, pytest.approx(1 - 0.625))]
    assert image_ious(np.stack([confusion, np.zeros_like(confusion)]))[0] == 0.625
    assert np.isnan(image_ious(np.zeros((1, 2, 2), dtype=np.int64))).all()
