"""Boxes are the bounds of their masks, and masks lie on their pixels, through every change of training images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.config.schema.data import AffineConfig, AugmentationConfig, ColorConfig, CutoutConfig, ElasticConfig
from detseg.data.augment.geometry import AugmentItem, keep_visible, letterboxed, random_crop, visible_masks
from detseg.data.augment.instance_layers import CroppedMasks
from detseg.data.augment.mosaic import mixup, mosaic
from detseg.data.augment.pipeline import TrainTransform
from detseg.structures import BoolArray, InstanceMasks, UInt8Array
from tests.data.images.painted import assert_valid, painted

HW = (96, 128)
COLORS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)], dtype=np.uint8)
GEOMETRY: dict[str, object] = {
    "horizontal_flip": 0.5,
    "vertical_flip": 0.5,
    "crop": 0.7,
    "scale_jitter": (0.5, 2.0),
    "affine": AffineConfig(probability=0.7, scale=(0.7, 1.5), translate=0.3, rotate_degrees=180, shear_degrees=20),
    "elastic": ElasticConfig(probability=0.7, strength=0.05),
}
seeds = st.integers(0, 2**32 - 1)


def scene(hw: tuple[int, int], seed: int, base: int = 0) -> AugmentItem:
    """Three ellipses in three of the six colours; labels say which. What one covers is not in the mask below it."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(hw) + 0.5
    image = np.zeros((*hw, 3), dtype=np.uint8)
    masks = np.zeros((3, *hw), dtype=np.bool_)
    for k in range(3):
        center, radii = rng.uniform(0.2, 0.8, 2) * hw, rng.uniform(0.1, 0.3, 2) * hw
        inside = ((rows - center[0]) / radii[0]) ** 2 + ((columns - center[1]) / radii[1]) ** 2 < 1
        masks[:k, inside] = False
        masks[k] = inside
        image[inside] = COLORS[base + k]
    cropped = CroppedMasks.decoded(InstanceMasks.from_dense(masks))
    labels, ignore = np.arange(base, base + 3), np.array([False, True, False])
    item = AugmentItem(image, np.zeros((3, 4), dtype=np.float32), labels, ignore).of_masks(cropped)
    return item.picked(cropped.areas > 0)


