"""Masks on pictures: which pixels change, in whose colour, and how neighbours are told apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detseg.draw import class_color, draw_boxes, draw_detections
from detseg.draw.instances import paint_instances
from detseg.structures import BoolArray, ClassTable, DetectorOutput, InstanceMasks, UInt8Array

GREY = 90


def grey(height: int, width: int) -> UInt8Array:
    return np.full((height, width, 3), GREY, np.uint8)


def rectangles(hw: tuple[int, int], *corners: tuple[int, int, int, int]) -> InstanceMasks:
    dense = np.zeros((len(corners), *hw), dtype=np.bool_)
    for mask, (x1, y1, x2, y2) in zip(dense, corners, strict=True):
        mask[y1:y2, x1:x2] = True
    return InstanceMasks.from_dense(dense)


def tinted(label: int) -> list[int]:
    """45 % of the colour of a class over 55 % of the grey."""
    return [round(0.45 * value + 0.55 * GREY) for value in class_color(label)]


def is_line(picture: UInt8Array, label: int) -> BoolArray:
    lines: BoolArray = (picture == class_color(label)).all(axis=2)
    return lines


def test_exactly_the_pixels_of_the_masks_change() -> None:
    masks = InstanceMasks.from_dense(np.random.default_rng(0).random((3, 40, 50)) < 0.2)
    image = grey(40, 50)
    picture = paint_instances(image, masks, [0, 1, 2])
    np.testing.assert_array_equal((picture != GREY).any(axis=2), masks.dense().any(axis=0))
    assert (image == GREY).all()


def test_translucent_inside_and_outlined_in_the_colour_of_the_class() -> None:
    picture = paint_instances(grey(60, 80), rectangles((60, 80), (10, 20, 40, 50)), [3])
    assert picture[35, 25].tolist() == tinted(3)
    ring = np.zeros((60, 80), dtype=np.bool_)
    ring[20:50, 10:40] = True
    ring[21:49, 11:39] = False
    np.testing.assert_array_equal(is_line(picture, 3), ring)


def test_lines_grow_with_the_picture() -> None:
    picture = paint_instances(grey(3000, 4000), rectangles((3000, 4000), (1000, 1000, 2000, 2000)), [0])
    assert is_line(picture, 0)[1500].sum() == 2 * 5  # sqrt(4000 * 3000) / 640 = 5.4 on either side
    assert is_line(picture, 0)[:, 1500].sum() == 2 * 5


def test_the_border_of_the_picture_is_no_outline() -> None:
    assert not is_line(paint_instances(grey(20, 30), rectangles((20, 30), (0, 0, 30, 20)), [0]), 0).any()


def test_touching_objects_of_one_class_are_told_apart() -> None:
    picture = paint_instances(grey(40, 60), rectangles((40, 60), (10, 10, 30, 30), (30, 10, 50, 30)), [0, 0])
    assert is_line(picture, 0)[20, [29, 30]].all()  # a line between them
    assert picture[20, 20].tolist() != picture[20, 40].tolist()  # and another shade


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_small_object_shows_on_a_large_one(order: tuple[int, int]) -> None:
    corners = ((0, 0, 60, 40), (20, 10, 30, 20))
    masks = rectangles((40, 60), *(corners[i] for i in order))
    picture = paint_instances(grey(40, 60), masks, list(order))
    assert picture[15, 25].tolist() == tinted(1)
    assert picture[5, 5].tolist() == tinted(0)


def test_blocks_of_rows_do_not_show() -> None:
    masks = rectangles((700, 40), (5, 100, 35, 690), (5, 256, 20, 512))  # edges where blocks of 256 rows meet
    picture = paint_instances(grey(700, 40), masks, [0, 1])
    expected = np.zeros((700, 40), dtype=np.bool_)
    expected[256:512, 5:20] = True
    expected[257:511, 6:19] = False
    np.testing.assert_array_equal(is_line(picture, 1), expected)
    assert is_line(picture, 0)[[255, 512], 6:20].all()


def test_no_masks_and_empty_masks_change_nothing() -> None:
    image = grey(20, 30)
    assert (paint_instances(image, InstanceMasks((20, 30), ()), []) == GREY).all()
    assert (paint_instances(image, rectangles((20, 30), (5, 5, 5, 5)), [0]) == GREY).all()
    assert (paint_instances(grey(1, 1), rectangles((1, 1), (0, 0, 1, 1)), [0]) != GREY).any()


def test_more_objects_than_a_byte_counts() -> None:
    corners = [(3 * (i % 20) + 1, 3 * (i // 20) + 1, 3 * (i % 20) + 3, 3 * (i // 20) + 3) for i in range(300)]
    picture = paint_instances(grey(62, 62), rectangles((62, 62), *corners), [i % 2 for i in range(300)])
    assert is_line(picture, 0).sum() == is_line(picture, 1).sum() == 150 * 4


@pytest.mark.parametrize(
    ("hw", "labels", "message"),
    [
        ((20, 31), [0], "masks: expected the size of the image, height 20 and width 30, got 20 and 31"),
        ((20, 30), [0, 1], "masks: expected one for each of 2 labels, got 1"),
    ],
)
def test_masks_fit_the_picture(hw: tuple[int, int], labels: list[int], message: str) -> None:
    masks = rectangles(hw, (1, 1, 5, 5))
    with pytest.raises(ValueError, match=message):
        paint_instances(grey(20, 30), masks, labels)
    with pytest.raises(ValueError, match=message):
        draw_boxes(grey(20, 30), [[1, 1, 5, 5]] * len(labels), labels, ["a", "b"], masks=masks)


def test_boxes_and_names_lie_on_masks() -> None:
    masks = rectangles((200, 200), (40, 60, 160, 180))
    box = [[40.0, 60.0, 160.0, 180.0]]
    found = DetectorOutput(torch.tensor(box), torch.tensor([0.9]), torch.tensor([1]), ClassTable(("a", "b")), masks)
    picture = found.draw(grey(200, 200))
    np.testing.assert_array_equal(picture, draw_detections(grey(200, 200), found))
    np.testing.assert_array_equal(picture, draw_boxes(grey(200, 200), box, [1], ["a", "b"], [0.9], masks))
    assert picture[120, 100].tolist() == tinted(1)
    above = picture[:60]  # where only the name is
    assert (above != GREY).any()
    without = draw_boxes(grey(200, 200), box, [1], ["a", "b"], [0.9])
    np.testing.assert_array_equal(above, without[:60])
    assert (found.draw(grey(200, 200), score_threshold=0.95) == GREY).all()


def test_names_that_would_cover_the_masks_are_left_out() -> None:
    corners = [(20 * (i % 10), 20 * (i // 10), 20 * (i % 10) + 15, 20 * (i // 10) + 15) for i in range(100)]
    masks = rectangles((200, 200), *corners)
    boxes = np.array(corners, dtype=np.float64)
    picture = draw_boxes(grey(200, 200), boxes, [0] * 100, ["nucleus"], [0.5] * 100, masks)
    inside = masks.dense().any(axis=0)
    np.testing.assert_array_equal((picture != GREY).any(axis=2), inside)
    named = draw_boxes(grey(200, 200), boxes, [0] * 100, ["nucleus"], [0.5] * 100)
    assert ((named != GREY).any(axis=2) & ~inside).any()  # without masks they are written
