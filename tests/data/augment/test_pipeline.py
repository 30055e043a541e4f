"""The training transform: contracts of its results, independence of its choices; colours against torchvision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from detseg.config.schema.data import (
    AugmentationConfig,
    ClaheConfig,
    ColorConfig,
    CutoutConfig,
    JpegConfig,
    SaltAndPepperConfig,
)
from detseg.data.augment.pipeline import TrainTransform, changed_colors, hue_matrix, saturation_matrix, with_contrast
from detseg.ops.letterbox import PAD_VALUE, Letterbox
from detseg.structures import UInt8Array
from tests.data.images.painted import assert_bounds_of_masks, blobs, edges, ellipses, letterboxed_labels, painted
from tests.ops.test_letterbox import boxes_to_input

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
        np.testing.assert_array_equal(result.boxes, boxes_to_input(letterbox, item.boxes))


SECTIONS = {"color": ColorConfig, "clahe": ClaheConfig, "salt_and_pepper": SaltAndPepperConfig, "jpeg": JpegConfig}
SECTIONS["cutout"] = CutoutConfig
KINDS = {"blur": 1, "noise": 1, **{name: section(probability=1) for name, section in SECTIONS.items()}}


@pytest.mark.parametrize("name", KINDS)
def test_each_pixel_change_changes_pixels_only(name: str) -> None:
    change = {name: KINDS[name]}
    item = replace(ellipses((64, 64), 0), semantic=blobs((64, 64), 0).semantic)
    item.image[...] = rng().integers(30, 220, item.image.shape)
    result = TrainTransform(OFF.model_copy(update=change))(item, (64, 64), rng())
    assert (result.image != item.image).any()
    np.testing.assert_array_equal(result.semantic, item.semantic)
    np.testing.assert_array_equal(assert_bounds_of_masks(result), assert_bounds_of_masks(item))


def test_cutout_leaves_boxes_and_stays_below_its_size() -> None:
    change = TrainTransform(OFF.model_copy(update={"cutout": CutoutConfig(probability=1, max_holes=1, max_size=0.25)}))
    for seed in range(30):
        result = change(painted((80, 80), (0, 0, 80, 80)), (80, 80), rng(seed))
        assert len(result.boxes) == 1
        x1, y1, x2, y2 = edges((result.image == PAD_VALUE).all(axis=2))
        assert 5 <= x2 - x1 <= 20
        assert 5 <= y2 - y1 <= 20


def test_salt_and_pepper_are_white_and_black_pixels_of_the_amount() -> None:
    change = TrainTransform(
        OFF.model_copy(update={"salt_and_pepper": SaltAndPepperConfig(probability=1, amount=(0.1, 0.1))})
    )
    grey = replace(painted((50, 80)), image=np.full((50, 80, 3), 90, dtype=np.uint8))
    image = change(grey, (50, 80), rng()).image
    white, black = ((image == level).all(axis=2).sum() for level in (255, 0))
    assert white + black == 0.1 * 50 * 80
    assert 160 <= white <= 240  # two to three of five
    assert ((image == 90).all(axis=2)).sum() == 0.9 * 50 * 80


@pytest.mark.parametrize("limit", [1.5, 3.0])
def test_clahe_raises_contrast_by_the_clip_limit_at_most(limit: float) -> None:
    # A ramp of 40 levels of grey, of which equalisation without a limit would make 256.
    ramp = np.broadcast_to(np.linspace(100, 140, 64)[None, :, None], (64, 64, 3)).astype(np.uint8)
    change = TrainTransform(OFF.model_copy(update={"clahe": ClaheConfig(probability=1, clip_limit=(limit, limit))}))
    image = change(replace(painted((64, 64)), image=ramp), (64, 64), rng()).image
    growth = image.std() / ramp.std()
    assert 1.1 < growth < limit * 1.1
    assert (np.ptp(image, axis=2) <= 3).all()  # of lightness alone: grey stays grey


def test_changes_happen_independently_of_each_other() -> None:
    """Under one seed for all (albumentations' set_random_seed) they would happen together or not at all."""
    config = AugmentationConfig(horizontal_flip=0, noise=0.5, cutout=CutoutConfig(probability=0.5))
    transform = TrainTransform(config)
    item = painted((32, 32))
    images = [transform(item, (32, 32), rng(seed)).image for seed in range(60)]
    assert len({(bool((image == PAD_VALUE).all(axis=2).any()), len(np.unique(image)) > 2) for image in images}) == 4


def test_what_is_switched_off_draws_nothing() -> None:
    """Crop, two flips, affine map: four numbers, whatever was added since: old settings keep their stream."""
    generator = rng(5)
    TrainTransform(OFF)(painted((50, 80), (10, 10, 40, 30)), (64, 96), generator)
    assert generator.random() == rng(5).random(5)[4]


NOTHING = ColorConfig(probability=1, brightness=0, contrast=0, saturation=0, hue=0)


def noise(low: int = 0, high: int = 256, seed: int = 0) -> UInt8Array:
    return np.random.default_rng(seed).integers(low, high, (24, 40, 3), dtype=np.uint8)


def exact(image: UInt8Array) -> torch.Tensor:
    """(3, H, W) float64 in 0..1, in which torchvision neither rounds nor clips below the ends."""
    return torch.from_numpy(image).permute(2, 0, 1).double() / 255


def levels(image: torch.Tensor) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = image.permute(1, 2, 0).numpy() * 255
    return found


class Drawn:
    """A stand-in for a generator: the upper ends of all ranges, in a given order."""

    def __init__(self, order: list[int]) -> None:
        self.order = order

    def random(self, length: int) -> npt.NDArray[np.float64]:
        return np.ones(length)

    def permutation(self, length: int) -> npt.NDArray[np.int64]:
        return np.array(self.order)


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.5])
def test_each_change_is_that_of_torchvision(factor: float) -> None:
    image = noise()
    mean = image.reshape(-1, 3).mean(axis=0)
    contrast = with_contrast(np.eye(3, 4), factor, mean)
    ours = image @ contrast[:, :3].T + contrast[:, 3], image @ saturation_matrix(factor).T
    theirs = F.adjust_contrast(exact(image), factor), F.adjust_saturation(exact(image), factor)
    for found, expected in zip(ours, theirs, strict=True):
        # Their weights of the grey are rounded to four digits.
        np.testing.assert_allclose(np.clip(found, 0, 255), levels(expected), atol=0.1)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_changes_in_a_row_are_those_of_torchvision_where_nothing_is_clipped(order: list[int]) -> None:
    image = noise(100, 150)
    largest = {"brightness": 0.1, "contrast": 0.3, "saturation": 0.4}
    functions = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)
    expected = exact(image)
    for change in order:
        expected = functions[change](expected, 1 + list(largest.values())[change])
    drawn: Any = Drawn([*order, 3])
    result = changed_colors(image, NOTHING.model_copy(update=largest), drawn)
    assert result.dtype == np.uint8
    # OpenCV rounds within 0.7; the mean grey is that of every fourth row.
    assert np.abs(levels(expected) - result).max() < 2


def test_a_third_of_the_circle_takes_red_to_green_to_blue() -> None:
    np.testing.assert_allclose(hue_matrix(1 / 3) @ np.eye(3), np.roll(np.eye(3), 1, axis=0), atol=1e-12)
    image = noise()
    for turn in (1 / 3, -1 / 3):
        np.testing.assert_allclose(
            image @ hue_matrix(turn).T, levels(F.adjust_hue(exact(image).float(), turn)), atol=0.01
        )
    np.testing.assert_allclose(hue_matrix(0.2) @ np.ones(3), np.ones(3))
    np.testing.assert_allclose(hue_matrix(0.2) @ hue_matrix(-0.2), np.eye(3), atol=1e-12)
    np.testing.assert_array_equal(changed_colors(image, NOTHING, np.random.default_rng(0)), image)
