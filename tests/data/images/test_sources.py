"""What files, folders, patterns, ZIP files and addresses stand for, and what is refused."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detseg.cli.deploy.predict import predict
from detseg.data.images.read import ImageBytes, read_image
from detseg.data.images.sources import StoredImage, find_sources
from detseg.errors import ConfigError, DataError, ImageSizeError
from detseg.predict import Predictor, open_video
from detseg.predict.files import predict_files
from detseg.structures import ClassTable
from tests.predict.networks import FoundMasks, noise, write_unet

NAMES = ["a.png", "b/a.png", "b/c.jpg"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for i, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), noise(40 + i, 60))
    (folder / "notes.txt").write_text("no image")
    return folder


def zipped(folder: Path, path: Path, more: Sequence[str] = ()) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in NAMES:
            archive.write(folder / name, name)
        for name in more:
            archive.writestr(name, b"x")
    return path


def content(name: str, path: Path) -> bytes:
    buffer = io.BytesIO()
    Image.open(path).save(buffer, name)
    return buffer.getvalue()


def predictor() -> Predictor:
    boxes = torch.tensor([[10.0, 20, 50, 44], [2, 3, 34, 40]])
    return Predictor(FoundMasks(boxes).eval(), ClassTable(("sky", "road", "car"), (5, 7, 90)), (64, 96))


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()[1:]]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.png", ["a.png"]),
        ("photos/*", NAMES),  # folders are searched
        ("photos/**/*.png", ["a.png", "b/a.png"]),
        ("photos/**", NAMES),
        ("*/b/c.jp[g]", ["photos/b/c.jpg"]),
    ],
)
def test_patterns(folder: Path, pattern: str, expected: list[str]) -> None:
    (folder / ".hidden.png").write_bytes(b"x")
    found = find_sources([str(folder.parent / pattern)])
    assert [name.as_posix() for _, name in found] == expected
    assert [place for place, _ in found] == [folder.parent / ("photos/" * ("photos/" in pattern) + n) for n in expected]


def test_folders_that_are_called_like_patterns(folder: Path) -> None:
    named = folder.rename(folder.with_name("photos [1]"))
    for pattern, expected in (("*.png", ["a.png"]), ("**/*.jpg", ["b/c.jpg"]), ("[b]/c.jpg", ["b/c.jpg"])):
        found = find_sources([str(named / pattern)])
        assert found == [(named / name, Path(name)) for name in expected]
    assert [name.as_posix() for _, name in find_sources([str(folder.parent / "* [[]1]")])] == [
        f"{named.name}/{name}" for name in NAMES
    ]
    with pytest.raises(DataError, match=r"none\.png: no such file or folder"):
        find_sources([str(named / "none.png")])


def test_a_pattern_matches_zip_files(folder: Path, tmp_path: Path) -> None:
    """Their images are named as if each were a folder."""
    zipped(folder, folder / "more.zip", ["inner/c.zip"])
    passed_over: list[Path] = []
    found = find_sources([str(folder / "[am]*")], passed_over)
    assert [name.as_posix() for _, name in found] == ["a.png", "more/a.png", "more/b/a.png", "more/b/c.jpg"]
    assert passed_over == [folder / "more.zip" / "inner" / "c.zip"]


def test_a_pattern_of_nothing(folder: Path) -> None:
    with pytest.raises(DataError, match=r"\*\.gif: holds no images"):
        find_sources([str(folder / "*.gif")])


def test_a_zip_file_gives_what_its_folder_gives(folder: Path, tmp_path: Path) -> None:
    archive = zipped(folder, tmp_path / "photos.ZIP", ["__MACOSX/a.png", ".a.png", "notes.txt"])
    predict_files(predictor(), [folder], tmp_path / "one", formats=["coco", "labelme"])
    predict_files(predictor(), [archive], tmp_path / "other", formats=["coco", "labelme"])
    assert lines_of(tmp_path / "one") == lines_of(tmp_path / "other")
    for name in [*NAMES, "detections.json", "images.json"]:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert not [path for path in tmp_path.rglob("*") if path.name == "notes.txt" and path.parent != folder]


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a/../../x.png", "..\\x.png", "C:\\x.png"])
def test_names_that_lead_out_of_a_zip_file(folder: Path, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(zipped(folder, tmp_path / "a.zip"), "a") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(DataError, match="leads out of the ZIP file; pack it again"):
        find_sources([tmp_path / "a.zip"])


def test_zip_files_without_images(tmp_path: Path) -> None:
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    (tmp_path / "none.zip").write_bytes(b"PK\3\4 and nothing more")
    with pytest.raises(DataError, match=r"empty\.zip: holds no images"):
        find_sources([tmp_path / "empty.zip"])
    with pytest.raises(DataError, match=r"none\.zip: is no ZIP file, or it is cut short"):
        find_sources([tmp_path / "none.zip"])


def test_a_zip_file_that_is_cut_behind_one_that_is_in_it(folder: Path, tmp_path: Path) -> None:
    inner = zipped(folder, tmp_path / "inner.zip")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        for name in (folder / "a.png", inner, folder / "b" / "c.jpg"):
            archive.write(name, name.name)
    data = (tmp_path / "outer.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: data.index(b"c.jpg", data.index(b"PK\5\6"))])
    before = data.index(inner.read_bytes())
    with pytest.raises(DataError, match=rf"cut\.zip: its list of files leaves out the first {before} bytes: it is cut"):
        find_sources([tmp_path / "cut.zip"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["d.jpg", "d.jpg/inside.jpg"],
            r"d\.jpg: would be a file, of .*/d\.jpg, and a folder, of .*inside\.jpg; ",
        ),
        (
            ["x" * 300 + ".jpg"],
            r"xxx\.jpg would be written for it, whose name has a part of more than 246 bytes; rename t",
        ),
    ],
)
def test_names_that_no_disk_takes_are_refused_before_work(tmp_path: Path, names: list[str], message: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    with pytest.raises(DataError, match=message):
        predict_files(predictor(), [tmp_path / "a.zip"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bomb_and_damage_in_a_zip_file_are_named_and_the_rest_is_done(folder: Path, tmp_path: Path) -> None:
    archive = zipped(folder, tmp_path / "a.zip")
    data = bytearray(archive.read_bytes())
    entry = data.rindex(b"PK\1\2", 0, data.rindex(b"PK\1\2"))  # that of b/a.png, in the list at the end
    data[entry + 24 : entry + 28] = (2**31).to_bytes(4, "little")  # its size, unpacked
    data[data.index(b"a.png") + 200] ^= 255  # in the content of the first one
    archive.write_bytes(data)
    with pytest.raises(DataError, match="2 of 3 images were left out") as caught:
        predict_files(predictor(), [archive], tmp_path / "out")
    assert f"{archive}/a.png: the ZIP file is damaged here" in str(caught.value)
    assert f"{archive}/b/a.png: would be 2147483648 bytes unpacked, more than" in str(caught.value)
    assert [line["file_name"] for line in lines_of(tmp_path / "out")] == ["b/c.jpg"]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def server(folder: Path, kind: type[Quiet] = Quiet) -> Iterator[str]:
    def handler(*arguments: Any) -> Quiet:
        return kind(*arguments, directory=str(folder))

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def test_addresses_only_where_the_network_is_allowed(folder: Path, tmp_path: Path) -> None:
    with server(folder) as address:
        urls = [f"{address}/b/c.jpg?token=abc", f"{address}/none.png"]
        with pytest.raises(ConfigError, match=r"token=\*\*\*: is on the network, which is not used unless you allow"):
            find_sources(urls)
        with pytest.raises(DataError, match=r"1 of 2 images were left out: .*/none\.png: could not be down.*404"):
            predict_files(predictor(), urls, tmp_path / "out", allow_network=True)
        ((place, name),) = find_sources(urls[:1], allow_network=True)
        assert name == Path("c.jpg")
        assert isinstance(place, StoredImage)
        with pytest.raises(ImageSizeError, match=r"c\.jpg\?token=\*\*\*: the file declares 60 x 42 pixels, more than"):
            read_image(place.load(max_pixels=2519))
        np.testing.assert_array_equal(read_image(place.load(2520)), read_image(folder / "b" / "c.jpg"))
        (folder / "none.png").write_bytes((folder / "a.png").read_bytes())
        predict_files(predictor(), urls, tmp_path / "out", allow_network=True, resume=True)
    assert [line["file_name"] for line in lines_of(tmp_path / "out")] == ["c.jpg", "none.png"]


class WithPassword(Quiet):
    def do_GET(self) -> None:
        if self.headers["Authorization"] == "Basic bWU6c2U6Y3JldA==":  # me:se:cret
            super().do_GET()
        else:
            self.send_error(401)


def test_addresses_with_a_password_and_with_spaces(folder: Path) -> None:
    (folder / "b" / "ü 1.png").write_bytes((folder / "a.png").read_bytes())
    with server(folder, WithPassword) as address:
        start = address.replace("//", "//me:se%3Acret@")
        for name in ("b/ü 1.png", "b/%C3%BC%201.png?x=a b"):
            ((place, _),) = find_sources([f"{start}/{name}"], allow_network=True)
            assert isinstance(place, StoredImage)
            np.testing.assert_array_equal(read_image(place.load(10_000)), read_image(folder / "a.png"))
        ((place, _),) = find_sources([f"{address}/a.png"], allow_network=True)
        assert isinstance(place, StoredImage)
        with pytest.raises(DataError, match="401"):
            place.load(10_000)


@contextmanager
def silent_server() -> Iterator[str]:
    """It answers nothing, and after half a second Ctrl-C is pressed."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert time.monotonic() - began < 5  # the limit on a silent server is 20
    signal.signal(signal.SIGINT, before)
    assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("detseg-"))


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_ctrl_c_does_not_wait_for_a_server(folder: Path, tmp_path: Path) -> None:
    with silent_server() as address:
        predict_files(predictor(), [folder / "a.png", f"{address}/a.jpg"], tmp_path / "out", allow_network=True)
    assert [line["file_name"] for line in lines_of(tmp_path / "out")] == ["a.png"]
    assert json.loads((tmp_path / "out" / "images.json").read_text())["images"][0]["file_name"] == "a.png"
    with silent_server() as address:
        open_video(f"{address}/a.mp4", allow_network=True)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "PPM"])
