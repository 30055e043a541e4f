"""Images of more than 8 bits, and of floats, by the upper bits, by a range and by percentiles."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detseg.config.load import config_from_dict
from detseg.data.build import open_semantic_split
from detseg.data.images.read import read_extent, read_image
from detseg.data.images.values import ValueRange, describe_low_range
from detseg.errors import ConfigError, DataError
from detseg.predict import SegmentationPredictor
from detseg.structures import UInt8Array
from tests.predict.networks import CLASSES, two_levels


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_range_is_mapped_to_8_bits_in_grey_and_in_colour(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 100, 355, 610, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"grey.{suffix}")
    cv2.imwrite(str(tmp_path / f"rgb.{suffix}"), np.dstack([values + 0, values // 2, values // 5]))  # blue, green, red
    expected = {(100, 610): [0, 0, 128, 255, 255], (0.0, 65535.0): [0, 0, 1, 2, 255], None: [0, 0, 1, 2, 255]}
    for value_range, grey in expected.items():  # (355 - 100) / 510 * 255 = 127.5, which rounds to even
        assert read_image(tmp_path / f"grey.{suffix}", value_range)[0, :, 1].tolist() == grey
    assert read_image(tmp_path / f"rgb.{suffix}", (0, 510)).tolist()[0][2] == [36, 88, 178]  # 71, 177, 355 halved
    assert read_image(tmp_path / f"rgb.{suffix}").tolist()[0][4] == [51, 127, 255]
    assert read_extent(tmp_path / f"grey.{suffix}") == read_extent(tmp_path / f"rgb.{suffix}") == (0, 65535)


def test_percentiles_are_of_each_image_and_floats_need_a_range(tmp_path: Path) -> None:
    values = np.linspace(-1, 1, 1001, dtype=np.float32)[None]
    values[0, 500] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tif")
    found = read_image(tmp_path / "a.tif", "percentiles")[0, :, 0]
    assert found[0] == found[4] == found[500] == 0
    assert found[996] == found[1000] == 255
    assert abs(int(found[501]) - 128) <= 1
    assert read_image(tmp_path / "a.tif", (-1, 1))[0, [0, 250, 1000], 0].tolist() == [0, 64, 255]
    with pytest.raises(DataError, match=r"a\.tif: .*floats.*set data\.value_range"):
        read_image(tmp_path / "a.tif")
    spot = np.zeros((40, 40), dtype=np.uint16)
    spot[3, 3] = 900  # below half a percent
    Image.fromarray(spot).save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png", "percentiles").max() == 255


@pytest.mark.parametrize("value_range", [(0.0, 10.0), "percentiles", None])
def test_images_of_8_bits_are_never_touched(tmp_path: Path, value_range: ValueRange) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", value_range), pixels)
    assert read_extent(tmp_path / "a.png") is None


def write_masks_and_images(root: Path, bits: int) -> None:
    """Images of 16 bits that use ``bits`` of them, with masks of the values 0 and 1."""
    for name in ("train/images", "train/masks"):
        (root / name).mkdir(parents=True)
    (root / "classes.txt").write_text("background\ncell\n")
    for i in range(3):
        values = np.full((20, 20), 10, dtype=np.uint16)
        values[5:12, 3:9] = 2**bits - 1 - i
        Image.fromarray(values).save(root / f"train/images/{i}.png")
        Image.fromarray((values > 10).astype(np.uint8)).save(root / f"train/masks/{i}.png")


def opened(root: Path, **settings: object) -> tuple[list[str], UInt8Array, set[int]]:
    """What the report says, and the first image and the values of its mask."""
    config = config_from_dict(
        {"data": {"name": "mask_folder", "root": str(root), **settings}, "model": {"name": "unet"}}
    )
    dataset = open_semantic_split(config.data, "train")
    sample = dataset.subset([0])[0]
    assert sample.semantic is not None
    return dataset.report.lines(), sample.image, set(np.unique(sample.semantic).tolist())


def test_12_bits_of_16_are_reported_and_mapped_by_the_setting(tmp_path: Path) -> None:
    write_masks_and_images(tmp_path, 12)
    lines, image, labels = opened(tmp_path)
    assert any(
        "values 10 to 4095 of 65535 and would be nearly black: set data.value_range=[0, 4095]" in x for x in lines
    )
    assert any("a small part of the range that is read: 3 (0.png, 1.png, 2.png)" in x for x in lines)
    assert image.max() == 15
    assert labels == {0, 1}
    lines, image, labels = opened(tmp_path, value_range=[0, 4095])
    assert not any("value_range" in x for x in lines)
    assert (image.min(), image.max(), labels) == (1, 255, {0, 1})
    lines, image, labels = opened(tmp_path, value_range="percentiles")
    assert not any("value_range" in x for x in lines)
    assert (image.min(), image.max(), labels) == (0, 255, {0, 1})
    assert any("and would be nearly black" in x for x in opened(tmp_path, value_range=[0, 100_000])[0])


@pytest.mark.parametrize(
    ("extent", "several", "words"),
    [
        ((0.0, 16383.0), True, "values 0 to 16383 of 65535 and would be dark: set data.value_range=[0, 16383]"),
        ((0.0, 16383.0), False, None),
        ((0.0, 40000.0), True, None),
        ((0.25, 1.0), True, "values 0.25 to 1, which are not those of 16 bits: set data.value_range=[0.25, 1]"),
    ],
)
def test_what_is_said_of_ranges(extent: tuple[float, float], several: bool, words: str | None) -> None:
    assert describe_low_range(extent, None, several) == words


def test_a_range_must_rise() -> None:
    for wrong in ([5, 5], [5, 1], [0, float("inf")], "minmax"):
        with pytest.raises(ConfigError, match=r"data\..*value_range"):
            config_from_dict({"data": {"name": "voc", "root": "x", "value_range": wrong}, "model": {"name": "yolo"}})


def test_a_predictor_reads_as_the_training_did_and_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_masks_and_images(tmp_path, 12)
    paths = sorted((tmp_path / "train/images").iterdir())
    caplog.set_level(logging.WARNING, "detseg")
    predictor = SegmentationPredictor(two_levels(), CLASSES, (32, 32))
    predictor([*paths])
    (line,) = caplog.messages
    assert "0.png" in line
    assert "values 10 to 4095 of 65535" in line
    assert "data.value_range=[0, 4095]" in line
    caplog.clear()
    predictor = SegmentationPredictor(two_levels(), CLASSES, (32, 32), torch.device("cpu"), value_range=(0, 4095))
    found = predictor([*paths, Image.open(paths[0])])
    assert not caplog.messages
    assert found[0].image is not None
    assert found[0].image.max() == 255
    np.testing.assert_array_equal(found[0].image, found[3].image)
