"""Pictures with legends, on sheets, and as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.draw import class_color, contact_sheet, draw_legend, write_image, write_index_png
from detseg.errors import DataError
from detseg.structures import UInt8Array


def grey(height: int, width: int, value: int = 90) -> UInt8Array:
    return np.full((height, width, 3), value, np.uint8)


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
def test_a_legend_of_a_tiny_picture_is_wide_enough_to_be_read(hw: tuple[int, int]) -> None:
    entries = [("a rather long name", " 3.2%", (240, 30, 30)), ("b", "", (0, 255, 0))]
    drawn, alone = draw_legend(grey(*hw), entries), draw_legend(grey(500, 500), entries)
    np.testing.assert_array_equal(drawn[: hw[0], : hw[1]], grey(*hw))
    for _, _, color in entries:
        letters, wanted = ((part == color).all(axis=2).sum() for part in (drawn[hw[0] :], alone[500:]))
        assert letters > 0.5 * wanted  # not cut: "a rather long name 3.2%" in letters of 12 pixels
    assert drawn.shape[1] == max(hw[1], min(drawn.shape[1], 240))


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


def test_what_an_index_png_cannot_hold_is_refused(tmp_path: Path) -> None:
    labels = np.array([[0, 3]], dtype=np.uint8)
    palette = np.zeros((3, 3), dtype=np.uint8)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="labels: expected below 3 or 255, got 3"):
        write_index_png(tmp_path / "a.png", labels, palette)
    with pytest.raises(ValueError, match=r"palette: expected uint8 of shape \(C, 3\), C at most 255, got"):
        write_index_png(tmp_path / "a.png", labels, np.zeros((256, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="labels: expected uint8"):
        write_index_png(tmp_path / "a.png", labels.astype(np.int64), palette)
    with pytest.raises(DataError, match=r"file/a\.png: could not be written \(File exists\); a file is where"):
        write_index_png(tmp_path / "file" / "a.png", labels % 3, palette)


def test_a_sheet_places_pictures_row_by_row_in_cells_of_the_largest() -> None:
    pictures = [np.full((h, 100, 3), value, np.uint8) for h, value in ((60, 10), (100, 20), (60, 30))]
    sheet = contact_sheet(pictures, columns=2)
    assert sheet.shape == (2 * 100 + 3 * 2, 2 * 100 + 3 * 2, 3)  # gaps of two pixels
    assert [sheet[y, x, 0] for y, x in ((52, 52), (52, 154), (154, 52))] == [10, 20, 30]
    assert sheet[154, 154].tolist() == sheet[8, 52].tolist() == [255] * 3  # the free cell, and above a wide picture
    assert contact_sheet([grey(5, 5)], columns=4).shape == (9, 9, 3)
    assert contact_sheet([grey(1000, 2000)], columns=1).shape == (320 + 2 * 8, 640 + 2 * 8, 3)


def test_a_sheet_has_titles_above_its_columns_and_a_legend_below() -> None:
    pictures = [grey(200, 300)] * 4
    plain = contact_sheet(pictures, 2)
    titled = contact_sheet(pictures, 2, ("truth", "prediction"), [("cat", "", class_color(0))])
    rows = np.flatnonzero((titled == 90).all(axis=2).any(axis=1))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    assert 10 < top < 50
    assert (titled[:top].min(axis=(0, 2))[:300] < 100).any()  # black letters
    assert (titled[:top].min(axis=(0, 2))[310:] < 100).any()
    assert (titled[bottom:] == class_color(0)).all(axis=2).sum() > 100
    assert titled.shape[1] == plain.shape[1]


@pytest.mark.parametrize(("num", "columns"), [(0, 2), (1, 0)])
def test_a_sheet_refuses(num: int, columns: int) -> None:
    with pytest.raises(ValueError, match="expected images and columns >= 1"):
        contact_sheet([grey(5, 5)] * num, columns)


def test_images_are_written_as_rgb_with_the_mode_that_the_user_set(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.png"
    write_image(path, np.full((8, 8, 3), (255, 0, 0), dtype=np.uint8))
    assert np.array(Image.open(path))[0, 0].tolist() == [255, 0, 0]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "b.png").mkdir()
    with pytest.raises(DataError, match=r"b\.png: could not be written \(Is a directory\); a file is"):
        write_image(tmp_path / "b.png", grey(8, 8))
    for name, what in (("c.txt", "the suffix '.txt' is no image format that can be written"), ("c", "has no suffix")):
        with pytest.raises(DataError, match=f"{name}: {what}; give it .jpg, .png, "):
            write_image(tmp_path / name, grey(8, 8))
