"""Labels to check: each kind of planted error is found, and named as what it is."""

from __future__ import annotations

import numpy as np

from detseg.evaluation.report.label_errors import Doubt, suspects
from detseg.metrics.records import DetectionRecords, IouType, MaskRecords
from tests.metrics.builders import found, truth

CAT, DOG = 0, 1
IOU_TYPES: tuple[IouType, ...] = ("bbox", "segm")
RECALLS, LEARNED = np.array([0.7, 0.8]), np.array([True, True])


def records_of(rows: object, objects: object, **how: object) -> DetectionRecords:
    part = DetectionRecords.of_image(7, found(rows), truth(objects, **how))  # type: ignore[arg-type]  # lists of tuples
    return DetectionRecords.concatenate([part])


def test_each_kind_is_found_once() -> None:
    records = records_of(
        [
            ((0, 0, 10, 10), 0.95, CAT),  # as labelled
            ((20, 0, 30, 10), 0.9, DOG),  # labelled as a cat
            ((20, 0, 30, 10), 0.2, CAT),
            ((44, 0, 54, 10), 0.8, CAT),  # the label lies beside it
            ((60, 60, 70, 70), 0.6, DOG),  # no label
        ],
        [((0, 0, 10, 10), CAT), ((20, 0, 30, 10), CAT), ((40, 0, 50, 10), CAT), ((90, 90, 99, 99), DOG)],
    )
    got = suspects(records, RECALLS, LEARNED)
    assert [(s.kind, round(s.doubt, 5), s.object, s.detection) for s in got] == [
        (Doubt.MISPLACED, 0.8, 2, 3),
        (Doubt.SWAPPED, 0.7, 1, 1),  # 0.9 less 0.2 for the label
        (Doubt.OVERLOOKED, 0.6, -1, 4),
        (Doubt.NOTHING, 0.4, 3, -1),  # half of the recall of its class
    ]
    assert {suspect.image_id for suspect in got} == {7}


def test_a_neighbour_that_has_a_label_of_its_own_doubts_no_other() -> None:
    boxes = [(0, 0, 10, 10), (4, 0, 14, 10)]  # IoU 0.43
    records = records_of([(box, 0.9, CAT) for box in boxes], [(box, CAT) for box in boxes])
    assert suspects(records, RECALLS, LEARNED) == []


def test_crowds_are_not_doubted_and_what_lies_on_them_is_not_overlooked() -> None:
    records = records_of([((0, 0, 10, 10), 0.9, CAT)], [((0, 0, 20, 10), DOG)], crowd=[0])
    assert suspects(records, RECALLS, LEARNED) == []


def test_what_lies_in_a_large_crowd_of_its_class_is_not_doubted() -> None:
    """It overlaps the region by 1 % of its area, and a label of another class by all of it."""
    objects = [((0, 0, 100, 100), CAT), ((40, 40, 50, 50), DOG)]
    rows = [((10, 10, 20, 20), 0.9, CAT), ((40, 40, 50, 50), 0.8, CAT), ((40, 40, 50, 50), 0.7, DOG)]
    assert suspects(records_of(rows, objects, crowd=[0]), RECALLS, LEARNED) == []
    # Without the flag the first is "no label", the second "other class"; a dog that lies there counts as before.
    assert len(suspects(records_of(rows, objects[1:]), RECALLS, LEARNED)) == 2
    (dog,) = suspects(records_of([*rows, ((70, 70, 80, 80), 0.6, DOG)], objects, crowd=[0]), RECALLS, LEARNED)
    assert (dog.kind, dog.detection) == (Doubt.OVERLOOKED, 3)


def test_a_place_without_a_label_is_named_once() -> None:
    rows = [((0, 0, 10, 10), 0.9, CAT), ((0, 0, 10, 8), 0.8, DOG), ((0, 6, 10, 16), 0.7, DOG)]  # IoU 0.8 and 0.25
    assert [suspect.detection for suspect in suspects(records_of(rows, []), RECALLS, LEARNED)] == [0, 2]


def test_a_place_is_where_the_masks_overlap() -> None:
    """Two triangles that share a diagonal: their boxes are one, their masks nearly apart."""
    low = np.tri(10, 10, dtype=np.bool_)
    masks = np.zeros((2, 20, 20), dtype=np.bool_)
    masks[0, :10, :10], masks[1, :10, :10] = low, low.T
    rows = [((0, 0, 10, 10), 0.9, CAT), ((0, 0, 10, 10), 0.8, CAT)]
    label, mask = [((15, 15, 20, 20), DOG)], np.zeros((1, 20, 20), dtype=np.bool_)
    mask[0, 15:, 15:] = True
    records = MaskRecords.of_image(7, found(rows, masks), truth(label, masks=mask))
    kinds = [
        [suspect.detection for suspect in suspects(records, RECALLS, LEARNED, of) if suspect.kind is Doubt.OVERLOOKED]
        for of in IOU_TYPES
    ]
    assert kinds == [[0], [0, 1]]


def test_classes_that_are_not_learned_say_nothing() -> None:
    rows = [((0, 0, 10, 10), 0.9, CAT), ((20, 0, 30, 10), 0.9, DOG)]
    (cat,) = suspects(records_of(rows, []), RECALLS, np.array([True, False]))
    assert cat.detection == 0


def test_an_image_without_detections_or_without_labels() -> None:
    (nothing,) = suspects(records_of([], [((0, 0, 10, 10), DOG)]), RECALLS, LEARNED)
    assert (nothing.kind, nothing.doubt) == (Doubt.NOTHING, 0.4)
    (overlooked,) = suspects(records_of([((0, 0, 10, 10), 0.6, DOG)], []), RECALLS, LEARNED)
    assert (overlooked.kind, round(overlooked.doubt, 5)) == (Doubt.OVERLOOKED, 0.6)
    assert suspects(records_of([], []), RECALLS, LEARNED) == []
