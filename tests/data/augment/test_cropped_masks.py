"""Every operation on small bitmaps gives what it gives on masks of the whole picture, bit for bit."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.config.schema.data import AffineConfig, ElasticConfig
from detseg.data.augment.affine import between_centers, chained, random_affine_matrix, random_zoom_matrix
from detseg.data.augment.elastic import deformed, random_displacements
from detseg.data.augment.geometry import warped
from detseg.data.augment.instance_layers import CroppedMasks
from detseg.ops.letterbox import resize_labels
from detseg.structures import BoolArray, InstanceMasks
from tests.data.images.painted import painted

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


def cropped(masks: BoolArray) -> CroppedMasks:
    return CroppedMasks.decoded(InstanceMasks.from_dense(masks))


def assert_are(found: CroppedMasks, expected: BoolArray) -> None:
    """The same masks, in bitmaps without a margin, with the right boxes and areas."""
    assert found.hw == expected.shape[1:]
    np.testing.assert_array_equal(found.dense(), expected)
    np.testing.assert_array_equal(found.areas, expected.sum(axis=(1, 2)))
    assert found.boxes.dtype == np.float32
    for mask, box, part in zip(expected, found.boxes.tolist(), found.parts, strict=True):
        if mask.any():
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            assert box == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        else:
            assert box[0] >= box[2] or box[1] >= box[3]
            assert part.size == 0


@settings(deadline=None, max_examples=40)
@given(seeds, sizes)
def test_from_run_lengths(seed: int, hw: tuple[int, int]) -> None:
    masks = random_masks(hw, np.random.default_rng(seed))
    found = cropped(masks)
    assert_are(found, masks)
    np.testing.assert_array_equal(found.full_areas, masks.sum(axis=(1, 2)))


@settings(deadline=None, max_examples=40)
@given(seeds, sizes)
def test_crop_flip_place_select_join(seed: int, hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    masks = random_masks(hw, rng)
    found = cropped(masks)
    y1, x1 = int(rng.integers(hw[0])), int(rng.integers(hw[1]))
    y2, x2 = int(rng.integers(y1 + 1, hw[0] + 1)), int(rng.integers(x1 + 1, hw[1] + 1))
    window = found.cropped((x1, y1, x2, y2))
    assert_are(window, masks[:, y1:y2, x1:x2])
    np.testing.assert_array_equal(window.full_areas, found.full_areas)
    np.testing.assert_array_equal(window.uncut().full_areas, window.areas)
    assert_are(window.flipped(horizontal=True, vertical=False), masks[:, y1:y2, x1:x2][:, :, ::-1])
    assert_are(window.flipped(horizontal=False, vertical=True), masks[:, y1:y2, x1:x2][:, ::-1])
    assert_are(window.flipped(horizontal=True, vertical=True), masks[:, y1:y2, x1:x2][:, ::-1, ::-1])
    margins = rng.integers(0, 9, 4).tolist()
    larger = np.pad(masks, ((0, 0), (margins[0], margins[1]), (margins[2], margins[3])))
    assert_are(found.placed((larger.shape[1], larger.shape[2]), margins[0], margins[2]), larger)
    keep = rng.random(len(masks)) < 0.5
    assert_are(found[keep], masks[keep])
    order = rng.permutation(len(masks))
    assert_are(found[order], masks[order])
    assert_are(CroppedMasks.joined([found, found[keep]]), np.concatenate([masks, masks[keep]]))


@settings(deadline=None, max_examples=40)
@given(seeds, sizes, sizes)
def test_resized_as_semantic_maps_are(seed: int, hw: tuple[int, int], new_hw: tuple[int, int]) -> None:
    masks = random_masks(hw, np.random.default_rng(seed))
    expected = np.stack([resize_labels(mask.view(np.uint8), new_hw) for mask in masks]).view(np.bool_)
    found = cropped(masks).resized(new_hw)
    assert_are(found, expected)
    share = new_hw[0] * new_hw[1] / (hw[0] * hw[1])
    np.testing.assert_allclose(found.full_areas, masks.sum(axis=(1, 2)) * share)


@settings(deadline=None, max_examples=40)
@given(seeds, st.tuples(st.integers(20, 90), st.integers(20, 90)), st.booleans())
def test_affine_maps_as_opencv_maps_whole_masks(seed: int, hw: tuple[int, int], zoomed: bool) -> None:
    rng = np.random.default_rng(seed)
    masks = random_masks(hw, rng)
    config = AffineConfig(scale=(0.3, 3.0), translate=0.4, rotate_degrees=180, shear_degrees=40)
    matrix = random_affine_matrix(config, hw, rng)
    if zoomed:
        matrix = chained(random_zoom_matrix((0.2, 4.0), hw, rng), then=matrix)
    item = painted(hw).of_masks(cropped(masks))
    found = warped(item, matrix).masks
    centers = between_centers(matrix)
    expected = [
        cv2.warpAffine(mask.view(np.uint8), centers, hw[::-1], flags=cv2.INTER_NEAREST, borderValue=0) for mask in masks
    ]
    assert found is not None
    assert_are(found, np.array(expected, dtype=np.bool_))
    scale = abs(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0])
    np.testing.assert_allclose(found.full_areas, masks.sum(axis=(1, 2)) * scale)


@settings(deadline=None, max_examples=40)
@given(seeds, st.tuples(st.integers(20, 90), st.integers(20, 90)), st.booleans())
def test_elastic_deformation_as_that_of_semantic_maps(seed: int, hw: tuple[int, int], mapped: bool) -> None:
    rng = np.random.default_rng(seed)
    masks = random_masks(hw, rng)
    displacements = random_displacements(ElasticConfig(probability=1, strength=0.2), hw, rng)
    matrix = random_affine_matrix(AffineConfig(scale=(0.5, 2), rotate_degrees=90), hw, rng) if mapped else None
    found = deformed(painted(hw).of_masks(cropped(masks)), displacements, matrix)
    expected = []
    for mask in masks:
        semantic = deformed(painted(hw)._replace(semantic=mask.view(np.uint8)), displacements, matrix).semantic
        assert semantic is not None
        expected.append(semantic == 1)
    assert found.masks is not None
    assert_are(found.masks, np.array(expected))
    np.testing.assert_array_equal(found.boxes, found.masks.boxes)


def test_more_masks_than_one_picture_of_bytes_can_tell_apart() -> None:
    masks = np.zeros((600, 20, 30), dtype=np.bool_)
    masks.reshape(600, -1)[np.arange(600), np.arange(600)] = True  # every pixel is a mask of its own
    turned = warped(painted((20, 30)).of_masks(cropped(masks)), np.array([[1.0, 0, 2], [0, 1, 1]]))
    assert turned.masks is not None
    expected = np.zeros_like(masks)
    expected[:, 1:, 2:] = masks[:, :-1, :-2]
    assert_are(turned.masks, expected)


def test_no_masks_are_normal() -> None:
    none = cropped(np.zeros((0, 10, 12), dtype=np.bool_))
    item = painted((10, 12)).of_masks(none)
    results = [
        none.cropped((2, 3, 12, 10)).placed((10, 12), 3, 2),
        none.resized((5, 6)).placed((10, 12), 0, 0),
        none.flipped(horizontal=True, vertical=True),
        CroppedMasks.joined([none, none]),
        warped(item, np.array([[1.0, 0, 2], [0, 1, 1]])).masks,
        deformed(item, np.zeros((10, 12, 2), dtype=np.float32)).masks,
    ]
    for found in results:
        assert found is not None
        assert_are(found, np.zeros((0, 10, 12), dtype=np.bool_))


def test_masks_of_pictures_of_two_sizes_are_not_joined() -> None:
    masks = [cropped(np.ones((1, 4, width), dtype=np.bool_)) for width in (5, 6)]
    with pytest.raises(ValueError, match=r"one size of picture, got \[\(4, 5\), \(4, 6\)\]"):
        CroppedMasks.joined(masks)
