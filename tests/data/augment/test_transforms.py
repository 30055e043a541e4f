"""The training transform: contracts of its results, independence of its choices, what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.config.schema.data import AffineConfig, AugmentationConfig, ColorConfig, CutoutConfig, JpegConfig
from detseg.data.augment.pipeline import TrainTransform
from detseg.ops.letterbox import PAD_VALUE, Letterbox
from tests.data.images.painted import (
    assert_bounds_of_masks,
    blobs,
    bounds,
    edges,
    ellipses,
    letterboxed_labels,
    painted,
)

OFF = AugmentationConfig(horizontal_flip=0.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_switched_off_it_is_the_letterbox_of_evaluation() -> None:
    for hw in ((50, 80), (300, 200), (64, 96)):
        image, semantic = rng().integers(0, 256, (*hw, 3), np.uint8), rng().integers(0, 256, hw, np.uint8)
        item = replace(painted(hw, (10, 10, 40, 30)), image=image, semantic=semantic)
        letterbox = Letterbox.fit(hw, (64, 96))
        result = TrainTransform(OFF)(item, (64, 96), rng())
        np.testing.assert_array_equal(result.image, letterbox.apply(image))
        np.testing.assert_array_equal(result.semantic, letterboxed_labels(semantic, letterbox))
        np.testing.assert_array_equal(result.boxes, letterbox.boxes_to_input(item.boxes))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(st.integers(0, 50), st.integers(0, 40)), st.sampled_from([None, (0.5, 2)]))
def test_a_painted_box_follows_its_pixels(
    seed: int, corner: tuple[int, int], jitter: tuple[float, float] | None
) -> None:
    x, y = corner
    config = AugmentationConfig(
        horizontal_flip=0.5,
        vertical_flip=0.5,
        crop=0.5,
        scale_jitter=jitter,
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
    "change",
    [
        {"color": ColorConfig(probability=1)},
        {"blur": 1},
        {"noise": 1},
        {"jpeg": JpegConfig(probability=1, quality=(20, 40))},
        {"cutout": CutoutConfig(probability=1)},
    ],
)
def test_each_pixel_change_changes_pixels_only(change: dict[str, object]) -> None:
    item = replace(ellipses((64, 64), 0), semantic=blobs((64, 64), 0).semantic)
    item.image[...] = rng().integers(30, 220, item.image.shape)
    result = TrainTransform(OFF.model_copy(update=change))(item, (64, 64), rng())
    assert (result.image != item.image).any()
    np.testing.assert_array_equal(result.semantic, item.semantic)
    np.testing.assert_array_equal(assert_bounds_of_masks(result), assert_bounds_of_masks(item))


def test_cutout_leaves_boxes_and_stays_below_its_size() -> None:
    transform = TrainTransform(
        OFF.model_copy(update={"cutout": CutoutConfig(probability=1, max_holes=1, max_size=0.25)})
    )
    for seed in range(30):
        result = transform(painted((80, 80), (0, 0, 80, 80)), (80, 80), rng(seed))
        assert len(result.boxes) == 1
        x1, y1, x2, y2 = edges((result.image == PAD_VALUE).all(axis=2))
        assert 5 <= x2 - x1 <= 20
        assert 5 <= y2 - y1 <= 20


def test_changes_happen_independently_of_each_other() -> None:
    """Under one seed for all (albumentations' set_random_seed) they would happen together or not at all."""
    config = AugmentationConfig(horizontal_flip=0, noise=0.5, cutout=CutoutConfig(probability=0.5))
    transform = TrainTransform(config)
    item = painted((32, 32))
    images = [transform(item, (32, 32), rng(seed)).image for seed in range(60)]
    assert len({(bool((image == PAD_VALUE).all(axis=2).any()), len(np.unique(image)) > 2) for image in images}) == 4


@pytest.mark.parametrize("name", ["jpeg.quality", "affine.scale", "mosaic_scale", "multi_scale"])
def test_ranges_run_from_low_to_high(name: str) -> None:
    section, _, key = name.rpartition(".")
    with pytest.raises(ValueError, match=r"expected \[lowest, highest\]"):
        AugmentationConfig.model_validate({section: {key: (2, 1)}} if section else {key: (2, 1)})


def test_what_is_switched_off_draws_nothing() -> None:
    """Crop, two flips, affine map: four numbers, whatever was added since: old settings keep their stream."""
    generator = rng(5)
    TrainTransform(OFF)(painted((50, 80), (10, 10, 40, 30)), (64, 96), generator)
    assert generator.random() == rng(5).random(5)[4]
