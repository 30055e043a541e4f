"""Label maps from mask images: every kind that is read, and a clear error for every other kind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from detseg.data.images.masks import read_mask
from detseg.errors import ClassTableError, DataError
from tests.data.formats.layouts import encoding, save_mask
from tests.data.images.painted import save_turned

ROWS = [[0, 1, 2], [2, 255, 1]]
ABC = ("a", "b", "c")
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
COLORED = np.array([[RED, GREEN, RED], [BLUE, RED, GREEN]], dtype=np.uint8)
BY_COLOR = {"colors": (GREEN, RED), "ignore_colors": (BLUE,)}


@pytest.mark.parametrize("mode", ["L", "P"])
@pytest.mark.parametrize("kind", ["png", "tif", "bmp"])
def test_values_are_labels_and_orientations_are_applied(tmp_path: Path, mode: str, kind: str) -> None:
    labels = read_mask(save_mask(tmp_path / f"a.{kind}", ROWS, mode), encoding(*ABC))
    assert (labels.dtype, labels.flags.c_contiguous, labels.tolist()) == (np.uint8, True, ROWS)
    for orientation in range(1, 9):
        path = save_turned(tmp_path / "turned.png", np.array(ROWS, dtype=np.uint8), orientation)
        assert read_mask(path, encoding(*ABC)).tolist() == ROWS


def test_few_bits_hold_values_and_palette_indices(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False, True]])).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png", encoding()).tolist() == [[1, 0, 1]]
    image = Image.fromarray(np.array([[0, 1, 2, 3]], dtype=np.uint8), mode="P")
    image.putpalette([0, 0, 0, 9, 9, 9, 200, 0, 0, 0, 200, 0])
    image.save(tmp_path / "a.png", bits=2)
    assert read_mask(tmp_path / "a.png", encoding("a", "b", "c", "d")).tolist() == [[0, 1, 2, 3]]


def test_given_values_and_255_classes(tmp_path: Path) -> None:
    path = save_mask(tmp_path / "a.png", [[0, 255, 7, 7]])
    assert read_mask(path, encoding(values=(0, 255), ignore_index=7)).tolist() == [[0, 1, 255, 255]]
    assert read_mask(path, encoding(values=(255, 7), ignore_index=0)).tolist() == [[255, 0, 1, 1]]
    many = tuple(f"class{k}" for k in range(255))
    values = np.arange(256).reshape(16, 16)
    assert read_mask(save_mask(tmp_path / "a.png", values), encoding(*many)).tolist() == values.tolist()
    for names, message in (((*many, "more"), "got 256"), (("nucleus",), r"got 1; .* too: \[background, nucleus\]")):
        with pytest.raises(ClassTableError, match="expected 2 to 255 classes, " + message):
            encoding(*names, ignore_index=None)


@pytest.mark.parametrize(
    ("rows", "names", "ignore_index", "message"),
    [
        ([0, 0, 0, 255], "ab", None, r"values \{0, 255\} with 2 classes: is 255 the foreground\? .*=\[0, 255\] \(expected: 0, 1; 1 px have others\)"),  # noqa: E501 - one message
        ([0, 0, 0, 7], "ab", 255, r"values \{0, 7\} .*is 7 the foreground\? set data\.mask_values=\[0, 7\] \("),
        ([0, 1, 2, 255], "abc", None, r"is 255 void\? set data\.ignore_index=255"),
        ([1, 2, 3], "abc", 255, r"do the values count from 1\? set data\.mask_values=\[1, 2, 3\]"),
        ([0, 1, 3], "abc", 255, r"is 3 void\? set data\.ignore_index=3; or is 0 void.* data\.mask_values=\[1, 2, 3\]"),
        ([0, 85, 170], "abc", 255, r"are these the values of the classes\? set data\.mask_values=\[0, 85, 170\]"),
        ([0, 1, 5, 9], "abc", 255, r"values \{0, 1, 5, 9\} with 3 classes: name every class in data\.classes.*expected: 0, 1, 2, and 255 for pixels to ignore"),  # noqa: E501 - one message
        (list(range(0, 250, 5)), "abc", 255, "resized with interpolation or saved with loss"),
        (list(range(12)), "abc", 255, "or, if each is a class, name every class in data.classes"),
        (list(range(20)), "abcdefghij", 255, r"\{0, 1, 2, 3, 4, 5, 6, 7, ..., 19\} with 10 classes"),
    ],
)  # fmt: skip
def test_other_values(tmp_path: Path, rows: list[int], names: str, ignore_index: int | None, message: str) -> None:
    path = save_mask(tmp_path / "m.png", [rows])
    with pytest.raises(DataError, match=r"m\.png: .*" + message) as caught:
        read_mask(path, encoding(*names, ignore_index=ignore_index))
    assert "\n" not in str(caught.value)


def test_colours_are_labels(tmp_path: Path) -> None:
    for mode in ("RGB", "RGBA", "P"):
        Image.fromarray(COLORED).convert(mode).save(tmp_path / "a.png")
        assert Image.open(tmp_path / "a.png").mode == mode
        assert read_mask(tmp_path / "a.png", encoding(**BY_COLOR)).tolist() == [[1, 0, 1], [255, 1, 0]]  # type: ignore[arg-type]  # mypy takes the values together
    path = save_mask(tmp_path / "grey.png", [[0, 255]])
    assert read_mask(path, encoding(colors=((0, 0, 0), (255, 255, 255)))).tolist() == [[0, 1]]
    path = save_mask(tmp_path / "m.gif", [[1, 2, 2]])
    assert np.asarray(Image.open(path)).tolist() == [[0, 1, 1]], "Pillow renumbers the values"
    assert read_mask(path, encoding(colors=((1, 1, 1), (2, 2, 2)))).tolist() == [[0, 1, 1]]
    with pytest.raises(DataError, match=r"m\.gif: the mask is GIF, expected PNG"):
        read_mask(path, encoding("a", "b", "c"))


def test_colours_that_are_not_listed(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    Image.fromarray(COLORED).save(path)
    table = encoding("leaf", "wine", colors=((0, 250, 0), (250, 0, 0)), ignore_colors=(BLUE,))
    text = "(255, 0, 0) (3 px), nearest wine (250, 0, 0); (0, 255, 0) (2 px), nearest leaf (0, 250, 0): name them"
    with pytest.raises(DataError, match=rf"m\.png: 2 colour\(s\) that are not listed: {re.escape(text)}"):
        read_mask(path, table)
    Image.fromarray(cv2.resize(COLORED, (40, 40), interpolation=cv2.INTER_LINEAR)).save(path)
    with pytest.raises(DataError, match=r"\.\.\.; \(\d.*: so many suggest a mask resized with interpolation"):
        read_mask(path, table)
    with pytest.raises(DataError, match=r"\(1, 1, 1\) \(1 px\).*the mask is grey: .*leave out data\.mask_colors"):
        read_mask(save_mask(path, [[0, 1]]), encoding(colors=((0, 0, 0), RED)))


def refused(path: Path, message: str, image: Image.Image | None = None, **settings: Any) -> None:
    """Reading the mask, saved now if a image is given, is an error of one line that begins with its path."""
    if image is not None:
        image.save(path)
    with pytest.raises(DataError, match=path.name.replace(".", r"\.") + ": " + message) as caught:
        read_mask(path, encoding(**settings))
    assert "\n" not in str(caught.value)


def test_files_with_more_than_a_value_of_8_bits_per_pixel_or_that_are_no_masks(tmp_path: Path) -> None:
    path, colored = tmp_path / "m.png", Image.fromarray(COLORED)
    refused(path, r"the mask is RGB, .*\(255, 0, 0\) \(3 px\), .*data\.mask_colors, or convert", colored)
    grey = Image.fromarray(np.array([[[0] * 3, [1] * 3]], dtype=np.uint8))
    grey.save(path)
    assert read_mask(path, encoding()).tolist() == [[0, 1]], "its channels are equal"
    refused(path, r"the mask is RGB, .*\(255, 0, 0\) \(3 px\)", colored, threshold=128)
    refused(path, "the mask is LA, .*, without transparency", grey.convert("LA"))
    transparent = np.dstack([COLORED, np.array([[255, 255, 0], [255, 254, 255]], dtype=np.uint8)])
    refused(path, "2 pixels of the mask are transparent", Image.fromarray(transparent), **BY_COLOR)

    deep = Image.fromarray(np.array([[0, 1, 300]], dtype=np.uint16))
    for settings in ({}, BY_COLOR):
        refused(tmp_path / "m.png", "the mask has 16 bits per pixel, expected 8; convert it to 8", deep, **settings)
    cv2.imwrite(str(tmp_path / "c.png"), COLORED.astype(np.uint16) * 256)
    refused(tmp_path / "c.png", "the mask has 16 bits", **BY_COLOR)
    refused(tmp_path / "i.tif", "the mask has 32 bits", Image.fromarray(np.array([[0, 1]], dtype=np.int32)))
    refused(tmp_path / "f.tif", "the mask holds floats", Image.fromarray(np.array([[0, 1]], dtype=np.float32)))

    black = Image.fromarray(np.zeros((8, 8), dtype=np.uint8))
    for kind, name in (("jpg", "JPEG"), ("webp", "WEBP")):
        refused(tmp_path / f"m.{kind}", f"the mask is {name}, which changes values at the edges", black)
    black.save(tmp_path / "m.tif", compression="jpeg")
    refused(tmp_path / "m.tif", "the mask is TIFF with jpeg compression, which changes values")
    refused(tmp_path / "m.pgm", "the mask is PPM, expected PNG, TIFF or BMP; convert it", black)
    for kind in ("png", "gif", "tif"):
        black.save(tmp_path / f"n.{kind}", save_all=True, append_images=[black.point(lambda value: 1)])
        refused(tmp_path / f"n.{kind}", "the mask has 2 frames", colors=((0, 0, 0), (1, 1, 1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"values": (0,)}, r"data\.mask_values: expected 2 different values .*got \[0\]"),
        ({"values": (3, 3)}, r"data\.mask_values: expected 2 different values .*got \[3, 3\]"),
        ({"values": (0, 256)}, r"data\.mask_values: expected values from 0 to 255"),
        ({"ignore_index": 256}, r"data\.ignore_index: expected values from 0 to 255, got \[256\]"),
        ({"ignore_index": 0}, r"ignore_index: 0 is that of the class 'background'; .*data\.ignore_index=null"),
        ({"values": (0, 255)}, r"255 is that of the class 'thing'.*data\.mask_values"),
        ({"colors": (RED,)}, r"data\.mask_colors: expected 2 different colours"),
        ({"colors": (RED, RED)}, r"data\.mask_colors: expected 2 different colours"),
        ({"colors": (RED, GREEN), "ignore_colors": (RED,)}, r"\(255, 0, 0\) is that of the class 'background'"),
        ({"colors": (RED, (0, 0, 256))}, r"data\.mask_colors: expected colours \[R, G, B\] from 0 to 255"),
        ({"colors": (RED, GREEN), "values": (0, 1)}, r"either values or colours"),
        ({"ignore_colors": (RED,)}, r"data\.ignore_colors: give data\.mask_colors, too"),
    ],
)
def test_settings_that_contradict_the_classes(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ClassTableError, match=message):
        encoding(**settings)
