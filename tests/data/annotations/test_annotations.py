"""Packing gives back what went in (loader processes are in test_coco.py); the report of issues; too small boxes."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import pytest

from detseg.config.schema.data import AugmentationConfig
from detseg.data.annotations.issues import DataIssue, DataReport, small_boxes_line
from detseg.data.annotations.model import PackedAnnotations, pack_annotations, pack_images
from detseg.data.augment.geometry import AugmentItem
from detseg.data.augment.pipeline import TrainTransform
from detseg.structures import ImageAnnotations


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
    assert report.lines() == ["a note", "boxes without area (left out of training): 4 (a.xml, b.xml)"]
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
    truths = []
    for index, (_, rows) in enumerate(images):
        boxes, no = np.array(rows, dtype=np.float64).reshape(-1, 4), np.zeros(len(rows), dtype=np.bool_)
        flags = no, no | (index in difficult), no
        truths.append(ImageAnnotations(boxes, no.astype(np.int64), *flags, no.astype(float)))
    paths = [f"{index}.png" for index in range(len(images))]
    return pack_annotations(pack_images(paths), [hw for hw, _ in images], truths)


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
