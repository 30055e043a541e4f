"""Image, boxes, semantic map and masks stay together through every change that moves pixels.

The images say by colour which label or object a pixel has. Where a result shows one of these colours pure, every pixel
that was mixed into it has that label, so the map or mask must say so, too: at all such pixels, borders included.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.config.schema.data import AffineConfig, AugmentationConfig, ElasticConfig
from detseg.data.augment.geometry import AugmentItem, InstanceLayers, Motion, keep_visible, moved
from detseg.data.augment.mosaic import mixup, mosaic
from detseg.data.augment.pipeline import TrainTransform
from detseg.errors import DataError
from detseg.structures import BoolArray, InstanceMasks, UInt8Array
from tests.data.images.painted import (
    OBJECT_COLORS,
    assert_bounds_of_masks,
    assert_labels_on_pixels,
    assert_masks_on_pixels,
    assert_valid,
    blobs,
    dense_masks,
    edges,
    ellipses,
    is_pure,
    painted,
    with_masks,
)

HW = (96, 128)
GEOMETRY: dict[str, object] = {
    "horizontal_flip": 0.5,
    "vertical_flip": 0.5,
    "crop": 0.7,
    "scale_jitter": (0.5, 2.0),
    "affine": AffineConfig(probability=0.7, scale=(0.7, 1.5), translate=0.3, rotate_degrees=180, shear_degrees=20),
    "elastic": ElasticConfig(probability=0.7, strength=0.05),
}
seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(40, 200), st.integers(40, 200))
switches = st.sets(st.sampled_from(sorted(GEOMETRY)))


def transform(**changes: object) -> TrainTransform:
    return TrainTransform(AugmentationConfig.model_validate({"horizontal_flip": 0.0, "min_box_size": 0.0, **changes}))


def labels_of(item: AugmentItem) -> UInt8Array:
    assert item.semantic is not None
    return item.semantic


@settings(deadline=None)
@given(switches, sizes, seeds)
def test_labels_lie_on_their_pixels(switched_on: set[str], hw: tuple[int, int], seed: int) -> None:
    item = blobs(hw, seed)
    result = transform(**{key: GEOMETRY[key] for key in switched_on})(item, HW, np.random.default_rng(seed))
    semantic = labels_of(result)
    assert (result.image.shape, semantic.shape, semantic.dtype) == ((*HW, 3), HW, np.uint8)
    assert set(np.unique(semantic)) <= {*np.unique(labels_of(item)).tolist(), 255}
    assert_labels_on_pixels(result, 0.4)


@settings(deadline=None, max_examples=50)
@given(switches, st.tuples(st.integers(60, 96), st.integers(60, 128)), seeds)
def test_masks_lie_on_their_pixels(switched_on: set[str], hw: tuple[int, int], seed: int) -> None:
    """Near borders colours mix over up to a pixel of the original image, which is 2 (crop) · 1.6 (letterbox) · 2 · 1.5
    pixels here at most, and twice as many where the elastic deformation stretches it."""
    change = transform(**{key: GEOMETRY[key] for key in switched_on})
    result = change(ellipses(hw, seed), HW, np.random.default_rng(seed))
    assert_valid(result, HW)
    assert_masks_on_pixels(result, 20)
    larger = change(ellipses((2 * hw[0], 2 * hw[1]), seed), HW, np.random.default_rng(seed))
    assert_valid(larger, HW)
    assert_bounds_of_masks(larger)


@settings(deadline=None, max_examples=25)
@given(sizes, seeds, st.booleans())
def test_masks_through_mosaic_and_mixup(hw: tuple[int, int], seed: int, elastic: bool) -> None:
    rng = np.random.default_rng(seed)
    tiles = [ellipses(hw, seed + k, base=3 * (k % 2)) for k in range(4)]
    mixed = keep_visible(mosaic(tiles, HW, (0.5, 1.5), 0.1, rng), 0.1, 0)
    dense = assert_bounds_of_masks(mixed)
    for label in range(6):
        union = dense[mixed.labels == label].any(axis=0)
        # Objects of which less than a tenth shows are dropped: of up to 0.3² π · 1.5² of the image.
        assert (is_pure(mixed.image, OBJECT_COLORS[label]) & ~union).mean() < 0.07
    other = keep_visible(moved(ellipses(hw, seed + 9), Motion(), HW), 0, 0)
    both = mixup(mixed, other, rng)
    np.testing.assert_array_equal(dense_masks(both), np.concatenate([dense, assert_bounds_of_masks(other)]))
    assert both.labels.tolist() == [*mixed.labels.tolist(), *other.labels.tolist()]
    changes = {**GEOMETRY, "elastic": ElasticConfig(probability=float(elastic), strength=0.05), "min_box_size": 5.0}
    result = transform(**changes)(both, HW, rng)
    assert_valid(result, HW)
    assert_bounds_of_masks(result)
    assert ((result.boxes[:, 2:] - result.boxes[:, :2]) >= 5).all()


def test_the_drop_rule_for_masks_by_hand() -> None:
    widths = (4, 5, 16, 20)  # 10 rows each, from the upper left corner of 20 × 20 pixels
    dense = np.arange(20) < np.array(widths)[:, None, None]
    dense = dense & (np.arange(20) < 10)[:, None]
    item = with_masks(replace(painted((20, 20), *[(0, 0, 1, 1)] * 4), labels=np.arange(4)), dense)
    cut = moved(item, Motion(matrix=np.array([[1.0, 0, -4], [0, 1, 0]])), (20, 20))
    # 0, 10, 120 and 160 pixels are left of 40, 50, 160 and 200.
    for visibility, size, expected in ((0.0, 0, [1, 2, 3]), (0.2, 0, [1, 2, 3]), (0.21, 0, [2, 3]), (0.76, 0, [3])):
        assert keep_visible(cut, visibility, size).labels.tolist() == expected
    for size, expected in ((1, [1, 2, 3]), (10, [2, 3]), (11, [])):
        assert keep_visible(cut, 0.0, size).labels.tolist() == expected
    assert keep_visible(cut, 0.1, 2).boxes.tolist() == [[0, 0, 12, 10], [0, 0, 16, 10]]


def test_a_zoom_does_not_count_as_cutting() -> None:
    """Of a mask that shrinks to a sixteenth all is still there; of one that grows by four a quarter is seen."""
    item = with_masks(painted((64, 64), (0, 0, 64, 64)), np.ones((1, 64, 64), dtype=np.bool_))
    for zoom, visibility, stays in ((0.25, 0.95, 1), (2.0, 0.24, 1), (2.0, 0.27, 0)):
        change = transform(scale_jitter=(zoom, zoom), min_visibility=visibility)
        assert len(change(item, (64, 64), np.random.default_rng(0)).boxes) == stays


small = st.tuples(st.integers(1, 60), st.integers(1, 60))


def random_masks(hw: tuple[int, int], rng: np.random.Generator, num: int = 6) -> BoolArray:
    """(N, H, W) bool: overlapping noisy rectangles, the first empty, the last full."""
    masks = np.zeros((num, *hw), dtype=np.bool_)
    for mask in masks[1:-1]:
        y, x = np.sort(rng.integers(0, hw[0] + 1, 2)), np.sort(rng.integers(0, hw[1] + 1, 2))
        mask[y[0] : y[1], x[0] : x[1]] = rng.random((y[1] - y[0], x[1] - x[0])) < rng.choice([0.05, 0.5, 1.0])
    masks[-1] = True
    return masks


def layers_of(masks: BoolArray) -> InstanceLayers:
    return InstanceLayers.from_run_lengths(InstanceMasks.from_dense(masks))


def assert_are(found: InstanceLayers, expected: BoolArray) -> None:
    assert len(found) == len(expected)
    for row, mask in enumerate(expected):
        np.testing.assert_array_equal(found.mask(row), mask)
    areas, boxes = found.measure()
    np.testing.assert_array_equal(areas, expected.sum(axis=(1, 2)))
    assert boxes.dtype == np.float32
    assert boxes.tolist() == [edges(mask) or [0, 0, 0, 0] for mask in expected]


@settings(deadline=None, max_examples=60)
@given(seeds, small)
def test_painted_selected_moved_and_joined(seed: int, hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    masks = random_masks(hw, rng)
    found = layers_of(masks)
    assert_are(found, masks)
    np.testing.assert_array_equal(found.full_areas, masks.sum(axis=(1, 2)))
    keep, order = rng.random(len(masks)) < 0.5, rng.permutation(len(masks))
    assert_are(found.select(keep), masks[keep])
    assert_are(found.select(order), masks[order])
    mirrored = found.moved(lambda ids: np.ascontiguousarray(ids[:, ::-1]), 0.5)
    assert_are(mirrored, masks[:, :, ::-1])
    np.testing.assert_array_equal(mirrored.full_areas, found.full_areas / 2)
    over = InstanceLayers.joined([found, found.select(keep)], hw)
    assert_are(over, np.concatenate([masks, masks[keep]]))
    # A second image right of and below the first one; ids of dropped objects must not come back as its objects.
    beside = InstanceLayers.joined([found.select(keep), found], (2 * hw[0], 2 * hw[1]), [(0, 0), hw])
    first = np.pad(masks[keep], ((0, 0), (0, hw[0]), (0, hw[1])))
    assert_are(beside, np.concatenate([first, np.pad(masks, ((0, 0), (hw[0], 0), (hw[1], 0)))]))
    assert len(beside.maps) == len(found.maps)


def test_objects_share_a_layer_as_far_as_they_do_not_overlap() -> None:
    masks = np.zeros((4, 4, 6), dtype=np.bool_)
    masks[0, :, :3], masks[1, :, 3:], masks[2, :, 2:4], masks[3, 0, 5] = True, True, True, True
    first, second = layers_of(masks).maps
    assert (first.dtype, first.tolist()[1], second.tolist()[0]) == (np.uint8, [1, 1, 1, 2, 2, 2], [0, 0, 3, 3, 0, 4])


def test_more_masks_than_a_byte_counts() -> None:
    masks = np.zeros((600, 20, 30), dtype=np.bool_)
    masks.reshape(600, -1)[np.arange(600), np.arange(600)] = True  # every pixel is a mask of its own
    found = layers_of(masks)
    assert [ids.dtype.name for ids in found.maps] == ["uint16"]
    assert_are(found, masks)
    few = layers_of(masks[:200])
    joined = InstanceLayers.joined([few, few], (20, 30))
    assert_are(joined, np.concatenate([masks[:200], masks[:200]]))
    with pytest.raises(DataError, match="at most 65535 objects in an image, got 66000"):
        InstanceLayers.joined([found] * 110, (20, 30))