def test_t8_the_limit_on_pixels_is_ours(folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    data = ImageBytes(content(kind, folder / "a.png"), "large")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # half of what Pillow then refuses
    assert read_image(data).shape == (40, 60, 3)
    with pytest.raises(ImageSizeError, match="large: the file declares 60 x 40 pixels, more than the 2399 "):
        read_image(ImageBytes(data.data, "large", max_pixels=2399))


@pytest.mark.parametrize("kind", ["TIFF", "WEBP"])
def test_t8_formats_in_which_pillow_has_a_limit_too(folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    data = ImageBytes(content(kind, folder / "a.png"), "large")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageSizeError, match="large: the file declares more pixels than Pillow reads in this f"):
        read_image(data)


def test_t8_a_predictor_allows_more_or_fewer_pixels(folder: Path, tmp_path: Path) -> None:
    found = predictor()
    found.max_pixels = 2399
    with pytest.raises(ImageSizeError, match="more than the 2399 that are read"):
        found(folder / "a.png")
    with pytest.raises(DataError, match="cut it into tiles, or allow it with --max-pixels "):
        predict_files(found, [folder / "a.png"], tmp_path / "out")
    found.max_pixels = 2400
    assert len(found(folder / "a.png")) == 2


def test_t8_a_large_image_goes_through_in_tiles(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # what the option sets is undone at the end
    cv2.imwrite(str(tmp_path / "a.tif"), noise(96, 128))
    argv = [str(write_unet(tmp_path / "unet.ckpt")), str(tmp_path / "a.tif"), "--out", str(tmp_path / "out")]
    assert predict([*argv, "--tile", "48", "64", "--max-pixels", "12288", "--device", "cpu"]) == 0
    assert sum(lines_of(tmp_path / "out")[0]["pixels"].values()) == 96 * 128
    with pytest.raises(DataError, match=r"a\.tif: the file declares 128 x 96 pixels, more than the 12287 that"):
        predict([*argv[:3], str(tmp_path / "other"), "--max-pixels", "12287", "--device", "cpu"])
