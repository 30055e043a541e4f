"""Reading images: the right pixels the right way up, or an error that names the file."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from detseg.data.images.read import MAX_PIXELS, read_image, read_image_hw
from detseg.errors import DataError
from detseg.structures import UInt8Array
from tests.shared_data import shared_data


@pytest.fixture
def picture() -> UInt8Array:
    """(24, 40, 3): four flat quarters, all different, so that each of the eight orientations is told apart."""
    image = np.zeros((24, 40, 3), dtype=np.uint8)
    image[:12, :20], image[:12, 20:], image[12:, :20] = (200, 30, 30), (30, 200, 30), (30, 30, 200)
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_orientation_is_applied_once(tmp_path: Path, picture: UInt8Array, suffix: str, orientation: int) -> None:
    # The inverse of each orientation, by Pillow, so that every stored file shows `picture`.
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose members
    stored = Image.fromarray(picture)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(inverse[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    best = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}
    stored.save(path, exif=exif, **best.get(suffix, {}))
    image = read_image(path)
    assert image.shape == (24, 40, 3)
    assert np.abs(image.astype(int) - picture).mean() < 3  # JPEG smears the borders of the quarters
    assert read_image_hw(path) == (24, 40)
    with Image.open(path) as reference:
        assert np.array_equal(image, np.asarray(ImageOps.exif_transpose(reference)))


@pytest.mark.parametrize("number", range(1, 9))
def test_real_photographs_of_all_orientations(number: int) -> None:
    folder = shared_data("malformed", "orientation")
    upright = cv2.resize(read_image(folder / "Landscape_1.jpg"), (96, 64), interpolation=cv2.INTER_AREA)
    image = read_image(folder / f"Landscape_{number}.jpg")
    assert image.shape == (1200, 1800, 3)
    assert read_image_hw(folder / f"Landscape_{number}.jpg") == (1200, 1800)
    small = cv2.resize(image, (96, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - upright).mean() < 1


def test_orientation_that_only_xmp_states() -> None:
    path = shared_data("malformed", "images", "xmp_tags_orientation.png")
    with Image.open(path) as stored:
        turned = np.asarray(stored.convert("RGB").transpose(Image.Transpose.ROTATE_180))
    assert np.array_equal(read_image(path), turned)


@pytest.mark.parametrize(
    "name",
    [
        "broken.png",
        "decompression_bomb.gif",
        "png_decompression_dos.png",
        "truncated_image.png",
        "truncated_jpeg.jpg",
        "unknown_compression_method.png",
    ],
)
def test_damaged_files_are_errors_that_name_the_file(name: str) -> None:
    path = shared_data("malformed", "images", name)
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_other_odd_file_is_read_in_its_stated_size() -> None:
    damaged = {"broken", "decompression_bomb", "png_decompression_dos", "unknown_compression_method"}
    damaged |= {"truncated_image", "truncated_jpeg", "truncated_end_chunk"}
    read = 0
    for path in sorted(shared_data("malformed", "images").iterdir()):
        if path.stem in damaged:
            continue
        image = read_image(path)
        with Image.open(path) as reference:
            assert image.shape == (reference.height, reference.width, 3), path.name
        assert image.dtype == np.uint8
        assert image.flags.writeable
        assert image.flags.c_contiguous
        assert read_image_hw(path) == image.shape[:2]
        read += 1
    assert read >= 20


def test_cmyk_shows_what_the_reference_shows() -> None:
    path = shared_data("malformed", "images", "pil_sample_cmyk.jpg")
    with Image.open(path) as reference:
        assert np.array_equal(read_image(path), np.asarray(reference.convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_its_upper_bits(tmp_path: Path, suffix: str) -> None:
    grey = np.array([[0, 255, 256, 65535], [512, 32768, 1000, 257]], dtype=np.uint16)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(grey).save(path)
    expected = [[0, 0, 1, 255], [2, 128, 3, 1]]
    assert read_image(path).tolist() == [[[v, v, v] for v in row] for row in expected]


def test_16_bit_pgm(tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 2 1 65535\n" + struct.pack(">HH", 512, 65535))
    assert read_image(path).tolist() == [[[2, 2, 2], [255, 255, 255]]]


def test_palette_grey_and_transparency_become_rgb(tmp_path: Path) -> None:
    Image.new("RGBA", (3, 2), (10, 20, 30, 0)).save(tmp_path / "rgba.png")
    Image.new("L", (3, 2), 77).save(tmp_path / "grey.jpg", quality=100)
    palette = Image.new("P", (3, 2), 1)
    palette.putpalette([0, 0, 0, 1, 2, 3])
    palette.save(tmp_path / "palette.png")
    assert (read_image(tmp_path / "rgba.png") == [10, 20, 30]).all()
    assert (read_image(tmp_path / "grey.jpg") == 77).all()
    assert (read_image(tmp_path / "palette.png") == [1, 2, 3]).all()


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((2, 2), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif.*floats.*8 bits"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "gif", "tif"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.4, 0.97])
def test_a_file_cut_short_is_an_error_never_a_grey_half(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = tmp_path / f"whole.{suffix}"
    Image.fromarray(noise).save(whole)
    data = whole.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=f"cut.{suffix}"):
        read_image(cut)


def test_a_jpeg_with_bytes_behind_its_end_is_read(tmp_path: Path, picture: UInt8Array) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(picture).save(path)
    plain = read_image(path)
    path.write_bytes(path.read_bytes() + b"\0\0trailer")
    assert np.array_equal(read_image(path), plain)


def test_a_png_that_declares_too_much_is_refused_before_decoding(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path = tmp_path / "bomb.png"
    path.write_bytes(png + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    assert MAX_PIXELS < 20_000 * 20_000
    for read in (read_image, read_image_hw):
        with pytest.raises(DataError, match=r"bomb\.png.*bomb"):
            read(path)


def test_our_own_limit_holds_when_pillows_is_lifted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr("detseg.data.images.read.MAX_PIXELS", 99)
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="declares 10 x 10 pixels, more than the 99"):
        read_image(tmp_path / "a.png")


def test_missing_files_folders_and_text(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(DataError, match=r"gone\.jpg: there is no such image"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match=r"gone\.jpg: there is no such image"):
        read_image_hw(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match=r"text\.jpg: not an image"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(DataError, match="cannot read the image"):
        read_image(tmp_path)


def test_opencv_and_pillow_give_the_same_pixels() -> None:
    for path in sorted(shared_data("coco_mini", "images").iterdir())[:6]:
        with Image.open(path) as reference:
            assert np.array_equal(read_image(path), np.asarray(reference.convert("RGB"))), path.name
