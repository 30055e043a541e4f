"""Masks as layers of ids give what the masks themselves give, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.data.augment.geometry import InstanceLayers
from detseg.errors import DataError
from detseg.structures import BoolArray, InstanceMasks
from tests.data.images.painted import edges

seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 60), st.integers(1, 60))


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
@given(seeds, sizes)
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


def test_no_masks_are_normal() -> None:
    none = np.zeros((0, 10, 12), dtype=np.bool_)
    found = layers_of(none)
    both = InstanceLayers.joined([found, found], (10, 12))
    for masks in (found, found.moved(lambda ids: ids, 1.0), both):
        assert_are(masks, none)
