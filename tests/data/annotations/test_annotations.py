"""Regions by hand and their errors (test_codecs.py compares random ones with pycocotools); issues; too small boxes."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.config.schema.data import AugmentationConfig
from detseg.data.annotations.collect import AnnotationCollector
from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.model import PackedAnnotations, pack_images, region_counts
from detseg.data.annotations.report import DataReport, small_boxes_line
from detseg.data.augment.geometry import AugmentItem
from detseg.data.augment.pipeline import TrainTransform
from detseg.structures import InstanceMasks


def test_the_same_id_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="image ids must differ"):
        pack_images(["a.jpg", "b.jpg"], [1, 1])


def test_cases_are_counted_and_places_kept_once() -> None:
    report = DataReport()
    assert (report.lines(), report.count(DataIssue.NO_AREA), report.examples(DataIssue.NO_AREA)) == ([], 0, [])
    report.add(DataIssue.NO_AREA, "a.xml", 2)
    for name in ("b.xml", "a.xml"):
        report.add(DataIssue.NO_AREA, name)
    report.note("a note")
    assert report.lines() == [
        "a note",
        "boxes without area (left out of training, unless masks are learned): 4 (a.xml, b.xml)",
    ]
    report = DataReport()  # only the first five places are named
    for number in range(100):
        report.add(DataIssue.NO_OBJECTS, str(number))
    for number in range(5):
        report.add(DataIssue.CROWD, str(number))
    line, exactly_five = report.lines()
    assert line == "images without objects (kept, as background): 100 (0, 1, 2, 3, 4, ...)"
    assert exactly_five.endswith("5 (0, 1, 2, 3, 4)")


Image = tuple[tuple[int, int], list[list[float]]]


def of_images(*images: Image, difficult: Container[int] = ()) -> PackedAnnotations:
    """Images i.png by (height, width) and boxes; the objects of the images in ``difficult`` are difficult."""
    collector = AnnotationCollector(Path(), ["thing"])
    for index, (hw, boxes) in enumerate(images):
        collector.add_image(f"{index}.png", hw)
        for box in boxes:
            collector.add_object("thing", box, difficult=index in difficult)
    return collector.pack(None, DataReport(), masks=False, strict=False)[0]


def test_the_line_has_count_fraction_files_and_fix_where_boxes_are_too_small() -> None:
    thin, whole = [0, 0, 500, 31], [100, 100, 132, 132]  # 31 / 16 and 32 / 16 = 2 pixels
    outside = [2000, 2000, 2010, 2010]  # never trained on
    large: Image = ((1024, 1024), [whole, thin])
    images: list[Image] = [((1024, 1024), []), large, ((50, 64), [[1, 1, 3, 3], [0, 0, 1.5, 9]]), large, large]
    images += [((1024, 1024), [thin]), ((1024, 1024), [whole, outside])]
    assert small_boxes_line(of_images(*images, difficult={5}), (64, 64), 2.0) == (
        "4 of 9 objects (44.4%) have a side below data.augmentation.min_box_size = 2 pixels in the network input of "
        "64 x 64 and are not trained on unless augmentation enlarges them (1.png, 2.png, 3.png); raise "
        "data.image_size or lower data.augmentation.min_box_size"
    )
    for nothing in (of_images(((1024, 1024), [[0, 0, 31, 31]]), difficult={0}), of_images()):
        assert small_boxes_line(nothing, (64, 64), 2.0) is None


def test_it_counts_what_training_without_augmentation_drops() -> None:
    rng = np.random.default_rng(0)
    images: list[Image] = []
    transform = TrainTransform(AugmentationConfig(horizontal_flip=0.0))
    kept = 0
    for _ in range(40):
        height, width = rng.integers(100, 400, 2).tolist()
        corners = rng.uniform(0, 0.9, (6, 2)) * (width, height)
        boxes = np.concatenate([corners, corners + rng.integers(1, 20, (6, 2))], axis=1)
        images.append(((height, width), boxes.tolist()))
        blank = np.zeros((height, width, 3), dtype=np.uint8)
        item = AugmentItem(blank, boxes.astype(np.float32), np.zeros(6, dtype=np.int64), np.zeros(6, dtype=np.bool_))
        kept += len(transform(item, (96, 64), rng).boxes)
    assert 60 < kept < 200
    line = small_boxes_line(of_images(*images), (96, 64), 2.0)
    assert line is not None
    assert line.startswith(f"{240 - kept} of 240 objects")


HW = (6, 8)


def filled(*segmentations: object, hw: tuple[int, int] = HW) -> list[np.ndarray[Any, Any]]:
    return list(InstanceMasks(hw, tuple(region_counts(segmentation, hw) for segmentation in segmentations)).dense())


def test_a_rectangle_and_a_union() -> None:
    square, two = filled([[1, 2, 4, 2, 4, 5, 1, 5]], [[0, 0, 2, 0, 2, 1, 0, 1], [6, 5, 8, 5, 8, 6, 6, 6]])
    expected = np.zeros(HW)
    expected[2:5, 1:4] = 1
    assert np.array_equal(square, expected)
    expected[:] = 0
    expected[0, :2] = expected[5, 6:] = 1
    assert np.array_equal(two, expected)
    (runs,) = filled({"size": [2, 3], "counts": [1, 2, 3]}, hw=(2, 3))
    assert runs.tolist() == [[0, 1, 0], [1, 0, 0]]  # down the columns


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], r"expected polygons or run lengths, got \[\]"),
        ("abc", "expected polygons or run lengths, got 'abc'"),
        ([1, 2, 3, 4, 5, 6], r"^expected a list .*got one flat list of numbers; put it in brackets$"),
        ([[[1, 2], [3, 4], [5, 6]]], r"got one of points \[\[x, y\], \.\.\.\]; write its numbers one after the other$"),
        ([1, [2, 3, 4, 5, 6, 7]], r"expected a list of polygons \[\[x, y, x, y, \.\.\.\], \.\.\.\], got 1 in it"),
        ([[1, 2, 3, "4", 5, 6]], r"expected a list of polygons .*, got \[1, 2, 3, '4'"),
        ([[1, 2, 3, 4]], "at least 3 corners, got 4 numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "at least 3 corners, got 7 numbers"),
        ([[1, 2, 3, True, 5, 6]], r"expected a list of polygons .*, got \[1, 2, 3, True"),
        ([[1, 2, 3, float("nan"), 5, 6]], "corners of a polygon"),
        ([[1, 2, 3, 1e300, 5, 6]], "more than 1000000 pixels away"),
        ([[0, 0, 5, 0, 10**400, 5]], "corners of a polygon"),  # an OverflowError of ``math.fsum``, found by fuzzing
        ({"size": [6, 8], "counts": [-(10**30), 48]}, "counts: expected run lengths"),  # and of numpy
        ({"size": [8, 6], "counts": [48]}, r"size: expected .* \[height, width\] = \[6, 8\], got \[8, 6\]"),
        ({"counts": [48]}, "size: expected that of the image, .* got None"),
        *(
            ({"size": [6, 8], "counts": counts}, message)
            for counts, message in (
                (None, "expected run lengths, a list of whole numbers or a compressed string, got None"),
                ([], "expected run lengths"),
                ([6.0, 42.0], r"whole numbers or a compressed string, got \[6\.0, 42\.0\]"),
                ([40], "must add up to 6 x 8 pixels, got 40"),
                ([50, -2], "must add up to 6 x 8 pixels"),
                ("", "not a string of compressed run lengths"),
                ("é", "expected run lengths"),
                ("~~", "not a string of compressed run lengths"),
                ("P", "cut short"),
                ("ooooooooooo0", "too long"),
                ("08", "must add up to 6 x 8 pixels, got 8"),  # pycocotools leaves the rest unset
            )
        ),
    ],
)
def test_what_cannot_be_filled(segmentation: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        region_counts(segmentation, HW)
