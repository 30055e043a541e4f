"""Label maps as pictures: colours over the image, legends, and indexed PNGs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.draw import class_color, draw_legend, draw_semantic, write_index_png
from detseg.errors import DataError
from detseg.structures import ClassTable, SegmentationMap, UInt8Array
from tests.shared_data import shared_data


def grey(height: int, width: int, value: int = 90) -> UInt8Array:
    return np.full((height, width, 3), value, np.uint8)


def test_colours_are_blended_and_ignored_pixels_are_left_alone() -> None:
    labels = np.array([[0, 1, 255]], dtype=np.uint8)
    red, green = class_color(0), class_color(1)
    assert (red, green) == ((240, 30, 30), (0, 255, 0))
    image = grey(1, 3, 100)
    assert draw_semantic(image, labels, 0.25)[0].tolist() == [[135, 82, 82], [75, 139, 75], [100, 100, 100]]
    assert draw_semantic(image, labels, 1)[0].tolist() == [list(red), list(green), [100, 100, 100]]
    np.testing.assert_array_equal(draw_semantic(image, labels, 0), image)
    assert (image == 100).all()


def test_classes_are_parted_by_darker_lines_in_large_pictures_only() -> None:
    labels = np.zeros((1000, 1400), dtype=np.uint8)
    labels[:, 700:] = 1
    drawn = draw_semantic(grey(1000, 1400), labels)
    row = drawn[500].astype(int).sum(axis=1)
    assert set(row[:698]) == {row[0]}  # two pixels of line at this size
    assert set(row[700:]) == {row[-1]}
    assert (row[698:700] < row[0] - 50).all()
    small = draw_semantic(grey(100, 140), labels[::10, ::10])[50]
    assert len(np.unique(small, axis=0)) == 2


def test_a_palette_has_the_colours_of_the_classes_and_black_for_a_background() -> None:
    labels = np.zeros((1, 1), dtype=np.uint8)
    plain = SegmentationMap(labels, ClassTable(("a", "b"))).palette
    assert plain.tolist() == [[240, 30, 30], [0, 255, 0]]
    assert SegmentationMap(labels, ClassTable(("background", "b"))).palette.tolist() == [[0, 0, 0], [0, 255, 0]]
    assert SegmentationMap(labels, ClassTable(("a", "background"))).palette.tolist() == [[240, 30, 30], [0, 0, 0]]


def test_a_map_draws_itself() -> None:
    labels = np.array([[0, 1], [1, 0]], dtype=np.uint8)
    found = SegmentationMap(labels, ClassTable(("a", "b")))
    np.testing.assert_array_equal(found.draw(grey(2, 2), 0.3), draw_semantic(grey(2, 2), labels, 0.3))


@pytest.mark.parametrize(
    ("image", "labels", "opacity", "message"),
    [
        (grey(4, 6), np.zeros((6, 4), np.uint8), 0.5, "height 4 and width 6, got 6 and 4"),
        (grey(4, 6), np.zeros((4, 6), np.int64), 0.5, "labels: expected uint8 of shape .* got int64"),
        (grey(4, 6), np.zeros((4, 6, 1), np.uint8), 0.5, r"labels: expected uint8 of shape \(H, W\)"),
        (grey(4, 6)[..., 0], np.zeros((4, 6), np.uint8), 0.5, "image: expected uint8"),
        (grey(4, 6), np.zeros((4, 6), np.uint8), 1.5, "opacity: expected a number from 0 to 1, got 1.5"),
    ],
)
def test_wrong_input_is_named(image: UInt8Array, labels: UInt8Array, opacity: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_semantic(image, labels, opacity)


def test_a_legend_lies_below_the_picture_and_shows_every_entry() -> None:
    image = grey(180, 240)
    entries = [(f"class {i}", " 9.1%", class_color(i)) for i in range(11)]
    drawn = draw_legend(image, entries)
    np.testing.assert_array_equal(drawn[:180], image)
    assert drawn.shape[1] == 240
    legend = drawn[180:].reshape(-1, 3)
    assert len(legend) > 0
    for _, _, color in entries:
        assert (legend == color).all(axis=1).sum() > 100
    np.testing.assert_array_equal(draw_legend(image, []), image)


@pytest.mark.parametrize("hw", [(1, 1), (3, 500), (500, 3)])
def test_a_legend_of_a_tiny_picture_keeps_its_width(hw: tuple[int, int]) -> None:
    drawn = draw_legend(grey(*hw), [("a rather long name", " 3.2%", (240, 30, 30)), ("b", "", (0, 255, 0))])
    assert drawn.shape[1:] == (hw[1], 3)
    assert drawn.shape[0] > hw[0]


def test_an_index_png_holds_labels_and_colours(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2], [2, 255, 0]], dtype=np.uint8)
    palette = np.array([[1, 2, 3], [40, 50, 60], [255, 0, 7]], dtype=np.uint8)
    write_index_png(tmp_path / "mask", labels, palette)
    image = Image.open(tmp_path / "mask")
    assert (image.format, image.mode) == ("PNG", "P")
    np.testing.assert_array_equal(np.array(image), labels)
    expected = [[[1, 2, 3], [40, 50, 60], [255, 0, 7]], [[255, 0, 7], [224, 224, 192], [1, 2, 3]]]
    assert np.array(image.convert("RGB")).tolist() == expected
    assert (tmp_path / "mask").read_bytes()[24] == 8  # bits a pixel in the PNG's header: readers need not unpack


def test_a_map_saves_itself(tmp_path: Path) -> None:
    found = SegmentationMap(np.array([[0, 1]], dtype=np.uint8), ClassTable(("a", "b")))
    found.save_png(tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    assert np.array(image).tolist() == [[0, 1]]
    assert np.array(image.convert("RGB"))[0].tolist() == [list(class_color(0)), list(class_color(1))]


def test_what_an_index_png_cannot_hold_is_refused(tmp_path: Path) -> None:
    labels = np.array([[0, 3]], dtype=np.uint8)
    palette = np.zeros((3, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="labels: expected below 3 or 255, got 3"):
        write_index_png(tmp_path / "a.png", labels, palette)
    with pytest.raises(ValueError, match=r"palette: expected uint8 of shape \(C, 3\), C at most 255, got"):
        write_index_png(tmp_path / "a.png", labels, np.zeros((256, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="labels: expected uint8"):
        write_index_png(tmp_path / "a.png", labels.astype(np.int64), palette)
    with pytest.raises(DataError, match=r"a\.png: the labels could not be written \(No such file or directory\); is"):
        write_index_png(tmp_path / "nowhere" / "a.png", labels % 3, palette)


def test_a_real_mask() -> None:
    image = np.array(Image.open(shared_data("camvid_small", "JPEGImages", "0016E5_07959.jpg")).convert("RGB"))
    labels = np.array(Image.open(shared_data("camvid_small", "SegmentationClass", "0016E5_07959.png")))
    drawn = draw_semantic(image, labels)
    assert (labels == 255).any()
    np.testing.assert_array_equal(drawn[labels == 255], image[labels == 255])
    road = labels == 3
    expected = (image[road].astype(float) + class_color(3)) / 2
    assert np.abs(drawn[road] - expected).max() <= 1


def test_a_class_called_background_stays_as_it_is() -> None:
    image, labels = grey(1, 3), np.array([[1, 0, 255]], dtype=np.uint8)
    drawn = SegmentationMap(labels[:, :2], ClassTable(("thing", "background"))).draw(image[:, :2])
    assert drawn[0, 0].tolist() == image[0, 0].tolist()
    assert drawn[0, 1].tolist() != image[0, 1].tolist()
    assert draw_semantic(image, labels, background=0)[0, 1].tolist() == image[0, 1].tolist()
