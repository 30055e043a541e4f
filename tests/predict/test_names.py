"""Prediction for pictures with hostile names, through links, and of which many cannot be read."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from detseg.cli import predict
from detseg.errors import DataError
from detseg.predict.files import predict_files
from tests.cli.mistakes import said
from tests.tiny import TinyRun

NOT_UTF8 = os.fsdecode(b"caf\xe9.png")


@pytest.fixture
def picture(tiny_run: TinyRun) -> Path:
    """A picture that can be read."""
    return tiny_run.data_root / "JPEGImages" / "val00.png"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """An empty folder for pictures."""
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def test_a_name_that_is_no_utf8_is_kept(tiny_run: TinyRun, picture: Path, images: Path, tmp_path: Path) -> None:
    shutil.copy(picture, images / NOT_UTF8)
    out = tmp_path / "out"
    predict_files(tiny_run.best, [images], out, 0.05, "cpu", formats=["coco", "yolo"])
    assert (out / NOT_UTF8).read_bytes().startswith(b"\x89PNG")
    assert (out / "labels" / NOT_UTF8).with_suffix(".txt").is_file()
    assert json.loads((out / "images.json").read_text())["images"][0]["file_name"] == NOT_UTF8


def test_a_suffix_that_is_no_utf8(tiny_run: TinyRun, picture: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"a.pn\xe9")
    shutil.copy(picture, odd)
    with pytest.raises(DataError, match="a drawn copy cannot be written in this format"):
        predict_files(tiny_run.best, [odd], tmp_path / "out", 0.05, "cpu")


@pytest.mark.parametrize("name", ["a\x01.png", "two\x1b[2J/a.png", NOT_UTF8])
def test_voc_refuses_a_name_that_xml_cannot_hold_before_the_work(
    name: str, tiny_run: TinyRun, picture: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(picture, images / "0.png")
    (images / name).parent.mkdir(exist_ok=True)
    shutil.copy(picture, images / name)
    out = tmp_path / "out"
    argv = [str(tiny_run.best), str(images), "--out", str(out), "--format", "voc,yolo", "--device", "cpu"]
    code, message = said(predict, argv, capsys)
    assert (code, message.count("\n")) == (2, 1)
    assert "XML has no place for some of the characters" in message
    assert message[:-1].isprintable()
    assert not out.exists()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_picture_is_not_overwritten_through_a_link(
    link: object, tiny_run: TinyRun, picture: Path, images: Path, tmp_path: Path
) -> None:
    assert callable(link)
    shutil.copy(picture, images / "a.png")
    (tmp_path / "out").mkdir()
    link(images / "a.png", tmp_path / "out" / "a.png")
    with pytest.raises(DataError, match=r"out/a\.png: is a picture to predict for and would be overwritten; choose"):
        predict_files(tiny_run.best, [images], tmp_path / "out", 0.05, "cpu")
    assert (images / "a.png").read_bytes() == picture.read_bytes()


def test_two_drawings_are_not_one_file_through_a_link(
    tiny_run: TinyRun, picture: Path, images: Path, tmp_path: Path
) -> None:
    for name in ("a.png", "b.png"):
        shutil.copy(picture, images / name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.png").symlink_to("a.png")
    with pytest.raises(DataError, match=r"out/b\.png: two pictures would be written here"):
        predict_files(tiny_run.best, [images], tmp_path / "out", 0.05, "cpu")


def test_all_that_cannot_be_read_is_listed_each_on_one_line(
    tiny_run: TinyRun, picture: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(picture, images / "good.png")
    names = ["0\nerror: forged.png", *(f"{i}.png" for i in range(1, 6)), f"9{NOT_UTF8}"]
    for name in names:
        (images / name).write_text("not a picture")
    out = tmp_path / "out"
    argv = [str(tiny_run.best), str(images), "--out", str(out), "--device", "cpu"]
    code, message = said(predict, argv, capsys)
    assert (code, message.count("\n")) == (2, 1)
    assert message.startswith(f"error: 7 of 8 pictures were left out: {images}/0\\nerror: forged.png: not an image")
    assert message.endswith(f"; and 4 more, all listed in {out}/unreadable.txt\n")
    lines = (out / "unreadable.txt").read_text(encoding="utf-8").splitlines()
    escaped = ["0\\nerror: forged.png", *names[1:6], "9caf\\udce9.png"]
    assert [line.split(": not an image")[0] for line in lines] == [f"{images}/{name}" for name in escaped]
    assert not list(out.glob(".*"))
    for name in names:
        (images / name).unlink()
    predict_files(tiny_run.best, [images], out, device="cpu")
    assert not (out / "unreadable.txt").exists()
