"""JPEGs: the pixels of other decoders, at a fraction of the size too, and damage that is noticed in any thread."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from detseg.data.formats.voc import read_voc
from detseg.data.images.read import read_image, read_reduced
from detseg.errors import DataError
from detseg.structures import UInt8Array
from tests.data.formats.layouts import annotation_xml, object_xml, write_voc
from tests.data.images.painted import save_turned
from tests.shared_data import shared_data

REDUCED = {k: getattr(cv2, f"IMREAD_REDUCED_COLOR_{k}") for k in (2, 4, 8)} | {1: cv2.IMREAD_COLOR}


def smooth(height: int, width: int) -> UInt8Array:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]  # OpenCV's stubs know no dtypes


@pytest.mark.parametrize("divisor", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": "4:2:2"}, {"subsampling": "4:4:4"}, {"mode": "L"}], ids=str
)
def test_the_pixels_are_those_of_opencv(tmp_path: Path, options: dict[str, Any], divisor: int) -> None:
    path, image = tmp_path / "a.jpg", Image.fromarray(smooth(97, 131))
    image.convert(options.get("mode", "RGB")).save(path, quality=95, **{**options, "mode": None})
    path.write_bytes(path.read_bytes() + b"\0\0trailer")  # no damage
    expected = cv2.imread(str(path), REDUCED[divisor])
    assert expected is not None
    found, hw = read_reduced(path, divisor)
    assert (hw, found.flags.writeable, found.flags.c_contiguous) == ((97, 131), True, True)
    np.testing.assert_array_equal(found, expected[..., ::-1])


def outcome(path: Path) -> str:
    try:
        return hashlib.sha256(read_image(path).tobytes()).hexdigest()
    except DataError as error:
        return str(error)


def damaged_files(folder: Path) -> list[Path]:
    """Two JPEGs, one of them progressive, cut short, with bytes lost, zeroed or flipped; and the shared files."""
    for kind, progressive in (("base", False), ("prog", True)):
        buffer = BytesIO()
        Image.open(shared_data("malformed", "images", "hopper.jpg")).save(buffer, "JPEG", progressive=progressive)
        data = buffer.getvalue()
        for place in np.linspace(700, len(data) - 400, 6).astype(int).tolist():
            head, tail, flipped = data[:place], data[place + 300 :], bytes([data[place] ^ 64]) + data[place + 1 :]
            versions = {"cut": b"", "lost": tail, "zero": bytes(300) + tail, "ends": b"\xff\xd9", "flip": flipped}
            for how, rest in versions.items():
                (folder / f"{kind}_{place}_{how}.jpg").write_bytes(head + rest)
    return [*sorted(folder.iterdir()), *sorted(shared_data("malformed", "images").iterdir())]


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged headers
def test_damage_has_one_outcome_in_any_thread_and_process(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = damaged_files(tmp_path)
    expected = [outcome(path) for path in files]
    for how, least in (("cut", 12), ("ends", 12), ("lost", 10), ("zero", 6)):
        texts = [text for path, text in zip(files, expected, strict=True) if path.stem.endswith(how)]
        assert sum(str(tmp_path) in text for text in texts) >= least, how
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(outcome, files)) == expected
    if "fork" in multiprocessing.get_all_start_methods():
        with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as processes:
            assert list(processes.map(outcome, files, chunksize=20)) == expected
    assert capfd.readouterr() == ("", "")  # decoders print nothing themselves


def test_lost_bytes_are_an_error_though_pillow_returns_an_image(tmp_path: Path) -> None:
    for mode in ("RGB", "L", "CMYK"):
        buffer, path = BytesIO(), tmp_path / f"{mode}.jpg"
        Image.open(shared_data("malformed", "images", "hopper.jpg")).convert(mode).save(buffer, "JPEG")
        data = buffer.getvalue()
        path.write_bytes(data[: len(data) // 2] + data[len(data) // 2 + 300 :])
        for divisor in (1, 2):
            with pytest.raises(DataError) as caught:
                read_reduced(path, divisor)
            assert str(caught.value).startswith(
                f"{path}: the image is damaged, a part of its pixels is lost (the decoder says: Corrupt JPEG data: "
            )


def test_stray_bytes_are_logged_with_a_name_safe_to_print(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "\x1b[2J\nb.jpg"
    path.write_bytes(shared_data("malformed", "images", "hopper_bad_exif.jpg").read_bytes())
    with caplog.at_level(logging.WARNING, "detseg"), Image.open(path) as reference:
        np.testing.assert_array_equal(read_image(path), np.asarray(reference.convert("RGB")))
    expected = f"{tmp_path}/\\x1b[2J\\nb.jpg: Corrupt JPEG data: 1214 extraneous bytes before marker 0xd0"
    assert caplog.messages == [expected]


def test_reduced_images_are_upright_and_other_formats_stay_whole(tmp_path: Path) -> None:
    image = smooth(80, 48)
    turned, hw = read_reduced(save_turned(tmp_path / "turned.jpg", image, 6, quality=95), 2)
    assert hw == (80, 48)
    assert np.abs(image.reshape(40, 2, 24, 2, 3).mean(axis=(1, 3)) - turned).mean() < 4
    np.testing.assert_array_equal(read_reduced(save_turned(tmp_path / "a.png", image, 1), 4)[0], image)
    assert read_reduced(save_turned(tmp_path / "odd.jpg", smooth(49, 80), 3), 2)[0].shape == (49, 80, 3)
    Image.fromarray(image).convert("CMYK").save(tmp_path / "cmyk.jpg")
    with Image.open(tmp_path / "cmyk.jpg") as reference:
        np.testing.assert_array_equal(read_reduced(tmp_path / "cmyk.jpg", 2)[0], np.asarray(reference.convert("RGB")))


def test_samples_are_reduced_with_their_boxes_and_a_wrong_size_is_noticed_all_the_same(tmp_path: Path) -> None:
    dataset = read_voc(shared_data("bccd"), "train")
    for side, divisor in ((640, 1), (416, 1), (320, 2), (160, 4), (32, 8)):
        sample = dataset.reduced(3, (side, side))
        assert sample.hw == (480 // divisor, 640 // divisor)
        np.testing.assert_array_equal(sample.boxes * divisor, dataset[3].boxes)
    xml = annotation_xml(object_xml(("cell", 1, 1, 9, 9)), size_wh=(128, 96))
    dataset = read_voc(write_voc(tmp_path, {"train": "a"}, {"a": xml}), "train")
    Image.fromarray(smooth(95, 128)).save(dataset.path(0))
    with pytest.raises(DataError, match="the image is 128 x 95 pixels"):
        dataset.reduced(0, (32, 32))