def assert_consistent(item: AugmentItem, hw: tuple[int, int] = HW) -> BoolArray:
    """Valid targets, whose boxes are the bounds of their masks; → the masks in full."""
    assert_valid(item, hw)
    assert item.masks is not None
    assert item.masks.hw == hw
    dense = item.masks.dense()
    assert len(dense) == len(item.boxes)
    for mask, box in zip(dense, item.boxes.tolist(), strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert box == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    return dense


def pure(image: UInt8Array, label: int) -> BoolArray:
    """(H, W) bool: pixels of the colour of a label, into which no other colour was mixed; within 2 of 255 levels."""
    same: BoolArray = (np.abs(image.astype(int) - COLORS[label]) <= 2).all(axis=2)
    return same


def assert_on_pixels(item: AugmentItem, dense: BoolArray) -> None:
    """Pixels of an object's pure colour are in its mask; pixels of the mask are pure, except near its border.

    There colours mix over up to a pixel of the original image, which is 2 (crop) · 1.6 (letterbox) · 2 · 1.5 pixels
    here at most, and twice as many where the elastic deformation stretches it.
    """
    reach = np.ones((41, 41), dtype=np.uint8)
    for mask, label in zip(dense, item.labels.tolist(), strict=True):
        colored = pure(item.image, label)
        assert not (colored & ~mask).any()
        inner = cv2.erode(mask.view(np.uint8), reach, borderValue=0) != 0  # its border may lie just outside
        assert (colored | ~inner).all()


def transform(**changes: object) -> TrainTransform:
    """Everything off but what is named; no object is dropped for its size."""
    return TrainTransform(AugmentationConfig.model_validate({"horizontal_flip": 0.0, "min_box_size": 0.0, **changes}))


@settings(deadline=None, max_examples=50)
@given(st.sets(st.sampled_from(sorted(GEOMETRY))), st.tuples(st.integers(60, 200), st.integers(60, 200)), seeds)
def test_transforms(switched_on: set[str], hw: tuple[int, int], seed: int) -> None:
    change = transform(**{key: GEOMETRY[key] for key in switched_on})
    result = change(scene(hw, seed), HW, np.random.default_rng(seed))
    dense = assert_consistent(result)
    if hw[0] <= HW[0] and hw[1] <= HW[1]:  # when shrinking, a pixel is mixed from more than its neighbours
        assert_on_pixels(result, dense)


@settings(deadline=None, max_examples=25)
@given(st.tuples(st.integers(60, 200), st.integers(60, 200)), seeds, st.booleans())
def test_mosaic_and_mixup(hw: tuple[int, int], seed: int, elastic: bool) -> None:
    rng = np.random.default_rng(seed)
    tiles = [scene(hw, seed + k, base=3 * (k % 2)) for k in range(4)]
    mixed = mosaic(tiles, HW, (0.5, 1.5), 0.1, rng)
    dense = assert_consistent(mixed)
    for label in range(6):
        union = dense[mixed.labels == label].any(axis=0)
        # Objects of which less than a tenth shows are dropped: of up to 0.3² π · 1.5² of the picture.
        assert (pure(mixed.image, label) & ~union).mean() < 0.07
    other = letterboxed(scene(hw, seed + 9), HW)
    both = mixup(mixed, other, rng)
    assert both.masks is not None
    np.testing.assert_array_equal(both.masks.dense(), np.concatenate([dense, assert_consistent(other)]))
    assert both.labels.tolist() == [*mixed.labels.tolist(), *other.labels.tolist()]
    changes = {**GEOMETRY, "elastic": ElasticConfig(probability=float(elastic), strength=0.05), "min_box_size": 5.0}
    result = transform(**changes).augment(both, HW, rng)
    assert_consistent(result)
    assert ((result.boxes[:, 2:] - result.boxes[:, :2]) >= 5).all()


def test_random_choices_do_not_depend_on_masks() -> None:
    change = transform(**{**GEOMETRY, "elastic": ElasticConfig()})
    for seed in range(10):
        item = scene((80, 100), seed)
        result = change(item, HW, np.random.default_rng(seed))
        without = change(item._replace(masks=None), HW, np.random.default_rng(seed))
        np.testing.assert_array_equal(result.image, without.image)


def test_tightened_boxes_are_smaller_than_turned_ones() -> None:
    """A disc that is turned by 45° keeps its box of 60 pixels; the box around the turned corners has 85."""
    rows, columns = np.indices((100, 100)) + 0.5
    disc = (columns - 50) ** 2 + (rows - 50) ** 2 < 30**2
    item = painted((100, 100), (20, 20, 80, 80))
    masks = CroppedMasks.decoded(InstanceMasks.from_dense(disc[None]))
    turn = transform(affine=AffineConfig(probability=1, scale=(1, 1), translate=0, rotate_degrees=45))
    for seed in range(5):
        result = turn(item.of_masks(masks), (100, 100), np.random.default_rng(seed))
        np.testing.assert_allclose(result.boxes, [[20, 20, 80, 80]], atol=1)


def strips(*columns: int) -> CroppedMasks:
    """Masks of 10 rows and so many columns, from the left upper corner of 20 × 20 pixels."""
    dense = np.zeros((len(columns), 20, 20), dtype=np.bool_)
    for mask, width in zip(dense, columns, strict=True):
        mask[:10, :width] = True
    return CroppedMasks.decoded(InstanceMasks.from_dense(dense))


def test_drop_rule_by_hand() -> None:
    masks = strips(4, 5, 16, 20, 0)
    cut = masks.cropped((4, 0, 20, 20))  # 0, 10, 120, 160 and 0 pixels are left of 40, 50, 160, 200 and 0
    assert visible_masks(cut, 0.0).tolist() == [False, True, True, True, False]
    assert visible_masks(cut, 0.2).tolist() == [False, True, True, True, False]
    assert visible_masks(cut, 0.21).tolist() == [False, False, True, True, False]
    assert visible_masks(cut, 0.76).tolist() == [False, False, False, True, False]
    assert visible_masks(cut.uncut(), 1.0).tolist() == [False, True, True, True, False]
    item = painted((20, 16), *[(0, 0, 1, 1)] * 5)._replace(labels=np.arange(5)).of_masks(cut)
    assert keep_visible(item, 0.0, 1).labels.tolist() == [1, 2, 3]
    assert keep_visible(item, 0.0, 10).labels.tolist() == [2, 3]
    assert keep_visible(item, 0.0, 11).labels.tolist() == []
    assert keep_visible(item, 0.1, 2).boxes.tolist() == [[0, 0, 12, 10], [0, 0, 16, 10]]


def test_a_zoom_does_not_count_as_cutting() -> None:
    """Of a mask that shrinks to a sixteenth all is still there; of one that grows by four a quarter is seen."""
    item = painted((64, 64), (0, 0, 64, 64)).of_masks(
        CroppedMasks.decoded(InstanceMasks.from_dense(np.ones((1, 64, 64), dtype=np.bool_)))
    )
    for zoom, visibility, stays in ((0.25, 0.95, 1), (2.0, 0.24, 1), (2.0, 0.27, 0)):
        change = transform(scale_jitter=(zoom, zoom), min_visibility=visibility)
        assert len(change(item, (64, 64), np.random.default_rng(0)).boxes) == stays


def test_colours_and_cutout_leave_masks() -> None:
    item = scene(HW, 0)
    change = transform(color=ColorConfig(probability=1), cutout=CutoutConfig(probability=1))
    result = change(item, HW, np.random.default_rng(0))
    assert (result.image != item.image).any()
    assert item.masks is not None
    np.testing.assert_array_equal(assert_consistent(result), item.masks.dense())


def test_a_crop_keeps_every_mask_whole() -> None:
    for seed in range(10):
        item = scene((80, 100), seed)
        result = random_crop(item, np.random.default_rng(seed))
        assert item.masks is not None
        assert result.masks is not None
        assert_consistent(result, result.hw)
        np.testing.assert_array_equal(result.masks.areas, item.masks.areas)


def test_masks_are_for_all_images_of_a_mosaic_or_mixup_or_for_none() -> None:
    with_masks, without = scene((30, 50), 0), painted((30, 50))
    with pytest.raises(ValueError, match="masks all or none, got 1 of 4"):
        mosaic([with_masks, without, without, without], (64, 64), (0.5, 1.5), 0.1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="masks all or none, got 1 of 2"):
        mixup(with_masks, without, np.random.default_rng(0))
