"""JPEGs with bytes lost from their middle: what libjpeg says is heard, and nothing else is."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from detseg.data.images.decoder_messages import lost_pixels
from detseg.data.images.read import read_image
from detseg.errors import DataError
from tests.shared_data import shared_data


def cut(folder: Path, start: int = 4000, num: int = 300) -> Path:
    """A photograph of 128 x 128 without some bytes of its middle; it ends as it should."""
    data = shared_data("malformed", "images", "hopper.jpg").read_bytes()
    path = folder / "cut.jpg"
    path.write_bytes(data[:start] + data[start + num :])
    return path


def test_lost_bytes_are_an_error_though_every_decoder_returns_a_picture(tmp_path: Path) -> None:
    path = cut(tmp_path)
    whole = read_image(shared_data("malformed", "images", "hopper.jpg"))
    with Image.open(path) as picture:
        assert np.asarray(picture).shape == whole.shape  # Pillow: a whole picture, and not a word
        assert not np.array_equal(np.asarray(picture), whole)
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value) == (
        f"{path}: the image is damaged, a part of its pixels is lost (the decoder says: Corrupt JPEG data: premature "
        "end of data segment); replace the file or take it off the list; if it looks whole, save it anew"
    )


def test_a_lost_disk_block_is_noticed_wherever_it_lay(tmp_path: Path) -> None:
    photographs = sorted(shared_data("coco_mini", "images").iterdir())[:8]
    rng = np.random.default_rng(0)
    for source in photographs:
        data = source.read_bytes()
        start = int(rng.integers(1000, len(data) - 5000))
        path = tmp_path / source.name
        path.write_bytes(data[:start] + data[start + 4096 :])
        with pytest.raises(DataError, match=source.name):
            read_image(path)


def test_bytes_that_belong_to_nothing_are_no_damage(capfd: pytest.CaptureFixture[str]) -> None:
    path = shared_data("malformed", "images", "hopper_bad_exif.jpg")
    read_image(path)
    # Passed on, but with the name of the file.
    assert capfd.readouterr().err == f"{path}: Corrupt JPEG data: 1214 extraneous bytes before marker 0xd0\n"


def test_a_damaged_file_leaves_nothing_behind_for_the_next(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        with pytest.raises(DataError, match="pixels is lost"):
            read_image(cut(tmp_path))
        read_image(shared_data("malformed", "images", "hopper.jpg"))
    assert capfd.readouterr().err == ""


def test_what_others_print_meanwhile_arrives(capfd: pytest.CaptureFixture[str]) -> None:
    assert lost_pixels(lambda: os.write(2, b"a line of another thread\n"), "a.jpg") == (25, "")
    assert capfd.readouterr().err == "a line of another thread\n"


def test_a_decoder_that_raises_gives_standard_error_back(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        os.write(2, b"Corrupt JPEG data: premature end of data segment\n")
        raise cv2.error("no memory")

    with pytest.raises(cv2.error):
        lost_pixels(fail, "a.jpg")
    assert lost_pixels(lambda: 1, "a.jpg") == (1, "")
    os.write(2, b"free\n")
    assert capfd.readouterr().err == "free\n"


def test_a_process_without_standard_error_reads_images() -> None:
    stderr = os.dup(2)
    os.close(2)
    try:
        image = read_image(shared_data("malformed", "images", "hopper.jpg"))
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    assert image.shape == (128, 128, 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process")  # Python's, of threads and forks
def test_a_forked_process_listens_to_itself_alone(tmp_path: Path) -> None:
    path = cut(tmp_path)
    with pytest.raises(DataError, match="pixels is lost"):
        read_image(path)
    go_on, going = os.pipe()
    child = os.fork()
    if child == 0:  # at the very time when the parent listens: its own reading must not disturb that
        os.read(go_on, 1)
        with_error = 0
        for _ in range(20):
            try:
                read_image(path)
            except DataError:
                with_error += 1
        os._exit(with_error)
    os.write(going, b"x")
    whole = shared_data("malformed", "images", "hopper.jpg")
    for _ in range(20):
        read_image(whole)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 20


def test_threads_of_an_application_decode_side_by_side(capfd: pytest.CaptureFixture[str]) -> None:
    both = threading.Barrier(2, timeout=30)

    def decode() -> str:
        both.wait()  # would never end if one waited for the other
        os.write(2, b"a thread's own line\n")
        return "decoded"

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: lost_pixels(decode, "a.jpg"), range(2)))
    assert found == [("decoded", "")] * 2
    assert capfd.readouterr().err == "a thread's own line\n" * 2


def test_a_name_cannot_move_the_cursor_of_a_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "\x1b[2J\nb.jpg"
    path.write_bytes(shared_data("malformed", "images", "hopper_bad_exif.jpg").read_bytes())
    read_image(path)
    assert capfd.readouterr().err.startswith(f"{tmp_path}/\\x1b[2J\\nb.jpg: Corrupt JPEG data: ")
