"""Packing gives back what went in (loader processes are in test_coco.py); the report of issues; too small boxes."""

from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np
import pytest

from detseg.config.schema.data import AugmentationConfig
from detseg.data.annotations.issues import DataIssue, DataReport, small_boxes_line
from detseg.data.annotations.model import PackedAnnotations, no_objects, pack_annotations, pack_images, training_boxes
from detseg.data.augment.geometry import AugmentItem
from detseg.data.augment.pipeline import TrainTransform
from detseg.structures import ImageAnnotations


def objects(boxes: Sequence[Sequence[float]], labels: Sequence[int]) -> ImageAnnotations:
    count = len(labels)
    return ImageAnnotations(
        boxes=np.array(boxes, dtype=np.float64),
        labels=np.array(labels, dtype=np.int64),
        crowd=np.arange(count) == 0,
        difficult=np.arange(count) == 1,
        truncated=np.arange(count) == 2,
        area=np.arange(count) + 0.5,
    )


@pytest.fixture
def packed() -> PackedAnnotations:
    images = pack_images(["a/ü.jpg", "b.jpg", "c.jpg"], [7, 2**40, 5])
    first = objects([[0, 1, 2, 3], [4.5, 5, 6, 7]], [3, 1])
    third = objects([[1, 1, 2, 2], [2, 2, 3, 3], [3, 3, 4, 4]], [0, 0, 2])
    return pack_annotations(images, [(10, 20), (30, 40), (50, 60)], [first, no_objects(), third])


def test_each_image_comes_back(packed: PackedAnnotations) -> None:
    assert len(packed) == 3
    assert [packed.path(i) for i in range(3)] == ["a/ü.jpg", "b.jpg", "c.jpg"]
    assert [packed.hw(i) for i in range(3)] == [(10, 20), (30, 40), (50, 60)]
    assert packed.image_ids.tolist() == [7, 2**40, 5]
    first, second, third = (packed.image(i) for i in range(3))
    assert first.boxes.tolist() == [[0, 1, 2, 3], [4.5, 5, 6, 7]]
    assert first.labels.tolist() == [3, 1]
    assert second.boxes.shape == (0, 4)
    assert third.crowd.tolist() == [True, False, False]
    assert third.difficult.tolist() == [False, True, False]
    assert third.truncated.tolist() == [False, False, True]
    assert third.area.tolist() == [0.5, 1.5, 2.5]
    assert third.ignore.tolist() == [True, True, False]
    assert np.shares_memory(third.boxes, packed.boxes)  # views


def test_the_same_id_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="image ids must differ"):
        pack_images(["a.jpg", "b.jpg"], [1, 1])


def test_training_boxes_are_clipped_and_those_without_area_marked() -> None:
    boxes = np.array(
        [
            [2.0, 3.0, 8.0, 9.0],  # inside
            [-5.0, -1.0, 25.0, 12.0],  # larger than the image of 20 x 10 on every side
            [4.0, 4.0, 4.0, 9.0],  # no width
            [9.0, 4.0, 5.0, 9.0],  # corners swapped
            [21.0, 0.0, 30.0, 5.0],  # right of the image
            [5.0, 5.0, 5.0 + 1e-9, 9.0],  # no width left in float32
        ]
    )
    clipped, keep = training_boxes(boxes, (10, 20))
    assert clipped.dtype == np.float32
    assert clipped[:2].tolist() == [[2, 3, 8, 9], [0, 0, 20, 10]]
    assert keep.tolist() == [True, True, False, False, False, False]
    clipped, _ = training_boxes(boxes[[1, 1]], np.array([[10, 20], [11, 22]]))  # one size a box
    assert clipped.tolist() == [[0, 0, 20, 10], [0, 0, 22, 11]]


def test_cases_are_counted_and_places_kept_once() -> None:
    report = DataReport()
    assert report.lines() == []
    assert (report.count(DataIssue.NO_AREA), report.examples(DataIssue.NO_AREA)) == (0, [])
    report.add(DataIssue.NO_AREA, "a.xml", 2)
    report.add(DataIssue.NO_AREA, "b.xml")
    report.add(DataIssue.NO_AREA, "a.xml")
    report.note("a note")
    assert report.lines() == ["a note", "boxes without area (left out of training): 4 (a.xml, b.xml)"]


def test_only_the_first_five_places_are_named() -> None:
    report = DataReport()
    report.add_all(DataIssue.NO_OBJECTS, list(range(100)))
    for number in range(5):
        report.add(DataIssue.CROWD, f"{number}")
    line, exactly_five = report.lines()
    assert line == "images without objects (kept, as background): 100 (0, 1, 2, 3, 4, ...)"
    assert exactly_five.endswith("5 (0, 1, 2, 3, 4)")
    assert report.examples(DataIssue.NO_OBJECTS) == ["0", "1", "2", "3", "4"]


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
    image = of_images(((1024, 1024), [[0, 0, 31, 31]]))
    assert small_boxes_line(image, (96, 128), 2.95) is not None  # 96 rows: 31 * 96 / 1024 = 2.906 pixels
    assert small_boxes_line(image, (96, 128), 2.9) is None
    assert small_boxes_line(image, (64, 64), 0.0) is None
    for nothing in (of_images(((1024, 1024), [[0, 0, 31, 31]]), difficult={0}), of_images(((10, 10), [])), of_images()):
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
