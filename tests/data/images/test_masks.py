"""Label maps from mask pictures: every kind that is read, and a clear refusal of every other kind."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from detseg.data.images.label_maps import read_mask
from detseg.data.images.read import read_image
from detseg.errors import ClassTableError, DataError
from tests.data.formats.mask_layouts import encoding, save_mask
from tests.shared_data import shared_data

ROWS = [[0, 1, 2], [2, 255, 1]]
ABC = ("a", "b", "c")


@pytest.mark.parametrize("mode", ["L", "P"])
@pytest.mark.parametrize("kind", ["png", "tif", "bmp"])
def test_values_are_labels(tmp_path: Path, mode: str, kind: str) -> None:
    labels = read_mask(save_mask(tmp_path / f"a.{kind}", ROWS, mode), encoding(*ABC))
    assert labels.dtype == np.uint8
    assert labels.flags.c_contiguous
    assert labels.tolist() == ROWS


def test_a_picture_of_one_bit_holds_zeros_and_ones(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False, True]])).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png", encoding()).tolist() == [[1, 0, 1]]


def test_a_palette_of_two_bits_holds_indices(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1, 2, 3]], dtype=np.uint8), mode="P")
    picture.putpalette([0, 0, 0, 9, 9, 9, 200, 0, 0, 0, 200, 0])
    picture.save(tmp_path / "a.png", bits=2)
    assert (tmp_path / "a.png").read_bytes()[24] == 2
    assert read_mask(tmp_path / "a.png", encoding("a", "b", "c", "d")).tolist() == [[0, 1, 2, 3]]


def test_given_values_and_ignore_index(tmp_path: Path) -> None:
    path = save_mask(tmp_path / "a.png", [[0, 255, 7, 7]])
    assert read_mask(path, encoding(values=(0, 255), ignore_index=7)).tolist() == [[0, 1, 255, 255]]
    assert read_mask(path, encoding(values=(255, 7), ignore_index=0)).tolist() == [[255, 0, 1, 1]]


def test_255_classes_fit() -> None:
    many = tuple(f"class{k}" for k in range(255))
    assert encoding(*many).table.tolist() == list(range(256))
    with pytest.raises(ClassTableError, match="2 to 255 classes apart, got 256"):
        encoding(*many, "one more", ignore_index=None)


def test_gif_has_colours_but_no_values(tmp_path: Path) -> None:
    path = save_mask(tmp_path / "m.gif", [[1, 2, 2]])
    assert np.asarray(Image.open(path)).tolist() == [[0, 1, 1]], "Pillow numbers the values anew"
    with pytest.raises(DataError, match=r"m\.gif: the mask is GIF, .*data\.mask_colors"):
        read_mask(path, encoding("a", "b", "c"))
    assert read_mask(path, encoding(colors=((1, 1, 1), (2, 2, 2)))).tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_as_it_is_to_images(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.array(ROWS, dtype=np.uint8)).save(tmp_path / "a.png", exif=exif)
    assert read_mask(tmp_path / "a.png", encoding(*ABC)).tolist() == read_image(tmp_path / "a.png")[..., 0].tolist()


@pytest.mark.parametrize(
    ("rows", "names", "ignore_index", "message"),
    [
        (
            [0, 0, 0, 255],
            ("a", "b"),
            None,
            r"values \{0, 255\} with 2 classes: is 255 the foreground\? .*=\[0, 255\] \(",
        ),
        ([0, 0, 0, 255], ("a", "b"), None, r"\(found: 255 \(25\.0 %\), 0 \(75\.0 %\); expected: 0, 1\)"),
        ([0, 0, 0, 7], ("a", "b"), 255, r"values \{0, 7\} .*is 7 the foreground\? set data\.mask_values=\[0, 7\] \("),
        ([0, 1, 2, 255], ABC, None, r"is 255 void\? set data\.ignore_index=255"),
        ([1, 2, 3], ABC, 255, r"do the values count from 1\? set data\.mask_values=\[1, 2, 3\]"),
        ([0, 1, 3], ABC, 255, r"is 3 void\? set data\.ignore_index=3; or is 0 void.* data\.mask_values=\[1, 2, 3\]"),
        ([0, 85, 170], ABC, 255, r"are these the values of the classes\? set data\.mask_values=\[0, 85, 170\]"),
        ([0, 1, 2, 3, 4, 5, 9], ABC, 255, r"values \{0 to 5, 9\} with 3 classes: name every class in data\.classes"),
        ([0, 1, 2, 3, 4, 5, 9], ABC, 255, r"expected: 0 to 2, and 255 for what counts nowhere"),
        (list(range(0, 250, 5)), ABC, 255, "resized with interpolation or saved with loss"),
        (list(range(12)), ABC, 255, "or, if each is a class, name every class in data.classes"),
        (list(range(20)), tuple("abcdefghij"), 255, "with 10 classes: name every class in data.classes"),
        (list(range(256)), ABC, 255, "resized with interpolation or saved with loss, or one of object numbers"),
    ],
)
def test_values_outside_the_table(
    tmp_path: Path, rows: list[int], names: tuple[str, ...], ignore_index: int | None, message: str
) -> None:
    path = save_mask(tmp_path / "m.png", [rows])
    with pytest.raises(DataError, match=r"m\.png: .*" + message) as caught:
        read_mask(path, encoding(*names, ignore_index=ignore_index))
    assert "\n" not in str(caught.value)


def test_a_single_wrong_pixel_is_counted_as_such(tmp_path: Path) -> None:
    values = np.zeros((100, 100), dtype=np.uint8)
    values[50, 50] = 9
    with pytest.raises(DataError, match=r"found: 9 \(1 pixel\), 0 \(100\.0 %\)"):
        read_mask(save_mask(tmp_path / "a.png", values), encoding(*ABC))


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
COLORED = np.array([[RED, GREEN, RED], [BLUE, RED, GREEN]], dtype=np.uint8)


def test_colours_are_labels(tmp_path: Path) -> None:
    table = encoding(colors=(GREEN, RED), ignore_colors=(BLUE,))
    for mode in ("RGB", "RGBA", "P"):
        Image.fromarray(COLORED).convert(mode).save(tmp_path / "a.png")
        assert Image.open(tmp_path / "a.png").mode == mode
        assert read_mask(tmp_path / "a.png", table).tolist() == [[1, 0, 1], [255, 1, 0]]


def test_colours_of_grey_pictures(tmp_path: Path) -> None:
    path = save_mask(tmp_path / "a.png", [[0, 255]])
    assert read_mask(path, encoding(colors=((0, 0, 0), (255, 255, 255)))).tolist() == [[0, 1]]


def test_every_colour_finds_its_label() -> None:
    rng = np.random.default_rng(0)
    colors = {tuple(color) for color in rng.integers(0, 256, (60, 3)).tolist()}
    listed, ignored = sorted(colors)[:40], sorted(colors)[40:]
    rng.shuffle(listed)
    table = encoding(*(f"c{k}" for k in range(40)), colors=tuple(map(tuple, listed)), ignore_colors=tuple(ignored))
    everything = [*map(tuple, listed), *ignored]
    picked = rng.integers(0, len(everything), (20, 30))
    labels, known = table.labels_of_colors(np.array(everything, dtype=np.uint8)[picked])
    assert known.all()
    assert np.array_equal(labels, np.where(picked < 40, picked, 255))


def test_unlisted_colours_are_named_with_their_neighbours(tmp_path: Path) -> None:
    Image.fromarray(COLORED).save(tmp_path / "m.png")
    table = encoding("leaf", "wine", colors=((0, 250, 0), (250, 0, 0)), ignore_colors=(BLUE,))
    with pytest.raises(DataError, match=r"m\.png: 2 colour\(s\) that are not listed: ") as caught:
        read_mask(tmp_path / "m.png", table)
    assert "(255, 0, 0) 3 pixels, nearest wine (250, 0, 0); (0, 255, 0) 2 pixels, nearest leaf (0, 250, 0)" in str(
        caught.value
    )
    assert "data.ignore_colors" in str(caught.value)


def test_an_index_mask_where_colours_are_expected(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"m\.png: .*\(1, 1, 1\) 1 pixel.*the mask is grey: .*leave out data\.mask_colors"
    ):
        read_mask(save_mask(tmp_path / "m.png", [[0, 1]]), encoding(colors=((0, 0, 0), RED)))


def test_a_colour_mask_saved_with_interpolation(tmp_path: Path) -> None:
    image = cv2.resize(COLORED, (40, 40), interpolation=cv2.INTER_LINEAR)
    Image.fromarray(image).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"and \d+ more: so many suggest a mask resized with interpolation"):
        read_mask(tmp_path / "m.png", encoding(colors=(GREEN, RED), ignore_colors=(BLUE,)))


def test_transparent_pixels_have_no_colour(tmp_path: Path) -> None:
    image = np.dstack([COLORED, np.array([[255, 255, 0], [255, 254, 255]], dtype=np.uint8)])
    Image.fromarray(image).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png: 2 pixels of the mask are transparent"):
        read_mask(tmp_path / "m.png", encoding(colors=(GREEN, RED), ignore_colors=(BLUE,)))


def test_rgb_where_values_are_expected(tmp_path: Path) -> None:
    Image.fromarray(COLORED).save(tmp_path / "m.png")
    with pytest.raises(
        DataError, match=r"m\.png: the mask is RGB, .*\(255, 0, 0\) \(50\.0 %\), .*data\.mask_colors, else convert"
    ):
        read_mask(tmp_path / "m.png", encoding())
    Image.fromarray(np.array([[[0] * 3, [1] * 3]], dtype=np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"its three channels are equal: save one of them \(found: 0 \(50\.0 %\), 1 "):
        read_mask(tmp_path / "m.png", encoding())


def test_16_bits_and_floats(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 300]], dtype=np.uint16)).save(tmp_path / "m.png")
    for table in (encoding(), encoding(colors=(RED, GREEN))):
        with pytest.raises(
            DataError, match=r"m\.png: the mask has 16 bits a pixel, .*300 \(33\.3 %\)\); convert it to 8"
        ):
            read_mask(tmp_path / "m.png", table)
    cv2.imwrite(str(tmp_path / "c.png"), COLORED.astype(np.uint16) * 256)
    with pytest.raises(DataError, match=r"c\.png: the mask has 16 bits"):
        read_mask(tmp_path / "c.png", encoding(colors=(RED, GREEN), ignore_colors=(BLUE,)))
    Image.fromarray(np.array([[0, 1]], dtype=np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(DataError, match=r"i\.tif: the mask has 32 bits"):
        read_mask(tmp_path / "i.tif", encoding())
    Image.fromarray(np.array([[0, 1]], dtype=np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(DataError, match=r"f\.tif: the mask holds floats"):
        read_mask(tmp_path / "f.tif", encoding())


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_pictures_saved_with_loss(tmp_path: Path, kind: str) -> None:
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / f"m.{kind}")
    with pytest.raises(DataError, match=rf"m\.{kind}: the mask is (JPEG|WEBP), which changes values at the edges"):
        read_mask(tmp_path / f"m.{kind}", encoding())
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / "m.tif", compression="jpeg")
    with pytest.raises(DataError, match=r"m\.tif: the mask is TIFF with jpeg compression, which changes values"):
        read_mask(tmp_path / "m.tif", encoding())
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / "m.pgm")
    with pytest.raises(DataError, match=r"m\.pgm: the mask is PPM, expected PNG, TIFF or BMP; convert it"):
        read_mask(tmp_path / "m.pgm", encoding())


@pytest.mark.parametrize("kind", ["png", "gif", "tif"])
def test_several_frames(tmp_path: Path, kind: str) -> None:
    frames = [Image.fromarray(np.full((4, 4), value, dtype=np.uint8)) for value in (0, 1)]
    frames[0].save(tmp_path / f"m.{kind}", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=rf"m\.{kind}: the mask has 2 frames"):
        read_mask(tmp_path / f"m.{kind}", encoding(colors=((0, 0, 0), (1, 1, 1))))


def test_missing_cut_and_no_picture(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"m\.png: there is no such mask"):
        read_mask(tmp_path / "m.png", encoding())
    values = np.random.default_rng(0).integers(0, 2, (64, 64))
    whole = save_mask(tmp_path / "whole.png", values).read_bytes()
    (tmp_path / "m.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"m\.png: cannot read the mask: "):
        read_mask(tmp_path / "m.png", encoding())
    (tmp_path / "m.png").write_text("no picture")
    with pytest.raises(DataError, match=r"m\.png: not an image"):
        read_mask(tmp_path / "m.png", encoding())


@pytest.mark.parametrize(
    "name",
    ["broken.png", "truncated_image.png", "decompression_bomb.gif", "png_decompression_dos.png", "uncompressed_la.png",
     "i_trns.png", "16bit.cropped.tif", "tiff_16bit_RGB.tiff", "hopper.Lab.tif", "dispose_bgnd_rgba.gif", "hopper.jpg",
     "hopper.webp", "frozenpond.mpo", "pil123rgba.png", "16_bit_binary.pgm", "unknown_compression_method.png"],
)  # fmt: skip
def test_real_malformed_files_are_refused_by_name(name: str) -> None:
    with pytest.raises(DataError, match=name.replace(".", r"\.")) as caught:
        read_mask(shared_data("malformed", "images", name), encoding())
    assert "\n" not in str(caught.value)


def test_a_real_picture_of_one_bit() -> None:
    path = shared_data("malformed", "images", "hopper_bw_500.png")
    labels = read_mask(path, encoding())
    assert np.array_equal(labels * 255, np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"values": (0,)}, r"data\.mask_values: expected 2 different values .*got \[0\]"),
        ({"values": (3, 3)}, r"data\.mask_values: expected 2 different values .*got \[3, 3\]"),
        ({"values": (0, 256)}, r"data\.mask_values: expected 2 different values from 0 to 255"),
        ({"ignore_index": 256}, r"data\.ignore_index: expected a value from 0 to 255, got 256"),
        ({"ignore_index": 0}, r"0 is the value of the class 'background'.*data\.mask_values=\[1, 2\]"),
        ({"values": (0, 255)}, r"255 is the value of the class 'thing'.*set data\.ignore_index=null"),
        ({"colors": (RED,)}, r"data\.mask_colors: expected 2 colours"),
        ({"colors": (RED, RED)}, r"\(255, 0, 0\) stands there more than once"),
        ({"colors": (RED, GREEN), "ignore_colors": (RED,)}, r"\(255, 0, 0\) stands there more than once"),
        ({"colors": (RED, (0, 0, 256))}, r"data\.mask_colors: expected \[R, G, B\] from 0 to 255"),
        ({"colors": (RED, GREEN), "values": (0, 1)}, r"either values or colours"),
        ({"ignore_colors": (RED,)}, r"data\.ignore_colors: give data\.mask_colors, too"),
    ],
)  # fmt: skip
def test_settings_that_contradict_the_classes(settings: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ClassTableError, match=message):
        encoding(**settings)  # type: ignore[arg-type]  # wrong on purpose


def test_one_class_alone_is_asked_for_its_background() -> None:
    with pytest.raises(ClassTableError, match=r"got 1; name the background, too: \[background, nucleus\]"):
        encoding("nucleus")
