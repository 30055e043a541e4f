"""Crops, flips, maps, mosaics: any image, from one pixel on, with any objects, from none to thousands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.config.schema.data import (
    AffineConfig,
    AugmentationConfig,
    ColorConfig,
    CutoutConfig,
    ElasticConfig,
    JpegConfig,
)
from detseg.data.augment.geometry import MIN_CROP, AugmentItem, Motion, keep_visible, moved, random_crop, visible_boxes
from detseg.data.augment.mosaic import mixup, mosaic
from detseg.data.augment.pipeline import TrainTransform
from detseg.structures import IGNORE_LABEL
from tests.data.images.painted import assert_bounds_of_masks, assert_valid
from tests.fuzz.strategies import annotated_images, boxes_inside, seeds

EVERYTHING = AugmentationConfig(
    horizontal_flip=0.5,
    vertical_flip=0.5,
    crop=0.7,
    scale_jitter=(0.2, 3.0),
    affine=AffineConfig(probability=0.7, scale=(0.2, 3.0), translate=0.6, rotate_degrees=180, shear_degrees=40),
    color=ColorConfig(probability=0.5, hue=0.5),
    blur=0.3,
    noise=0.3,
    jpeg=JpegConfig(probability=0.3, quality=(1, 100)),
    cutout=CutoutConfig(probability=0.5, max_size=1.0),
    min_box_size=0.0,
    min_visibility=0.0,
)
ELASTIC = EVERYTHING.model_copy(update={"elastic": ElasticConfig(probability=0.7, strength=0.2)})


def numbered(item: AugmentItem) -> AugmentItem:
    """With pixels that say where they are: row, then column in two bytes."""
    rows, columns = np.mgrid[: item.hw[0], : item.hw[1]]
    return replace(item, image=np.stack([rows % 256, columns % 256, columns // 256], axis=2).astype(np.uint8))


@given(annotated_images(semantic=True), seeds)
def test_a_crop_is_a_window_and_its_boxes_move_by_its_corner(item: AugmentItem, seed: int) -> None:
    item = numbered(item)
    result = random_crop(item, np.random.default_rng(seed))
    height, width = result.hw
    left = int(result.image[0, 0, 1]) + 256 * int(result.image[0, 0, 2])
    tops = [top for top in range(item.hw[0]) if top % 256 == result.image[0, 0, 0] and top + height <= item.hw[0]]
    windows = [item.image[top : top + height, left : left + width] for top in tops]
    top = next(top for top, window in zip(tops, windows, strict=True) if np.array_equal(window, result.image))
    assert item.semantic is not None
    assert result.semantic is not None
    if len(tops) == 1:
        np.testing.assert_array_equal(result.semantic, item.semantic[top : top + height, left : left + width])
        np.testing.assert_array_equal(result.boxes, item.boxes - np.array([left, top, left, top], dtype=np.float32))
    assert len(result.boxes) == len(item.boxes)
    assert height >= item.hw[0] * MIN_CROP
    assert width >= item.hw[1] * MIN_CROP
    assert ((result.boxes >= 0) & (result.boxes <= [width, height, width, height])).all()


@given(seeds, st.integers(0, 60), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([0.0, 0.5, 4.0]))
def test_what_stays_visible_one_by_one(seed: int, num: int, visibility: float, size: float) -> None:
    rng = np.random.default_rng(seed)
    boxes = boxes_inside((400, 400), num, rng) - 150
    window = (0.0, 10.0, 120.0, 90.0)
    clipped, keep = visible_boxes(boxes, window, visibility, size)
    assert clipped.dtype == np.float32
    for (x1, y1, x2, y2), found, stays in zip(boxes.tolist(), clipped.tolist(), keep.tolist(), strict=True):
        left, right = (min(max(x, 0.0), 120.0) for x in (x1, x2))
        top, bottom = (min(max(y, 10.0), 90.0) for y in (y1, y2))
        assert found == [left, top, right, bottom]
        width, height = right - left, bottom - top
        seen = width * height >= visibility * (x2 - x1) * (y2 - y1)
        assert stays == (width > 0 and height > 0 and seen and min(width, height) >= size)


@settings(max_examples=60)
@given(annotated_images(), st.sampled_from([(32, 32), (64, 96)]), seeds)
def test_any_image_with_boxes_is_augmented(item: AugmentItem, hw: tuple[int, int], seed: int) -> None:
    before = item.image.copy(), item.boxes.copy()
    result = TrainTransform(EVERYTHING)(item, hw, np.random.default_rng(seed))
    assert_valid(result, hw)
    assert len(result.boxes) <= len(item.boxes)
    assert np.isin(result.labels, item.labels).all()
    np.testing.assert_array_equal(item.image, before[0])  # readers may keep what they hand out
    np.testing.assert_array_equal(item.boxes, before[1])
    again = TrainTransform(EVERYTHING)(item, hw, np.random.default_rng(seed))
    for column in ("image", "boxes", "labels", "ignore"):
        np.testing.assert_array_equal(getattr(result, column), getattr(again, column))


def mapped(masks: bool) -> st.SearchStrategy[AugmentItem]:
    return annotated_images(masks=masks, semantic=True)


@settings(max_examples=80)
@given(st.booleans().flatmap(mapped), st.sampled_from([(32, 32), (64, 96)]), seeds)
def test_any_image_with_masks_or_a_map_is_augmented(item: AugmentItem, hw: tuple[int, int], seed: int) -> None:
    item = item if item.masks is not None else item.select(np.zeros(len(item.boxes), dtype=bool))
    result = TrainTransform(ELASTIC)(item, hw, np.random.default_rng(seed))
    assert_valid(result, hw)
    assert result.masks is None or assert_bounds_of_masks(result).any(axis=(1, 2)).all()
    assert item.semantic is not None
    assert result.semantic is not None
    assert result.semantic.shape == hw
    assert set(np.unique(result.semantic).tolist()) <= {*np.unique(item.semantic).tolist(), IGNORE_LABEL}


def tiles(masks: bool) -> st.SearchStrategy[list[AugmentItem]]:
    return st.lists(annotated_images(masks=masks), min_size=4, max_size=4)


@settings(max_examples=40)
@given(st.booleans().flatmap(tiles), seeds, st.sampled_from([0.0, 0.5]))
def test_any_four_images_make_a_mosaic(four: Sequence[AugmentItem], seed: int, visibility: float) -> None:
    four = [replace(item, labels=np.full(len(item.labels), k)) for k, item in enumerate(four)]
    hw = (64, 96)
    result = keep_visible(mosaic(four, hw, (0.2, 3.0), visibility, np.random.default_rng(seed)), visibility, 0.0)
    assert_valid(result, hw)
    for k, item in enumerate(four):
        assert int((result.labels == k).sum()) <= len(item.labels)
    end = result.boxes[result.labels == 0, 2:].max(axis=0, initial=0)
    begin = result.boxes[result.labels == 3, :2].min(axis=0, initial=96)
    assert (end <= begin + 1e-3).all()  # the first quadrant ends where the last begins
    if result.masks is not None:
        assert_bounds_of_masks(result)
    blend = mixup(result, moved(four[0], Motion(), hw), np.random.default_rng(seed))
    assert len(blend.boxes) == len(result.boxes) + len(four[0].boxes)
