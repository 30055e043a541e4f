"""VOC's AP against published results, by hand and by loops; the best F1 by hand and against trying every threshold."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.metrics.detection import DetectionEvaluator
from detseg.metrics.records import DetectionRecords
from detseg.metrics.voc import Ranking, average_precisions, best_f1, best_matches, rank_classes
from detseg.structures import ClassTable, ImageAnnotations, InstanceMasks
from tests.metrics.builders import CASES, Box, Case, Rows, found, truth
from tests.shared_data import shared_data


def scored(records: DetectionRecords, iou_threshold: float, label: int = 0) -> tuple[float, float]:
    return average_precisions(rank_classes(records, best_matches(records), iou_threshold, label + 1)[label])


def records_of(images: list[tuple[Rows, ImageAnnotations]]) -> DetectionRecords:
    return DetectionRecords.concatenate(
        [DetectionRecords.of_image(image_id, found(rows), objects) for image_id, (rows, objects) in enumerate(images)]
    )


def ranking(scores: list[float], true_positives: list[int], num_objects: int) -> Ranking:
    return Ranking(np.arange(len(scores)), np.array(scores), np.array(true_positives, dtype=np.int64), num_objects)


def half_open(x1: float, y1: float, x2: float, y2: float) -> Box:
    """1-based corners, both inclusive → 0-based and half-open."""
    return (x1 - 1, y1 - 1, x2, y2)


def test_padilla_example() -> None:
    folder = shared_data("oracles", "voc_ap_padilla")

    def boxes(path: Path) -> list[tuple[list[str], Box]]:
        lines = [line.split() for line in path.read_text().splitlines()]
        corners = [(x, y, x + width, y + height) for x, y, width, height in (map(float, line[-4:]) for line in lines)]
        return [(line[:-4], half_open(*box)) for line, box in zip(lines, corners, strict=True)]

    images: list[tuple[Rows, ImageAnnotations]] = []
    for path in sorted((folder / "groundtruths").glob("*.txt")):
        rows = [(box, float(head[1]), 0) for head, box in boxes(folder / "detections" / path.name)]
        images.append((rows, truth([(box, 0) for _, box in boxes(path)])))
    records = records_of(images)
    assert (len(records.detection_scores), len(records.object_areas)) == (24, 15)
    assert scored(records, 0.3) == pytest.approx((0.26839826839826836, 0.24568668046928915), abs=1e-12)
    assert scored(records, 0.5) == pytest.approx((0.0303030303030303, 0.02222222222222222), abs=1e-12)


def test_toyexample() -> None:
    folder = shared_data("oracles", "voc_toyexample")
    names = (folder / "voc.names").read_text().split()
    images: list[tuple[Rows, ImageAnnotations]] = []
    for path in sorted((folder / "gts_vocpascal_format").glob("*.xml")):
        objects = []
        for entry in ElementTree.parse(path).getroot().iter("object"):
            corners = (float(entry.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax"))
            objects.append((half_open(*corners), names.index(entry.findtext("name", ""))))
        lines = (folder / "dets_classname_abs_xyx2y2" / f"{path.stem}.txt").read_text().splitlines()
        rows: Rows = [
            (half_open(*map(float, corners)), float(score), names.index(name))
            for name, score, *corners in map(str.split, lines)
        ]
        images.append((rows, truth(objects)))
    records = records_of(images)
    cat = names.index("cat")
    assert set(records.detection_labels.tolist()) == {cat}
    assert scored(records, 0.5, cat) == pytest.approx((0.8863636363636362, 0.8958333333333334), abs=1e-12)
    assert scored(records, 0.75, cat) == pytest.approx((0.4924242424242424, 0.5097222222222222), abs=1e-12)


def test_a_taken_object_is_not_swapped_for_a_free_one() -> None:
    """The second detection overlaps object 0 most, which is taken; that object 1 would fit, too, does not help."""
    objects = truth([((0, 0, 10, 10), 0), ((3, 0, 13, 10), 0)])
    records = records_of([([((0, 0, 10, 10), 0.9, 0), ((1, 0, 11, 10), 0.8, 0)], objects)])
    matches = best_matches(records)
    assert matches.objects.tolist() == [0, 0]
    assert matches.ious == pytest.approx([1, 9 / 11])
    assert rank_classes(records, matches, 0.5, 1)[0].true_positives.tolist() == [1, 1]


@given(case=CASES)
def test_masks_are_matched_by_the_pixels_that_they_share(case: Case) -> None:
    records = case.mask_records()
    matches = best_matches(records, "segm")
    for row, image_id in enumerate(records.detection_image_ids.tolist()):
        hw = records.image_hw[records.image_ids == image_id][0].tolist()
        one = InstanceMasks((hw[0], hw[1]), (records.detection_masks[row],)).mask(0)
        best, best_iou = -1, 0.0
        for k in np.flatnonzero(records.object_image_ids == image_id).tolist():
            if records.object_labels[k] != records.detection_labels[row]:
                continue
            other = InstanceMasks((hw[0], hw[1]), (records.object_masks[k],)).mask(0)
            if (iou := (one & other).sum() / max((one | other).sum(), 1)) > best_iou:
                best, best_iou = k, iou
        assert (matches.objects[row], matches.ious[row]) == (best, pytest.approx(best_iou))


def test_difficult_objects_and_all_their_detections_are_ignored() -> None:
    objects = truth([((0, 0, 10, 10), 0), ((20, 20, 30, 30), 0)], difficult=[1])
    rows: Rows = [((20, 20, 30, 30), 0.9, 0), ((20, 20, 30, 29), 0.8, 0), ((0, 0, 10, 10), 0.7, 0)]
    records = records_of([(rows, objects)])
    (ranked,) = rank_classes(records, best_matches(records), 0.5, 1)
    assert ranked.scores == pytest.approx([0.7])
    assert (ranked.true_positives.tolist(), ranked.num_objects) == ([1], 1)


def test_of_equal_scores_the_lower_image_id_comes_first() -> None:
    hit: Rows = [((0, 0, 10, 10), 0.5, 0)]
    miss: Rows = [((50, 50, 60, 60), 0.5, 0)]
    objects, nothing = truth([((0, 0, 10, 10), 0)]), truth([])
    assert scored(records_of([(hit, objects), (miss, nothing)]), 0.5) == (1.0, 1.0)
    assert scored(records_of([(miss, nothing), (hit, objects)]), 0.5) == pytest.approx((0.5, 0.5))


def test_the_threshold_itself_is_enough() -> None:
    records = records_of([([((0, 0, 10, 5), 0.9, 0)], truth([((0, 0, 10, 10), 0)]))])
    assert scored(records, 0.5) == (1.0, 1.0)
    assert scored(records, 0.51) == (0.0, 0.0)


def test_both_rules_by_hand() -> None:
    """Right, wrong, right with 4 objects: recall 1/4, 1/4, 2/4; precision 1, 1/2, 2/3.

    2007: levels 0, 0.1, 0.2 see 1; 0.3, 0.4, 0.5 see 2/3; 5 levels see 0.  2010: 1/4 × 1 + 1/4 × 2/3.
    """
    expected = (3 + 3 * 2 / 3) / 11, 1 / 4 + 1 / 4 * 2 / 3
    assert average_precisions(ranking([0.9, 0.8, 0.7], [1, 1, 2], 4)) == pytest.approx(expected)


@pytest.mark.parametrize("tenths", range(1, 11))
def test_recall_of_some_tenths_reaches_its_level(tenths: int) -> None:
    """k of 10 objects found without a miss: levels 0 to k/10, in spite of binary fractions."""
    found_first = ranking([1 - k / 20 for k in range(tenths)], list(range(1, tenths + 1)), 10)
    assert average_precisions(found_first)[0] == pytest.approx((tenths + 1) / 11)


def test_nothing_to_find_and_nothing_found() -> None:
    assert average_precisions(ranking([0.5], [0], 0)) == pytest.approx((math.nan, math.nan), nan_ok=True)
    assert average_precisions(ranking([], [], 3)) == (0, 0)
    assert best_f1(ranking([0.9], [0], 2)) == pytest.approx((math.nan, 0, 0, 0), nan_ok=True)
    assert best_f1(ranking([], [], 2)) == pytest.approx((math.nan, math.nan, 0, 0), nan_ok=True)
    assert all(math.isnan(number) for number in best_f1(ranking([0.9], [0], 0)))


@settings(max_examples=60, deadline=None)
@given(CASES, st.sampled_from([0.25, 0.5, 1.0]))
def test_right_and_wrong_one_by_one(case: Case, threshold: float) -> None:
    """The development kit's rule in loops: a detection is compared with the object that it overlaps most, taken or
    not."""
    records = case.records()
    taken: set[int] = set()
    scores: list[list[float]] = [[] for _ in range(case.num_classes)]
    right: list[list[bool]] = [[] for _ in range(case.num_classes)]
    for row in sorted(range(len(records.detection_scores)), key=lambda row: -records.detection_scores[row]):
        best, overlap, label = -1, 0.0, int(records.detection_labels[row])
        same = (records.object_image_ids == records.detection_image_ids[row]) & (records.object_labels == label)
        for other in np.flatnonzero(same).tolist():
            iou = _iou(records.detection_boxes[row].tolist(), records.object_boxes[other].tolist())
            if best < 0 or iou > overlap:
                best, overlap = other, iou
        hit = best >= 0 and overlap >= threshold
        if not (hit and records.object_ignore[best]):
            scores[label].append(float(records.detection_scores[row]))
            right[label].append(hit and best not in taken)
            taken |= {best} if hit else set()
    for label, ranked in enumerate(rank_classes(records, best_matches(records), threshold, case.num_classes)):
        assert ranked.scores.tolist() == scores[label]
        assert ranked.true_positives.tolist() == np.cumsum(right[label], dtype=np.int64).tolist()


def test_the_best_f1_by_hand() -> None:
    """Right, right, wrong, right, wrong with 4 objects: F1 is 2/5, 4/6, 4/7, 6/8, 6/9."""
    best = best_f1(ranking([0.9, 0.8, 0.7, 0.6, 0.5], [1, 2, 2, 3, 3], 4))
    assert best == pytest.approx((0.6, 3 / 4, 3 / 4, 6 / 8))
    # The first of two equal scores alone would be perfect, but no threshold separates them.
    assert best_f1(ranking([0.9, 0.9], [1, 1], 1)) == pytest.approx((0.9, 1 / 2, 1.0, 2 / 3))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("f1_iou", [0.5, 0.7])
def test_the_best_f1_equals_trying_every_threshold(seed: int, f1_iou: float) -> None:
    """The kept detections alone are matched, object by object, for every score."""
    rng = np.random.default_rng(seed)
    objects = [(30.0 * k, 0.0, 30.0 * k + 20, 20.0) for k in range(10)]
    rows: Rows = []
    for _ in range(40):
        moved = np.array(objects[int(rng.integers(10))]) + rng.integers(-5, 6, 4)
        rows.append((moved.tolist(), float(rng.integers(1, 20) / 32), 0))
    evaluator = DetectionEvaluator(ClassTable(("cat",)), f1_iou=f1_iou)
    evaluator.update(1, found(rows), truth([(box, 0) for box in objects]))
    (cat,) = evaluator.compute().classes

    tried = []
    for threshold in sorted({score for _, score, _ in rows}, reverse=True):
        kept = [box for box, score, _ in rows if score >= threshold]
        hit = set()
        for box in kept:
            ious = [_iou(box, other) for other in objects]
            if max(ious) >= f1_iou:
                hit.add(ious.index(max(ious)))
        precision, recall = len(hit) / len(kept), len(hit) / 10
        tried.append((2 * precision * recall / (precision + recall) if hit else 0.0, threshold, precision, recall))
    f1, threshold, precision, recall = max(tried, key=lambda row: (round(row[0], 12), row[1]))
    assert f1 > 0
    assert (cat.threshold, cat.precision, cat.recall, cat.f1) == pytest.approx((threshold, precision, recall, f1))


def _iou(a: Box, b: Box) -> float:
    sides = [max(min(a[k + 2], b[k + 2]) - max(a[k], b[k]), 0.0) for k in (0, 1)]
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - sides[0] * sides[1]
    return sides[0] * sides[1] / union if union > 0 else 0.0
