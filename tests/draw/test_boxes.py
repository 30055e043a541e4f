"""What draw puts on a picture: where, in which colour, and that every label stays inside and says its class."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from PIL import ImageDraw, ImageFont

from detseg.draw import class_color, contact_sheet, draw_boxes, draw_detections
from detseg.draw import text as lettering
from detseg.structures import ClassTable, DetectorOutput, UInt8Array
from tests.shared_data import shared_data

GREY = 90


def grey(height: int, width: int) -> UInt8Array:
    return np.full((height, width, 3), GREY, np.uint8)


def changed(picture: UInt8Array) -> np.ndarray:
    """(H, W) bool: the pixels that were drawn on, in a picture that was grey."""
    mask: np.ndarray = (picture != GREY).any(axis=2)
    return mask


def detections(
    boxes: list[list[float]], scores: list[float], labels: list[int], names: tuple[str, ...]
) -> DetectorOutput:
    return DetectorOutput(
        torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores), torch.tensor(labels), ClassTable(names)
    )


def test_a_box_is_outlined_on_its_own_pixels() -> None:
    picture = draw_boxes(grey(200, 200), [[50, 80, 150, 180]], [0], ["a"])
    below = changed(picture)[100:]  # rows that the label does not reach
    rows, columns = np.nonzero(below)
    assert (rows.max() + 100, columns.min(), columns.max()) == (179, 50, 149)  # half-open: 180 and 150 stay free
    assert picture[120, 50].tolist() == list(class_color(0))
    assert not below[10:-30, 60:140].any()  # only an outline


def test_the_picture_passed_in_is_not_changed() -> None:
    image = grey(50, 50)
    picture = draw_boxes(image, [[5, 20, 40, 40]], [0], ["a"])
    assert not changed(image).any()
    assert changed(picture).any()
    assert picture.shape == (50, 50, 3)
    assert picture.dtype == np.uint8


def test_a_read_only_picture_can_be_drawn_on() -> None:
    image = grey(50, 50)
    image.flags.writeable = False
    assert changed(draw_boxes(image, [[5, 20, 40, 40]], [0], ["a"])).any()


def test_no_boxes_leave_the_picture_as_it_is() -> None:
    assert not changed(draw_boxes(grey(40, 60), np.zeros((0, 4)), [], ["a"])).any()
    assert not changed(draw_detections(grey(40, 60), DetectorOutput.empty())).any()


@pytest.mark.parametrize("corner", [(0, 0), (1960, 0), (0, 1960), (1960, 1960), (980, 3)])
def test_labels_stay_inside_the_picture(corner: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    size = 2000
    strips: list[tuple[float, ...]] = []
    rectangle = ImageDraw.ImageDraw.rectangle

    def watched(self: ImageDraw.ImageDraw, xy: tuple[float, ...], **kwargs: object) -> None:
        if "fill" in kwargs:
            strips.append(xy)
        rectangle(self, xy, **kwargs)  # type: ignore[arg-type]  # handed on as it came

    monkeypatch.setattr(ImageDraw.ImageDraw, "rectangle", watched)
    draw_boxes(grey(size, size), [[*corner, corner[0] + 40, corner[1] + 40]], [0], ["a long name of a class"], [0.5])
    (left, top, right, bottom) = strips[0]
    assert 0 <= left < right < size
    assert 0 <= top < bottom < size


def test_lines_and_letters_grow_with_the_picture() -> None:
    small, large = (
        changed(draw_boxes(grey(s, s), [[s / 4, s / 2, s * 0.75, s * 0.9]], [0], ["a"])) for s in (160, 4000)
    )
    line_small, line_large = small[120].sum() // 2, large[3000].sum() // 2  # a row through both vertical lines
    assert line_small == 1
    assert 8 <= line_large <= 16
    strip = {s: np.flatnonzero(mask[: s // 2].any(axis=1)).size for s, mask in ((160, small), (4000, large))}
    assert 8 <= strip[160] <= 16  # rows of the label: legible, and no tenth of the picture
    assert 60 <= strip[4000] <= 160


def test_a_name_too_long_for_the_picture_keeps_its_score() -> None:
    font, text = lettering._fit("a name that goes on and on and on and on", " 0.87", 12, 100)
    assert text.startswith("a name")
    assert text.endswith("... 0.87")
    assert font.getlength(text) <= 100


def test_the_best_detection_lies_on_top() -> None:
    boxes = [[20.0, 40.0, 80.0, 90.0]] * 2
    picture = draw_detections(grey(100, 100), detections(boxes, [0.9, 0.2], [1, 0], ("a", "b")))
    assert picture[89, 50].tolist() == list(class_color(1))


def test_detections_draw_is_draw_detections_above_the_threshold() -> None:
    found = detections([[10, 30, 40, 60], [50, 30, 90, 90]], [0.9, 0.2], [0, 1], ("a", "b"))
    picture = found.draw(grey(100, 100), score_threshold=0.5)
    np.testing.assert_array_equal(picture, draw_detections(grey(100, 100), found[:1]))
    assert not changed(picture)[:, 60:].any()


def test_without_a_class_table_the_number_is_written() -> None:
    found = detections([[10, 30, 40, 60]], [0.9], [7], ())
    np.testing.assert_array_equal(
        draw_detections(grey(99, 99), found),
        draw_boxes(grey(99, 99), [[10, 30, 40, 60]], [7], list("0123456789"), [0.9]),
    )


def test_odd_boxes_are_drawn_at_the_border() -> None:
    odd: list[list[float]] = [[-50, -50, 500, 500], [300, 300, 310, 310], [50, 50, 50, 50], [98, 98, 99.6, 99.9]]
    assert changed(draw_boxes(grey(100, 100), odd, [0, 0, 0, 0], ["a"]))[0, :].all()


@pytest.mark.parametrize("hw", [(1, 1), (3, 500), (500, 3)])
def test_tiny_pictures_can_be_drawn_on(hw: tuple[int, int]) -> None:
    assert draw_boxes(grey(*hw), [[0, 0, hw[1], hw[0]]], [0], ["a name"], [0.5]).shape == (*hw, 3)


def test_colours_of_classes_differ_to_the_eye() -> None:
    colors = [class_color(label) for label in range(80)]
    assert len(set(colors)) == 80
    assert class_color(80) == class_color(0)
    lab = cv2.cvtColor(np.array([colors], np.float32) / 255, cv2.COLOR_RGB2LAB)[0].astype(np.float64)
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=2) + 1000 * np.eye(80)
    assert distance[:20, :20].min() > 30  # a just noticeable difference is about 2.3
    assert distance.min() > 15


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


def test_contact_sheet_places_pictures_row_by_row() -> None:
    pictures = [np.full((10, 20, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = contact_sheet(pictures, columns=2, cell=64)
    assert sheet.shape == (128, 128, 3)
    assert [sheet[y, x, 0] for y, x in ((32, 32), (32, 96), (96, 32))] == [10, 20, 30]
    assert sheet[96, 96, 0] == sheet[4, 32, 0] == 114  # the free cell, and above a wide picture


def test_contact_sheet_of_few_pictures_is_one_short_row() -> None:
    assert contact_sheet([grey(5, 5)], columns=4, cell=32).shape == (32, 32, 3)


@pytest.mark.parametrize(("num", "columns", "cell"), [(0, 2, 64), (1, 0, 64), (1, 2, 7)])
def test_contact_sheet_refuses(num: int, columns: int, cell: int) -> None:
    with pytest.raises(ValueError, match="expected images, columns >= 1 and cell >= 8"):
        contact_sheet([grey(5, 5)] * num, columns, cell)


def test_a_real_picture() -> None:
    image = cv2.imread(str(shared_data("bccd", "JPEGImages", "BloodImage_00000.jpg")))
    assert image is not None
    rgb = np.ascontiguousarray(image[..., ::-1].astype(np.uint8))
    picture = draw_boxes(rgb, [[260, 177, 491, 376]], [2], ["Platelets", "RBC", "WBC"])
    assert picture[375, 300].tolist() == list(class_color(2))
    np.testing.assert_array_equal(picture[:150], rgb[:150])
