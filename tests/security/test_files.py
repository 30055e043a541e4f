"""An archive puts files into its folder, or nothing anywhere; images that declare more than memory holds are refused by
their header, whoever reads them."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import cv2
import pytest
from PIL import ImageFile

from detseg.cli.deploy.predict import predict
from detseg.data.download import unpack_tar
from detseg.data.images.masks import MaskEncoding, read_mask
from detseg.data.images.read import read_image, read_image_hw
from detseg.errors import DataError
from detseg.structures import ClassTable
from tests.cli.mistakes import said
from tests.predict.networks import write_unet
from tests.security.hostile import png_that_declares

GOOD = "VOCdevkit/VOC2007/readme.txt"


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 4) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, size if kind == tarfile.REGTYPE else 0
    member.mode = 0o7777  # with the bits that let a file run as its owner
    return member


def archive(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as tar:
        for member in [entry(GOOD), *members]:
            tar.addfile(member, io.BytesIO(bytes(member.size)) if member.isreg() else None)
    return path


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


HOSTILE = {
    "a way out": [entry("../escaped")],
    "a way out from inside": [entry("VOCdevkit/../../escaped")],
    "control characters": [entry("../\x1b[2Jescaped\n")],
    "an absolute name": [entry("/tmp/detseg-escaped")],
    "a name of Windows": [entry("..\\escaped")],
    "a drive of Windows": [entry("C:\\escaped")],
    "a link out": [entry("VOCdevkit/link", tarfile.SYMTYPE, "../..")],
    "a link and a file through it": [entry("out", tarfile.SYMTYPE, ".."), entry("out/escaped")],
    "a link to an absolute name": [entry("VOCdevkit/link", tarfile.SYMTYPE, "/etc/passwd")],
    "a link inside": [entry("VOCdevkit/link", tarfile.SYMTYPE, "VOC2007")],
    "a hard link": [entry("VOCdevkit/link", tarfile.LNKTYPE, "/etc/passwd")],
    "a device": [entry("VOCdevkit/zero", tarfile.CHRTYPE)],
    "a disk": [entry("VOCdevkit/sda", tarfile.BLKTYPE)],
    "a pipe": [entry("VOCdevkit/pipe", tarfile.FIFOTYPE)],
    "a sparse file": [entry("VOCdevkit/sparse", tarfile.GNUTYPE_SPARSE)],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_entries_leave_nothing(members: list[tarfile.TarInfo], tmp_path: Path) -> None:
    path = archive(tmp_path / "slip.tar", *members)
    with pytest.raises(DataError, match=r"slip\.tar: .*(nothing was unpacked|cannot|can be unpacked)") as caught:
        unpack_tar(path, tmp_path / "a" / "b")
    assert str(caught.value).isprintable()
    assert everything(tmp_path) == {"slip.tar"}
    assert not Path("/tmp/detseg-escaped").exists()


def test_a_good_archive_is_unpacked_without_its_dangerous_bits(tmp_path: Path) -> None:
    path = archive(tmp_path / "good.tar", entry("VOCdevkit/VOC2007/Annotations", tarfile.DIRTYPE))
    unpack_tar(path, tmp_path / "out")
    unpacked = tmp_path / "out" / GOOD
    assert unpacked.read_bytes() == bytes(4)
    assert os.stat(unpacked).st_mode & 0o7000 == 0
    assert everything(tmp_path / "out") >= {GOOD, "VOCdevkit/VOC2007/Annotations"}


def test_other_archives_are_not_opened(tmp_path: Path) -> None:
    slip = tmp_path / "slip.zip"
    with zipfile.ZipFile(slip, "w") as file:
        file.writestr("../escaped", "x")
    compressed = tmp_path / "bomb.tar.gz"
    with tarfile.open(compressed, "w:gz") as tar:
        tar.addfile(entry("zeros", size=10_000_000), io.BytesIO(bytes(10_000_000)))
    assert compressed.stat().st_size < 20_000
    cut = archive(tmp_path / "cut.tar", entry("large", size=100_000))
    cut.write_bytes(cut.read_bytes()[:50_000])
    for path in (slip, compressed, cut):
        with pytest.raises(DataError, match=rf"{path.name}: not a tar archive that can be unpacked"):
            unpack_tar(path, tmp_path / "out")
    assert not (tmp_path / "escaped").exists()


@pytest.fixture
def bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PNG of four gigapixels, in a process without decoders."""
    path = tmp_path / "pictures" / "bomb.png"
    path.parent.mkdir()
    path.write_bytes(png_that_declares(65536, 65536))
    monkeypatch.setattr(cv2, "imdecode", None)
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    return path


def test_four_gigapixels_are_refused_before_anything_is_decoded(bomb: Path) -> None:
    encoding = MaskEncoding(ClassTable(("a", "b")), None, 255)
    tracemalloc.start()
    for read in (read_image, read_image_hw, lambda path: read_mask(path, encoding)):
        with pytest.raises(DataError, match=rf"^{bomb}: .*bomb"):
            read(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.filterwarnings("ignore")
def test_predict_leaves_it_out_and_says_so(bomb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = write_unet(tmp_path / "unet.ckpt")
    code, message = said(predict, [str(checkpoint), str(bomb.parent), "--out", str(tmp_path / "out")], capsys)
    assert (code, message.count("\n")) == (2, 1)
    assert message.startswith(f"error: 1 of 1 images were left out: {bomb}: ")
