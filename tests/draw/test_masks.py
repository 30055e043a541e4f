"""Masks on pictures: which pixels change, in whose colour, and how neighbours are told apart; and label maps."""

from __future__ import annotations

import numpy as np
import pytest

from detseg.draw import class_color, draw_boxes, draw_semantic
from detseg.draw import paint_instances as paint
from detseg.structures import BoolArray, InstanceMasks, UInt8Array

GREY = 90


def grey(height: int, width: int) -> UInt8Array:
    return np.full((height, width, 3), GREY, np.uint8)


def paint_instances(image: UInt8Array, masks: InstanceMasks, labels: list[int], scale: int = 1) -> UInt8Array:
    return paint(image, masks, [class_color(label) for label in labels], scale)


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
    assert is_line(picture, 0)[1500].sum() == 2 * 9  # sqrt(4000 * 3000) / 400 = 8.7 on either side
    assert is_line(picture, 0)[:, 1500].sum() == 2 * 9
    once, twice = (paint_instances(grey(20, 30), rectangles((20, 30), (5, 5, 15, 15)), [0], scale) for scale in (1, 2))
    assert is_line(once, 0)[10].sum() == is_line(twice, 0)[20].sum() == 2  # drawn on the enlarged image


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


def test_names_that_would_cover_the_masks_are_left_out() -> None:
    corners = [(20 * (i % 10), 20 * (i // 10), 20 * (i % 10) + 15, 20 * (i // 10) + 15) for i in range(100)]
    masks = rectangles((200, 200), *corners)
    boxes = np.array(corners, dtype=np.float64)
    picture = draw_boxes(grey(200, 200), boxes, [0] * 100, ["nucleus"], [0.5] * 100, masks, scale=1)
    inside = masks.dense().any(axis=0)
    np.testing.assert_array_equal((picture != GREY).any(axis=2), inside)
    few = masks.select([0, 55])
    named = draw_boxes(grey(200, 200), boxes[[0, 55]], [0, 0], ["nucleus"], [0.5, 0.5], few, scale=1)
    assert ((named != GREY).any(axis=2) & ~few.dense().any(axis=0)).any()  # where there is room they are written


def test_boxes_and_names_lie_on_masks() -> None:
    box, masks = [[40.0, 60.0, 160.0, 180.0]], rectangles((200, 200), (40, 60, 160, 180))
    picture = draw_boxes(grey(200, 200), box, [1], ["a", "b"], [0.9], masks, scale=1)
    assert picture[120, 100].tolist() == tinted(1)
    without = draw_boxes(grey(200, 200), box, [1], ["a", "b"], [0.9], scale=1)
    assert (picture[:60] != GREY).any()
    np.testing.assert_array_equal(picture[:60], without[:60])  # where only the name is


def test_colours_are_blended_and_ignored_pixels_are_left_alone() -> None:
    labels = np.array([[0, 1, 255]], dtype=np.uint8)
    image, (red, blue) = np.full((1, 3, 3), 100, np.uint8), (np.array(class_color(label)) for label in (0, 1))
    drawn = draw_semantic(image, labels, ["a", "b"], scale=1)[0].astype(float)
    np.testing.assert_allclose(drawn[:2], [red / 2 + 50, blue / 2 + 50], rtol=0, atol=0.5)
    assert (drawn[2] == 100).all()
    assert (image == 100).all()


def test_a_class_called_background_stays_as_it_is_and_takes_no_colour() -> None:
    labels = np.array([[1, 0, 255]], dtype=np.uint8)
    with_background = draw_semantic(grey(1, 3), labels, ["background", "thing"], scale=1)
    np.testing.assert_array_equal(with_background[0, 1], [GREY] * 3)
    thing = draw_semantic(grey(1, 1), np.zeros((1, 1), np.uint8), ["thing"], scale=1)
    np.testing.assert_array_equal(with_background[0, 0], thing[0, 0])


def test_classes_are_parted_by_darker_lines_in_large_pictures_only() -> None:
    labels = np.zeros((1000, 1400), dtype=np.uint8)
    labels[:, 700:] = 1
    row = draw_semantic(grey(1000, 1400), labels, ["a", "b"])[500].astype(int).sum(axis=1)
    assert set(row[:698]) == {row[0]}  # two pixels of line at this size
    assert set(row[700:]) == {row[-1]}
    assert (row[698:700] < row[0] - 50).all()
    small = draw_semantic(grey(100, 140), labels[::10, ::10], ["a", "b"], scale=1)[50]
    assert len(np.unique(small, axis=0)) == 2
    assert len(np.unique(draw_semantic(grey(100, 140), labels[::10, ::10], ["a", "b"])[150], axis=0)) == 3


@pytest.mark.parametrize(
    ("image", "labels", "message"),
    [
        (grey(4, 6), np.zeros((6, 4), np.uint8), "height 4 and width 6, got 6 and 4"),
        (grey(4, 6), np.zeros((4, 6), np.int64), "labels: expected uint8 of shape .* got int64"),
        (grey(4, 6), np.zeros((4, 6, 1), np.uint8), r"labels: expected uint8 of shape \(H, W\)"),
        (grey(4, 6)[..., 0], np.zeros((4, 6), np.uint8), "image: expected uint8"),
        (grey(4, 6), np.full((4, 6), 2, np.uint8), "label 2 has no name: expected 0 to 1"),
    ],
)
def test_wrong_maps_are_named(image: UInt8Array, labels: UInt8Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_semantic(image, labels, ["a", "b"])
