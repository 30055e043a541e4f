"""The training transform: contracts of its results, independence of its choices, what it leaves alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import detseg
from detseg.config.schema.data import AffineConfig, AugmentationConfig, ColorConfig, CutoutConfig, JpegConfig
from detseg.data.augment.geometry import AugmentItem
from detseg.data.augment.pipeline import TrainTransform
from detseg.ops.letterbox import PAD_VALUE, Letterbox
from tests.data.images.painted import assert_valid, bounds, painted

OFF = AugmentationConfig(horizontal_flip=0.0)
EVERYTHING = AugmentationConfig(
    horizontal_flip=0.5,
    vertical_flip=0.5,
    crop=0.5,
    affine=AffineConfig(probability=0.9, scale=(0.3, 2.0), translate=0.5, rotate_degrees=180, shear_degrees=20),
    color=ColorConfig(probability=0.5, hue=0.5),
    blur=0.5,
    noise=0.5,
    jpeg=JpegConfig(probability=0.5, quality=(1, 100)),
    cutout=CutoutConfig(probability=0.5, max_size=1.0),
    min_box_size=0.0,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_switched_off_it_is_the_letterbox_of_evaluation() -> None:
    item = painted((50, 80), (10, 10, 40, 30))
    item.image[...] = rng().integers(0, 256, item.image.shape)
    letterbox = Letterbox.fit((50, 80), (64, 96))
    result = TrainTransform(OFF)(item, (64, 96), rng())
    np.testing.assert_array_equal(result.image, letterbox.apply(item.image))
    np.testing.assert_array_equal(result.boxes, letterbox.boxes_to_input(item.boxes))
    assert result.semantic is None


@st.composite
def annotated_images(draw: st.DrawFn) -> AugmentItem:
    height, width, num = draw(st.integers(1, 70)), draw(st.integers(1, 70)), draw(st.integers(0, 5))
    random = rng(draw(st.integers(0, 2**32 - 1)))
    low = random.uniform(0, 1, (num, 2))
    high = low + (1 - low) * 10.0 ** random.uniform(-6, 0, (num, 2))  # thin boxes and such that touch the border too
    boxes = (np.concatenate([low, high], axis=1) * [width, height, width, height]).astype(np.float32)
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return AugmentItem(image, boxes, random.integers(0, 9, len(boxes)), random.random(len(boxes)) < 0.5)


TRANSFORM = TrainTransform(EVERYTHING)


@settings(deadline=None)
@given(annotated_images(), st.integers(0, 2**32 - 1), st.sampled_from([(32, 32), (64, 96), (96, 64)]))
def test_any_boxes_in_valid_boxes_out(item: AugmentItem, seed: int, hw: tuple[int, int]) -> None:
    before = item.image.copy(), item.boxes.copy()
    result = TRANSFORM(item, hw, rng(seed))
    assert_valid(result, hw)
    np.testing.assert_array_equal(item.image, before[0])  # readers may keep what they hand out
    np.testing.assert_array_equal(item.boxes, before[1])


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(st.integers(0, 50), st.integers(0, 40)))
def test_a_painted_box_follows_its_pixels(seed: int, corner: tuple[int, int]) -> None:
    x, y = corner
    config = AugmentationConfig(
        horizontal_flip=0.5,
        vertical_flip=0.5,
        crop=0.5,
        affine=AffineConfig(probability=0.5, scale=(0.8, 1.5), translate=0.3),
        min_visibility=0.3,
    )
    result = TrainTransform(config)(painted((60, 80), (x, y, x + 20, y + 16)), (96, 96), rng(seed))
    if len(result.boxes):
        np.testing.assert_allclose(bounds(result.image), result.boxes[0], atol=1.5)


def test_tiny_boxes_are_dropped_in_pixels_of_the_input() -> None:
    item = painted((200, 200), (10, 10, 16, 50), (100, 100, 108, 150))  # 6 and 8 pixels wide, at a quarter 1.5 and 2
    result = TrainTransform(OFF)(item, (50, 50), rng())
    assert result.boxes.tolist() == [[25, 25, 27, 37.5]]


@pytest.mark.parametrize(
    "config",
    [
        AugmentationConfig(horizontal_flip=0, color=ColorConfig(probability=1)),
        AugmentationConfig(horizontal_flip=0, blur=1),
        AugmentationConfig(horizontal_flip=0, noise=1),
        AugmentationConfig(horizontal_flip=0, jpeg=JpegConfig(probability=1, quality=(20, 40))),
        AugmentationConfig(horizontal_flip=0, cutout=CutoutConfig(probability=1)),
    ],
)
def test_each_pixel_change_changes_pixels_only(config: AugmentationConfig) -> None:
    item = painted((64, 64), (8, 8, 24, 30))
    item.image[...] = rng().integers(30, 220, item.image.shape)
    plain = TrainTransform(OFF)(item, (64, 64), rng())
    result = TrainTransform(config)(item, (64, 64), rng())
    assert (result.image != plain.image).any()
    np.testing.assert_array_equal(result.boxes, plain.boxes)


def test_cutout_leaves_boxes_and_stays_below_its_size() -> None:
    config = AugmentationConfig(horizontal_flip=0, cutout=CutoutConfig(probability=1, max_holes=1, max_size=0.25))
    transform = TrainTransform(config)
    item = painted((80, 80), (0, 0, 80, 80))
    for seed in range(30):
        result = transform(item, (80, 80), rng(seed))
        assert len(result.boxes) == 1
        rows, columns = np.nonzero((result.image == PAD_VALUE).all(axis=2))
        assert 5 <= np.ptp(rows) + 1 <= 20
        assert 5 <= np.ptp(columns) + 1 <= 20


def test_changes_happen_independently_of_each_other() -> None:
    """Under one seed for all (albumentations' set_random_seed) they would happen together or not at all."""
    config = AugmentationConfig(horizontal_flip=0, noise=0.5, cutout=CutoutConfig(probability=0.5))
    transform = TrainTransform(config)
    item = painted((32, 32))
    happened = []
    for seed in range(400):
        image = transform(item, (32, 32), rng(seed)).image
        holes = (image == PAD_VALUE).all(axis=2)
        happened.append((bool(holes.any()), bool(image[~holes].any())))
    # 100 of each kind are expected; the standard deviation is 8.7.
    for kind in ((False, False), (False, True), (True, False), (True, True)):
        assert 65 < happened.count(kind) < 135


def test_the_generator_alone_decides() -> None:
    item = painted((50, 60), (10, 10, 30, 30))
    first = TRANSFORM(item, (64, 64), rng(7))
    TRANSFORM(item, (64, 64), rng(8))
    again = TRANSFORM(item, (64, 64), rng(7))
    fresh = TrainTransform(EVERYTHING)(item, (64, 64), rng(7))
    for other in (again, fresh):
        np.testing.assert_array_equal(first.image, other.image)
        np.testing.assert_array_equal(first.boxes, other.boxes)


def test_albumentations_is_imported_in_one_file_only() -> None:
    root = Path(detseg.__file__).parent
    importing = [
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if re.search(r"^\s*(import|from) albumentations", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    ]
    assert importing == ["data/augment/pipeline.py"]


@pytest.mark.parametrize(
    "section",
    [
        {"jpeg": {"quality": [95, 50]}},
        {"affine": {"scale": [1.2, 0.8]}},
        {"mosaic_scale": [1.5, 0.5]},
        {"multi_scale": [1.5, 0.5]},
    ],
)
def test_ranges_run_from_low_to_high(section: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"expected \[lowest, highest\]"):
        AugmentationConfig.model_validate_json(json.dumps(section))


def test_what_is_switched_off_draws_nothing() -> None:
    """Crop, two flips, affine map: four numbers, whatever was added since: old settings keep their stream."""
    generator = rng(5)
    TrainTransform(OFF)(painted((50, 80), (10, 10, 40, 30)), (64, 96), generator)
    assert generator.random() == rng(5).random(5)[4]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.tuples(st.integers(0, 50), st.integers(0, 40)))
def test_a_painted_box_follows_scale_jitter(seed: int, corner: tuple[int, int]) -> None:
    x, y = corner
    config = AugmentationConfig(
        scale_jitter=(0.5, 2.0), affine=AffineConfig(probability=0.5, scale=(0.8, 1.2)), min_visibility=0.3
    )
    result = TrainTransform(config)(painted((60, 80), (x, y, x + 20, y + 16)), (96, 96), rng(seed))
    assert_valid(result, (96, 96))
    if len(result.boxes):
        np.testing.assert_allclose(bounds(result.image), result.boxes[0], atol=1.5)
