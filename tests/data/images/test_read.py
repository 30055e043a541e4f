"""Reading images: the right pixels the right way up, or an error that names the file."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from detseg.config.schema.data import AugmentationConfig
from detseg.data.formats.mask_folder import read_mask_folder
from detseg.data.formats.voc import read_voc
from detseg.data.images.read import read_image, read_image_hw, readable_formats
from detseg.data.loading.loader import eval_loader, train_loader
from detseg.errors import DataError
from tests.data.formats.bad_files import mask
from tests.data.formats.layouts import annotation_xml, object_xml, write_voc
from tests.data.images.painted import bounds, save_turned
from tests.fuzz.mutator import put_together

READERS = pytest.mark.parametrize("read", [read_image, read_image_hw, mask])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_orientation_is_applied_once(tmp_path: Path, suffix: str, orientation: int) -> None:
    pixels = np.zeros((24, 40, 3), dtype=np.uint8)  # four quarters, so that the eight orientations are told apart
    pixels[:12, :20], pixels[:12, 20:], pixels[12:, :20] = (200, 30, 30), (30, 200, 30), (30, 30, 200)
    best = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}
    path = save_turned(tmp_path / f"a.{suffix}", pixels, orientation, **best.get(suffix, {}))
    image = read_image(path)
    assert (image.shape, image.dtype, image.flags.writeable, image.flags.c_contiguous) == (
        (24, 40, 3),
        np.uint8,
        True,
        True,
    )
    assert np.abs(image.astype(int) - pixels).mean() < 3  # JPEG smears the borders of the quarters
    assert read_image_hw(path) == (24, 40)
    with Image.open(path) as reference:
        np.testing.assert_array_equal(image, np.asarray(ImageOps.exif_transpose(reference)))


def test_turned_photographs_are_upright_with_their_boxes_in_training_and_evaluation(tmp_path: Path) -> None:
    upright = np.zeros((40, 60, 3), dtype=np.uint8)
    upright[6:14, 9:30] = 255  # nowhere near the middle, so that the box moves with each of the orientations
    stems = [f"turned{orientation}" for orientation in range(1, 9)]
    xml = annotation_xml(object_xml(("white", 10, 7, 30, 14)), size_wh=(60, 40))
    write_voc(tmp_path, {"train": "\n".join(stems)}, dict.fromkeys(stems, xml))
    for orientation, stem in enumerate(stems, start=1):
        save_turned(tmp_path / "JPEGImages" / f"{stem}.jpg", upright, orientation, quality=100, subsampling=0)
    dataset = read_voc(tmp_path, "train")
    for index in range(8):
        assert dataset[index].boxes.tolist() == [[9, 6, 30, 14]]
        assert np.abs(dataset[index].image.astype(int) - dataset[0].image).max() < 25  # JPEG's rounding
    evaluation = eval_loader(dataset, input_hw=(64, 96), batch_size=4, num_workers=0)
    plain = AugmentationConfig(horizontal_flip=0.0)
    training = train_loader(dataset, plain, input_hw=(64, 96), batch_size=4, num_workers=0, seed=0, max_epochs=1)
    for loader in (evaluation, training):
        seen: list[int] = []
        for batch in loader:
            for index, image, target in zip(batch.indices, batch.images, batch.targets, strict=True):
                assert target.boxes.shape == (1, 4)  # JPEG and the zoom blur the edges of the white
                np.testing.assert_allclose(target.boxes[0], bounds(image.permute(1, 2, 0).numpy()), atol=1.5)
                seen.append(index)
        assert sorted(seen) == list(range(8))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_keeps_its_upper_bits(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(np.array([[0, 255, 256, 65535, 512, 32768, 1000, 257]], np.uint16)).save(tmp_path / f"a.{suffix}")
    assert read_image(tmp_path / f"a.{suffix}").tolist() == [[[v, v, v] for v in (0, 0, 1, 255, 2, 128, 3, 1)]]


def test_palettes_and_transparency_become_rgb_and_floats_are_refused(tmp_path: Path) -> None:
    palette = Image.new("P", (3, 2), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    for image in (palette, Image.new("RGBA", (3, 2), (10, 20, 30, 0))):
        image.save(tmp_path / "a.png")
        assert (read_image(tmp_path / "a.png") == [10, 20, 30]).all()
    Image.fromarray(np.ones((2, 2), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif.*floats.*8 bits"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "gif", "tif"])
@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.4, 0.97])
def test_a_file_cut_short_is_an_error_never_a_grey_half(tmp_path: Path, suffix: str, fraction: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path)
    os.truncate(path, int(path.stat().st_size * fraction))
    with pytest.raises(DataError, match=rf"a\.{suffix}"):
        read_image(path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_every_wrong_byte_among_the_pixels_of_a_png_is_an_error(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).convert(mode)
    path = tmp_path / "a.png"
    image.save(path)
    np.testing.assert_array_equal(read_image(path), np.asarray(image.convert("RGB")))
    data = path.read_bytes()
    for place in range(data.index(b"IDAT") + 4, len(data) - 16, 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        for read in (read_image, mask):
            with pytest.raises(DataError, match=r"a\.png: "):
                read(path)


def test_a_black_interlaced_png_is_whole_or_an_error(tmp_path: Path) -> None:
    # Rows and columns of the passes of 16 x 16 pixels (PNG specification, 8.2); a filter byte per row.
    passes = ((2, 2), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16))
    pixels = zlib.compress(bytes(sum(rows * (1 + columns) for rows, columns in passes)))
    for height in (16, 24):
        header = struct.pack(">IIBBBBB", 16, height, 8, 0, 0, 0, 1)
        (tmp_path / "a.png").write_bytes(put_together([(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]))
        for read in (read_image, mask):
            if height == 16:
                assert not read(tmp_path / "a.png").any()
            else:
                with pytest.raises(DataError, match=r"a\.png: cannot read the "):
                    read(tmp_path / "a.png")


@READERS
def test_no_program_is_run(read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ghostscript, ran, path = tmp_path / "gs", tmp_path / "ran", tmp_path / "a.jpg"
    ghostscript.write_text(f"#!/bin/sh\necho ran >> '{ran}'\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # or a test before may have looked for one in vain
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    with Image.open(path) as eps, pytest.raises(OSError, match=r".*"):
        eps.load()
    ran.unlink()  # so Pillow would have run it
    with pytest.raises(
        DataError, match=r"a\.jpg: not an image, .*; read are JPEG, PNG, BMP, GIF, TIFF, WEBP, PPM(, AVIF)?(, HEIF)?; "
    ):
        read(path)
    assert not ran.exists()


@READERS
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_what_is_no_image_file(read: Callable[[Path], object], tmp_path: Path) -> None:
    for kind in (kinds := ("TGA", "PCX", "ICO", "SGI")):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{kind}.png", format=kind)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    no_file = r"cannot read the \w+: it is not a file, but a folder, a pipe or"
    expected = {
        **dict.fromkeys(kinds, "not an image, .*; read are JPEG, "),
        **dict.fromkeys(["pipe", "link", "zero", "folder"], no_file),
        **dict.fromkeys(["a\0", "\ud800"], "cannot read the "),
        "gone": "there is no such (image|mask)",
    }
    for name, message in expected.items():
        with pytest.raises(DataError, match=rf"\.png: {message}"):
            read(tmp_path / f"{name}.png")
    if "HEIF" not in readable_formats():
        (tmp_path / "phone.png").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
        with pytest.raises(
            DataError, match=r"phone\.png: its content is not what its suffix says: such files are HEIF .*pi-heif"
        ):
            read(tmp_path / "phone.png")
    Image.new("L", (3, 2)).save(tmp_path / "a.png")
    (tmp_path / "good.png").symlink_to("a.png")
    read(tmp_path / "good.png")


def test_names_that_are_no_utf8_are_names(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")  # as archives of old programs unpack
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.new("L", (3, 2), 1).save(tmp_path / folder / name)
    dataset = read_mask_folder(tmp_path / "images", tmp_path / "masks", ("a", "b"))
    assert dataset.packed.path(0) == name
    assert dataset[0].image.shape == (2, 3, 3)
