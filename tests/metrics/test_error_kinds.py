"""Kinds of errors and what they cost: by hand, and as the package ``tidecv`` has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.coco_records import as_coco
from detseg.metrics.error_kinds import ErrorKind, ErrorKinds, error_kinds
from detseg.metrics.records import DetectionRecords
from detseg.structures import ClassTable
from tests.metrics.builders import Box, Case, found, truth

NUMBERS = Path(__file__).parent / "tide_numbers.json"
"""Case → tidecv's numbers, by benchmarks/peers/tide_numbers.py."""

CASES = {
    f"{'masks' if seed % 3 == 0 else 'boxes'} {seed}": Case(
        seed,
        num_images=8,
        num_objects=40,
        num_detections=150,
        num_classes=4,
        grid=8.0 if seed % 2 else 0.0,
        num_scores=1000 if seed % 4 else 5,
    )
    for seed in range(12)
}
NAMES = {"Loc": "location", "Cls": "class", "Dupe": "duplicate", "Bkg": "background", "Both": "class and location"}
NAMES |= {"Miss": "missed"}
CAT_AND_DOG = ClassTable(("cat", "dog"))


def records_of(case: Case, masks: bool) -> DetectionRecords:
    records = case.mask_records() if masks else case.records()
    return type(records).concatenate([records])  # by image id


def as_files(case: Case, folder: Path) -> tuple[Path, Path]:
    """A case as COCO's files, with polygons where there are no masks, since tidecv wants some."""
    objects, detections = as_coco(records_of(case, masks=case.seed % 3 == 0), case.classes)
    for entry in objects["images"]:
        entry |= {"file_name": "none", "width": 1000, "height": 1000} | entry
    for entry in (*objects["annotations"], *detections["annotations"]):
        mask = entry.get("segmentation")
        entry["segmentation"] = [[0, 0, 1, 0, 1, 1]] if mask is None else {**mask, "counts": mask["counts"].decode()}
    keys = ("image_id", "category_id", "bbox", "score", "segmentation")
    results = [{key: entry[key] for key in keys} for entry in detections["annotations"]]
    paths = folder / "truth.json", folder / "results.json"
    for path, content in zip(paths, (objects, results), strict=True):
        path.write_text(json.dumps(content, default=int))
    return paths


def compare(found: ErrorKinds, expected: dict[str, Any]) -> None:
    assert found.ap50 * 100 == pytest.approx(expected["AP50"], abs=1e-9)
    gains = expected["gains"]
    for theirs, ours in NAMES.items():
        assert found.gains[ErrorKind(ours)] * 100 == pytest.approx(gains[theirs], abs=1e-9), ours
        assert found.counts[ErrorKind(ours)] == expected["counts"][theirs], ours
    assert found.false_positive_gain * 100 == pytest.approx(gains["FalsePos"], abs=1e-9)
    assert found.false_negative_gain * 100 == pytest.approx(gains["FalseNeg"], abs=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_random_cases_as_tidecv_has_them(name: str) -> None:
    """Crowd regions, ties of scores and IoUs, classes without objects or detections."""
    case, masks = CASES[name], "masks" in name
    found = error_kinds(records_of(case, masks), case.classes, iou_type="segm" if masks else "bbox")
    compare(found, json.loads(NUMBERS.read_text())[name])


def of_image(detections: list[tuple[Box, float, int]], objects: list[tuple[Box, int]], **flags: Any) -> ErrorKinds:
    one = DetectionRecords.of_image(1, found(detections), truth(objects, **flags))
    return error_kinds(DetectionRecords.concatenate([one]), CAT_AND_DOG)


@pytest.mark.parametrize(
    ("box", "label", "kind", "about"),
    [
        ((0, 0, 10, 4), 0, "location", 0),  # IoU 0.4 with the cat
        ((40, 0, 50, 10), 0, "class", 1),  # on the dog
        ((0, 0, 10, 9), 0, "duplicate", 0),  # on the cat, which is found
        ((70, 0, 80, 10), 0, "background", -1),
        ((40, 0, 50, 4), 0, "class and location", 1),  # IoU 0.4 with the dog
    ],
)
def test_each_kind(box: Box, label: int, kind: str, about: int) -> None:
    """A cat that is found, with AP 1; a dog that is not; and a wrong detection of a higher score: AP of the cat 0.5."""
    errors = of_image([((0, 0, 10, 10), 0.5, 0), (box, 0.9, label)], [((0, 0, 10, 10), 0), ((40, 0, 50, 10), 1)])
    if kind in ("location", "duplicate"):  # it takes the cat, and the other one is wrong
        errors = of_image([((0, 0, 10, 10), 0.95, 0), (box, 0.9, label)], [((0, 0, 10, 10), 0), ((40, 0, 50, 10), 1)])
    assert [list(ErrorKind)[k] if k >= 0 else "right" for k in errors.kinds] == ["right", kind]
    assert errors.objects.tolist() == [0, about]
    assert errors.missed.tolist() == [False, True]
    assert errors.counts[ErrorKind.MISSED] == (kind != "class")
    assert errors.ap50 == pytest.approx(0.5 if kind in ("location", "duplicate") else 0.25)  # of the dog 0
    expected = 0.75 if kind == "class" else 0.5 if kind in ("location", "duplicate") else 0.25
    assert errors.gains[ErrorKind(kind)] == pytest.approx(expected - (0.5 if expected == 0.5 else 0))


def test_what_is_in_a_crowd_is_no_error() -> None:
    errors = of_image([((0, 0, 10, 10), 0.9, 0)], [((0, 0, 40, 40), 0), ((0, 0, 50, 50), 1)], crowd=[0])
    assert errors.ignored.tolist() == [True]


def test_only_the_best_of_an_image_count() -> None:
    rows = [((0.0, 0.0, 10.0, 10.0), score, 0) for score in (0.1, 0.9, 0.5)]
    one = DetectionRecords.of_image(1, found(rows), truth([((0, 0, 10, 10), 0)]))
    errors = error_kinds(DetectionRecords.concatenate([one]), CAT_AND_DOG, max_detections=2)
    assert errors.kinds.tolist() == [-2, -1, list(ErrorKind).index(ErrorKind.DUPLICATE)]


def test_nothing_at_all() -> None:
    empty = error_kinds(DetectionRecords.concatenate([]), CAT_AND_DOG)
    assert np.isnan(empty.ap50)
    assert set(empty.counts.values()) == {0}
    nothing_found = of_image([], [((0, 0, 10, 10), 0)])
    assert nothing_found.counts[ErrorKind.MISSED] == 1
    assert np.isnan(nothing_found.gains[ErrorKind.MISSED])  # without it there is nothing left to find
