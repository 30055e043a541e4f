"""What draw puts on a picture: where, in which colour, and that every label stays inside and says its class."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from PIL import ImageFont

from detseg.draw import class_color, class_colors, draw_boxes, draw_detection_errors
from detseg.draw import classes as lettering
from detseg.draw.classes import ERROR_COLORS
from detseg.structures import UInt8Array

GREY = 90


def grey(height: int, width: int) -> UInt8Array:
    return np.full((height, width, 3), GREY, np.uint8)


def changed(picture: UInt8Array) -> np.ndarray:
    """(H, W) bool: the pixels that were drawn on, in a picture that was grey."""
    mask: np.ndarray = (picture != GREY).any(axis=2)
    return mask


def test_a_box_is_outlined_on_its_own_pixels() -> None:
    picture = draw_boxes(grey(200, 200), [[50, 80, 150, 180]], [0], ["a"], scale=1)
    below = changed(picture)[100:]  # rows that the label does not reach
    rows, columns = np.nonzero(below)
    assert (rows.max() + 100, columns.min(), columns.max()) == (179, 50, 149)  # half-open: 180 and 150 stay free
    assert picture[120, 50].tolist() == list(class_color(0))
    assert not below[10:-30, 60:140].any()  # only an outline
    assert changed(picture)[:80].any()
    plain = draw_boxes(grey(200, 200), [[50, 80, 150, 180]], [0], ["a"], scale=1, named=False)
    assert not changed(plain)[:80].any()


def test_the_picture_passed_in_is_not_changed() -> None:
    image = grey(50, 50)
    image.flags.writeable = False
    picture = draw_boxes(image, [[5, 20, 40, 40]], [0], ["a"], scale=1)
    assert not changed(image).any()
    assert changed(picture).any()
    assert picture.shape == (50, 50, 3)
    assert picture.dtype == np.uint8


def test_a_name_too_long_for_the_picture_keeps_its_score() -> None:
    font, text = lettering._fit("a name that goes on and on and on and on", " 0.87", 12, 100)
    assert text.startswith("a name")
    assert text.endswith("... 0.87")
    assert font.getlength(text) <= 100


def strips(picture: UInt8Array, label: int = 0) -> np.ndarray:
    """(H, W) bool: the pixels in the colour of a class, its outlines thinned away, so that filled strips are left."""
    own = (picture == class_color(label)).all(axis=2).astype(np.uint8)
    return cv2.morphologyEx(own, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)).astype(bool)


@pytest.mark.parametrize("corner", [(0, 0), (560, 0), (0, 560), (560, 560), (280, 3)])
def test_labels_are_whole_and_inside_the_picture(corner: tuple[int, int]) -> None:
    def area(x: int, y: int) -> int:
        name = "a name of a class"
        return int(strips(draw_boxes(grey(600, 600), [[x, y, x + 40, y + 40]], [0], [name], [0.5], scale=1)).sum())

    assert area(*corner) >= 0.98 * area(300, 300)


def test_labels_of_neighbours_cover_each_other_only_where_there_is_no_room() -> None:
    boxes = [[100, 100 + 4 * i, 300, 300 + 4 * i] for i in range(3)]
    one = strips(draw_boxes(grey(500, 500), boxes[:1], [0], ["name"], [0.5])).sum()
    picture = draw_boxes(grey(500, 500), boxes, [0] * 3, ["name"], [0.5] * 3)
    assert all(strips(picture, color).sum() > 0.93 * one for color in range(3))  # boxes that touch differ in colour


def crowd(num: int, gap: int = 0) -> list[list[float]]:
    """Boxes of 20 x 20 pixels in rows of ten, with a gap between them."""
    side = 20 + gap
    return [[side * (i % 10), side * (i // 10), side * (i % 10) + 20, side * (i // 10) + 20] for i in range(num)]


def test_names_that_would_cover_objects_give_way_and_a_legend_says_the_class() -> None:
    plain = draw_boxes(grey(200, 200), crowd(100), [0] * 100, ["nucleus"], [0.5] * 100, scale=1)
    inside = np.ones((200, 200), dtype=bool)
    for x1, y1, x2, y2 in np.array(crowd(100), dtype=int).tolist():
        inside[y1 : y2 : y2 - y1 - 1, x1:x2] = inside[y1:y2, x1 : x2 : x2 - x1 - 1] = False
    assert not (changed(plain) & inside).any()  # outlines alone
    told = draw_boxes(grey(200, 200), crowd(100), [0] * 100, ["nucleus"], [0.5] * 100, scale=1, legend=True)
    np.testing.assert_array_equal(told[:200], plain)
    assert (told[200:] == class_color(0)).all(axis=2).sum() > 300
    few = draw_boxes(grey(200, 200), [[20, 100, 60, 140], [120, 100, 160, 140]], [0, 0], ["a"], [0.5, 0.4], scale=1)
    assert strips(few).sum() > 400
    assert draw_boxes(grey(200, 200), crowd(1), [0], ["a"], scale=1, legend=True).shape == (200, 200, 3)


def test_no_name_covers_more_than_a_quarter_of_a_box_or_another_name() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):  # 36 boxes on 256 pixels, twice as large in the drawing; names in grey, to be found again
        corners = rng.integers(0, 220, (36, 2))
        boxes = np.concatenate([corners, corners + rng.integers(8, 36, (36, 2))], axis=1)
        picture = draw_boxes(grey(256, 256), boxes, range(36), [f"class {i}" for i in range(36)], rng.random(36))
        filled = np.stack([strips(picture, label) for label in range(36)]).any(axis=0)
        assert filled.any()
        for x1, y1, x2, y2 in (2 * boxes).tolist():
            assert filled[y1:y2, x1:x2].mean() <= 0.4  # a quarter, and what looks like it where outlines cross


def test_touching_boxes_of_one_class_differ_and_others_have_the_colour_of_their_class() -> None:
    boxes = [[10, 40, 60, 90], [58, 40, 110, 90], [130, 40, 180, 90]]
    picture = draw_boxes(grey(200, 200), boxes, [1, 1, 1], ["a", "b"], scale=1)
    left, middle, right = (picture[70, x].tolist() for x in (10, 109, 130))
    assert left == right == list(class_color(1))
    assert middle != left
    assert np.argmax(middle) == np.argmax(left)  # a shade of it: blue
    only = draw_boxes(grey(200, 200), boxes, [0, 0, 0], ["a"], scale=1)
    assert [only[70, x].tolist() for x in (10, 109, 130)] == [list(class_color(k)) for k in (0, 1, 0)]


def test_lines_and_letters_grow_with_the_picture() -> None:
    small, large = (
        changed(draw_boxes(grey(s, s), [[s / 4, s / 2, s * 0.75, s * 0.9]], [0], ["a"], scale=1)) for s in (160, 4000)
    )
    line_small, line_large = small[120].sum() // 2, large[3000].sum() // 2  # a row through both vertical lines
    assert line_small == 1
    assert 8 <= line_large <= 16
    rows = {s: np.flatnonzero(mask[: s // 2].any(axis=1)).size for s, mask in ((160, small), (4000, large))}
    assert 8 <= rows[160] <= 18  # of the label: legible, and hardly more than a tenth of the picture
    assert 60 <= rows[4000] <= 200


@pytest.mark.parametrize(("hw", "times"), [((160, 160), 3), ((120, 320), 2), ((480, 360), 1), ((8, 8), 16)])
def test_small_images_are_enlarged_before_they_are_drawn_on(hw: tuple[int, int], times: int) -> None:
    height, width = hw
    picture = draw_boxes(grey(*hw), [[0, 0, width, height]], [0], ["a"])
    assert picture.shape == (times * height, times * width, 3)
    assert changed(picture)[-1].all()
    assert changed(picture)[:, -1].all()
    if times > 1:
        assert not changed(picture)[-times * height // 3 : -3, 3:-3].any()  # lines of a pixel or two, not of many


def test_the_best_lies_on_top_and_without_names_the_numbers_are_written() -> None:
    picture = draw_boxes(grey(100, 100), [[20, 40, 80, 90]] * 2, [1, 0], ["a", "b"], [0.9, 0.2], scale=1)
    assert picture[89, 50].tolist() == list(class_color(1))
    box, digits = [[10, 30, 40, 60]], list("0123456789")
    np.testing.assert_array_equal(draw_boxes(grey(99, 99), box, [7], []), draw_boxes(grey(99, 99), box, [7], digits))


def test_odd_boxes_are_drawn_at_the_border_and_none_leave_the_picture_as_it_is() -> None:
    odd: list[list[float]] = [[-50, -50, 500, 500], [300, 300, 310, 310], [50, 50, 50, 50], [98, 98, 99.6, 99.9]]
    assert changed(draw_boxes(grey(100, 100), odd, [0, 0, 0, 0], ["a"]))[0, :].all()
    assert not changed(draw_boxes(grey(40, 60), np.zeros((0, 4)), [], ["a"])).any()


def test_colours_of_classes_differ_to_the_eye_and_a_background_takes_none() -> None:
    colors = [class_color(label) for label in range(80)]
    assert len(set(colors)) == 80
    assert class_color(80) == class_color(0)
    lab = cv2.cvtColor(np.array([colors], np.float32) / 255, cv2.COLOR_RGB2LAB)[0].astype(np.float64)
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=2) + 1000 * np.eye(80)
    assert distance[:20, :20].min() > 30  # a just noticeable difference is about 2.3
    assert distance.min() > 15
    assert class_colors(["a", "background", "b"]) == [colors[0], (0, 0, 0), colors[1]]
    assert class_colors(["background", "a", "b"])[1:] == class_colors(["a", "b"])


@pytest.mark.parametrize("hw", [(1, 1), (3, 500), (500, 3)])
def test_tiny_pictures_can_be_drawn_on(hw: tuple[int, int]) -> None:
    assert draw_boxes(grey(*hw), [[0, 0, hw[1], hw[0]]], [0], ["a name"], [0.5], scale=1).shape == (*hw, 3)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("plain", "plain"),
        ("größe Ž", r"gro\xdfe Z"),
        ("血小板", r"\u8840\u5c0f\u677f"),
        ("unassigned \u0378", r"unassigned \u0378"),
        ("😀", r"\U0001f600"),
    ],
)
def test_letters_that_no_font_has_are_spelled_out(name: str, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_installed_font", lambda name, size: None)  # a machine without fonts
    text, _ = lettering._written(name, 20)
    assert text == written


def test_an_installed_font_writes_what_the_own_one_lacks() -> None:
    try:
        ImageFont.truetype("DejaVuSans.ttf", 20)
    except OSError:
        pytest.skip("this machine has no DejaVuSans.ttf")
    text, font = lettering._written("größe клетка", 20)
    assert text == "größe клетка"
    masks = [bytes(font.getmask(letter)) for letter in "клета"]
    assert all(a != b for a, b in pairwise(masks))  # letters, not five boxes for unknown ones


@pytest.mark.parametrize(
    ("image", "boxes", "labels", "scores", "message"),
    [
        (np.zeros((9, 9), np.uint8), [[0, 0, 1, 1]], [0], None, "image: expected uint8"),
        (np.zeros((9, 9, 3), np.float32), [[0, 0, 1, 1]], [0], None, "got float32"),
        (grey(9, 9), [[0, 0, float("nan"), 1]], [0], None, "boxes: expected finite"),
        (grey(9, 9), [[0, 0, 1, 1]], [2], None, "label 2 has no name: expected 0 to 1"),
        (grey(9, 9), [[0, 0, 1, 1]], [-1], None, "label -1 has no name"),
        (grey(9, 9), [[0, 0, 1, 1]], [0, 1], None, "got 2 labels"),
        (grey(9, 9), [[0, 0, 1, 1]], [0], [0.1, 0.2], "a label and a score for each of 1 boxes"),
    ],
)
def test_wrong_input_is_named(
    image: UInt8Array, boxes: list[list[float]], labels: list[int], scores: list[float] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        draw_boxes(image, boxes, labels, ["a", "b"], scores)


def test_errors_are_drawn_in_their_own_colours_on_grey() -> None:
    image = np.full((100, 200, 3), (200, 40, 40), np.uint8)
    boxes = [[10, 20, 40, 60]], [[60, 20, 90, 60]], [[110, 20, 140, 60]]
    plain = draw_detection_errors(image, *boxes, scale=1)
    for (x, y, *_), kind in zip((box[0] for box in boxes), ("right", "false", "missed"), strict=True):
        assert plain[y + 10, x].tolist() == list(ERROR_COLORS[kind])
    assert np.ptp(plain[0, 0]) == 0  # what is not drawn on has no colour
    named = draw_detection_errors(image, *boxes, ("dog 0.51", "cat"), scale=1)
    above = named[:19], plain[:19]
    assert (above[0] != above[1]).any(axis=(0, 2)).nonzero()[0].min() >= 55  # none above what is right
    assert (above[0] == ERROR_COLORS["false"]).all(axis=2).any()
    assert (above[0] == ERROR_COLORS["missed"]).all(axis=2).any()
