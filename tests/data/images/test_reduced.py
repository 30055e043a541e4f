"""JPEGs that are decoded at a fraction of their size, and headers that are read without Pillow."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from detseg.data.annotations.model import PackedAnnotations
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.voc import read_voc
from detseg.data.images.jpeg_header import plain_jpeg_hw
from detseg.data.images.read import read_image, read_reduced
from detseg.errors import DataError
from detseg.structures import UInt8Array
from tests.shared_data import shared_data


def smooth(height: int, width: int) -> UInt8Array:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]  # OpenCV's stubs know no dtypes


def saved(path: Path, image: UInt8Array, orientation: int = 1, **options: Any) -> Path:
    if orientation != 1:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    Image.fromarray(image).save(path, quality=95, **options)
    return path


@pytest.mark.parametrize("divisor", [1, 2, 4, 8])
@pytest.mark.parametrize("hw", [(96, 128), (97, 131), (7, 9)])
@pytest.mark.parametrize("progressive", [False, True])
def test_pixels_show_the_mean_of_what_they_stand_for(
    tmp_path: Path, divisor: int, hw: tuple[int, int], progressive: bool
) -> None:
    path = saved(tmp_path / "a.jpg", smooth(*hw), progressive=progressive)
    image, whole_hw = read_reduced(path, divisor)
    assert whole_hw == hw
    assert image.shape == (-(-hw[0] // divisor), -(-hw[1] // divisor), 3)
    rows, columns = (side // divisor for side in hw)
    full = read_image(path)[: rows * divisor, : columns * divisor].astype(float)
    means = full.reshape(rows, divisor, columns, divisor, 3).mean(axis=(1, 3))
    if rows > 4:
        assert np.abs(image[:rows, :columns] - means).mean() < 4


def test_orientation_is_applied_and_other_formats_stay_whole(tmp_path: Path) -> None:
    image = smooth(48, 80)
    turned, hw = read_reduced(saved(tmp_path / "turned.jpg", image, orientation=6), 2)
    assert hw == (80, 48)
    assert turned.shape == (40, 24, 3)
    upright = read_image(tmp_path / "turned.jpg").reshape(40, 2, 24, 2, 3).mean(axis=(1, 3))
    assert np.abs(upright - turned).mean() < 4
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_reduced(tmp_path / "a.png", 4)[0], image)


def test_damage_is_told_at_any_size(tmp_path: Path) -> None:
    data = saved(
        tmp_path / "a.jpg", np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    ).read_bytes()
    for name, content in (("hole", data[:9000] + data[13000:]), ("short", data[:9000]), ("text", b"no picture")):
        path = tmp_path / f"{name}.jpg"
        path.write_bytes(content)
        errors = []
        for divisor in (1, 2):
            with pytest.raises(DataError) as caught:
                read_reduced(path, divisor)
            errors.append(str(caught.value))
        assert errors[0] == errors[1]


def test_headers_say_what_pillow_says(tmp_path: Path) -> None:
    image = smooth(30, 50)
    grey = np.ascontiguousarray(image[..., 0])
    assert plain_jpeg_hw(saved(tmp_path / "a.jpg", image).read_bytes()) == (30, 50)
    assert plain_jpeg_hw(saved(tmp_path / "b.jpg", grey, progressive=True).read_bytes()) == (30, 50)
    assert plain_jpeg_hw(saved(tmp_path / "c.jpg", image, orientation=3).read_bytes()) is None  # Pillow is asked
    cmyk = BytesIO()
    Image.fromarray(image).convert("CMYK").save(cmyk, format="JPEG")
    assert plain_jpeg_hw(cmyk.getvalue()) is None
    whole = (tmp_path / "a.jpg").read_bytes()
    for length in range(len(whole)):
        assert plain_jpeg_hw(whole[:length] + b"\xff\xd9") in (None, (30, 50))
    assert plain_jpeg_hw(whole[:-2]) is None
    assert plain_jpeg_hw(b"") is None


def test_headers_of_real_and_damaged_files_say_what_pillow_says() -> None:
    files = [*shared_data("malformed", "images").iterdir(), *list(shared_data("coco_mini").rglob("*.jpg"))]
    found = 0
    for file in files:
        hw = plain_jpeg_hw(file.read_bytes()) if file.is_file() else None
        if hw is not None:
            with Image.open(file) as header:
                assert header.format == "JPEG"
                assert header.mode in ("L", "RGB")
                assert (header.height, header.width) == hw
                assert header.getexif().get(0x0112, 1) == 1
            found += 1
    assert found > 10


def test_samples_are_reduced_with_their_boxes() -> None:
    dataset = read_voc(shared_data("bccd"), "train")
    whole = dataset[3]
    for side, divisor in ((640, 1), (416, 1), (320, 2), (160, 4), (32, 8)):
        sample = dataset.reduced(3, (side, side))
        assert sample.hw == (480 // divisor, 640 // divisor)
        np.testing.assert_array_equal(sample.boxes * divisor, whole.boxes)
        np.testing.assert_array_equal(sample.labels, whole.labels)


def test_a_wrong_size_is_told_although_the_reduced_one_fits(tmp_path: Path) -> None:
    saved(tmp_path / "a.jpg", smooth(95, 128))
    source = read_voc(shared_data("bccd"), "train")
    packed = source.packed.select([0])
    columns = {name: getattr(packed, name) for name in packed.__dataclass_fields__}
    columns |= {"path_bytes": b"a.jpg", "path_offsets": np.array([0, 5])}
    columns |= {"sizes_hw": np.array([[96, 128]], dtype=packed.sizes_hw.dtype)}
    dataset = DetectionDataset(PackedAnnotations(**columns), tmp_path, source.classes, source.report, "made")
    with pytest.raises(DataError, match="the image is 128 x 95 pixels"):
        dataset.reduced(0, (32, 32))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("divisor", [2, 4, 8])
def test_turned_pixels_stay_where_boxes_expect_them(tmp_path: Path, orientation: int, divisor: int) -> None:
    """Of a side that is no multiple of the divisor the incomplete pixel comes last; turned, it would come first."""
    image = np.zeros((601, 801, 3), dtype=np.uint8)
    path = saved(tmp_path / "a.jpg", image, orientation)
    height, width = read_image(path).shape[:2]
    top, left = (side // 2 // divisor * divisor for side in (height, width))
    upright = np.zeros((height, width, 3), dtype=np.uint8)
    upright[top:, left:] = 255
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1]}
    stored |= {5: upright.swapaxes(0, 1), 6: np.rot90(upright), 7: upright[::-1, ::-1].swapaxes(0, 1)}
    stored[8] = np.rot90(upright, -1)
    path = saved(path, np.ascontiguousarray(stored[orientation]), orientation)
    assert read_image(path)[top + 8 :, left + 8 :].min() > 200
    reduced, hw = read_reduced(path, divisor)
    assert hw == (height, width)
    used = 1 if reduced.shape[:2] == hw else divisor
    white = reduced[..., 0] > 128
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    assert (rows[0], columns[0]) == (top // used, left // used)
    assert (rows[-1], columns[-1]) == (reduced.shape[0] - 1, reduced.shape[1] - 1)
    assert used == divisor or orientation != 1
