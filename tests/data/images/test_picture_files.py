"""What may pass for a picture file: no other formats, no pipes, any name, and no words of libraries about it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.data.annotations.model import pack_images
from detseg.data.formats.coco import read_coco
from detseg.data.formats.mask_folder import read_mask_folder
from detseg.data.images.label_maps import read_mask
from detseg.data.images.mask_encoding import MaskEncoding
from detseg.data.images.read import read_image, read_image_hw, read_orientation
from detseg.errors import DataError
from detseg.structures import ClassTable
from tests.shared_data import shared_data

NOT_UTF8 = os.fsdecode(b"caf\xe9.png")
"""As archives of old programs unpack."""

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def as_mask(path: Path) -> object:
    """Read a mask of two classes."""
    return read_mask(path, MaskEncoding(ClassTable(("a", "b")), None, 255))


READERS = pytest.mark.parametrize("read", [read_image, read_image_hw, read_orientation, as_mask])


@READERS
@pytest.mark.parametrize("name", ["a.jpg", "a.eps"])
def test_no_program_is_run_for_a_picture(
    read: Callable[[Path], object], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghostscript, ran = tmp_path / "bin" / "gs", tmp_path / "ran"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\necho ran >> '{ran}'\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # or a test before may have looked for one in vain
    (tmp_path / name).write_bytes(EPS)
    with Image.open(tmp_path / name) as eps, pytest.raises(OSError, match=r".*"):
        eps.load()
    ran.unlink()  # so Pillow would have run it
    with pytest.raises(DataError, match=rf"{name}: not an image, .*; read are JPEG, PNG, BMP, GIF, TIFF, WEBP, PPM; "):
        read(tmp_path / name)
    assert not ran.exists()


@READERS
def test_other_formats_are_refused_whatever_the_name(read: Callable[[Path], object], tmp_path: Path) -> None:
    for number, kind in enumerate(("TGA", "PCX", "ICO", "SGI")):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (16, 16)).save(path, format=kind)
        with pytest.raises(DataError, match=rf"{number}\.png: not an image, .*; read are JPEG, "):
            read(path)


@READERS
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_pipes_and_devices_are_refused_and_links_followed(read: Callable[[Path], object], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "link.png", "zero.png", "folder.png"):
        with pytest.raises(DataError, match=rf"{name}: cannot read the \w+: it is no file, but a folder, a pipe or a"):
            read(tmp_path / name)
    Image.new("L", (3, 2)).save(tmp_path / "a.png")
    (tmp_path / "good.png").symlink_to("a.png")
    read(tmp_path / "good.png")


@READERS
@pytest.mark.parametrize("name", ["a\0.png", "\ud800.png"])
def test_names_that_no_file_can_have(read: Callable[[Path], object], name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.png: cannot read the "):
        read(tmp_path / name)


def test_names_that_are_no_utf8_are_names(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.new("L", (3, 2), 1).save(tmp_path / folder / NOT_UTF8)
    dataset = read_mask_folder(tmp_path / "images", tmp_path / "masks", ("a", "b"))
    assert dataset.packed.path(0) == NOT_UTF8
    sample = dataset[0]
    assert sample.image.shape == (2, 3, 3)
    annotations = tmp_path / "a.json"
    annotations.write_text(
        '{"images": [{"id": 1, "file_name": "caf\\udce9.png", "width": 3, "height": 2}], "annotations": '
        '[{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "area": 4, "iscrowd": 0}], '
        '"categories": [{"id": 1, "name": "a"}]}'
    )
    with pytest.raises(DataError, match=r"not a readable JSON file: .*, near '.*caf.*udce9"):  # no text in JSON
        read_coco(tmp_path / "images", annotations)


def test_packed_names_come_back() -> None:
    names = ["a.png", NOT_UTF8, "日本.png", "\ud800"]
    packed = pack_images(names)
    assert [packed.path(i) for i in range(4)] == names
    assert packed.select([1]).path(0) == NOT_UTF8


def test_pillow_has_no_word_without_a_name(tmp_path: Path) -> None:
    names = ("sugarshack_bad_mpo_header.jpg", "hopper_bad_exif.jpg")
    files = [str(shared_data("malformed", "images", name)) for name in names]
    Image.fromarray(np.zeros((9500, 9500), dtype=np.bool_)).save(tmp_path / "large.png")  # a bomb, to Pillow
    files.append(str(tmp_path / "large.png"))
    plain = "import sys\nfrom PIL import Image\n[Image.open(path).getexif() for path in sys.argv[1:]]"
    warned = subprocess.run([sys.executable, "-c", plain, *files], capture_output=True, text=True, check=True).stderr
    for word in ("malformed MPO", "Corrupt EXIF", "DecompressionBombWarning"):
        assert word in warned
    ours = (
        "import sys\nfrom detseg.data.images.read import *\n"
        "read_image(sys.argv[1]); list(map(read_image_hw, sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", ours, *files], capture_output=True, text=True, check=True)
    assert done.stderr == ""
