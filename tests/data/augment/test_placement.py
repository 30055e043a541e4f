"""Where images come to lie when nothing is turned: ends on whole pixels, and boxes with them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detseg.config.schema.data import AffineConfig
from detseg.data.augment.affine import chained, flip_matrix, random_affine_matrix, random_zoom_matrix
from detseg.data.augment.geometry import flipped, keep_visible, warped
from detseg.data.augment.mosaic import mosaic
from detseg.data.augment.motion import Motion, moved, placed
from detseg.data.augment.placement import Span, resize_smoothly
from detseg.ops.letterbox import PAD_VALUE
from tests.data.images.painted import bounds, painted

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
seeds = st.integers(0, 2**32 - 1)


def test_spans_by_hand() -> None:
    span = Span(first=10, taken=40, start=100, end=180)  # enlarged by 2
    assert span.moved(1, 0, 320) == span
    assert span.moved(0.5, 10, 320) == Span(10, 40, 60, 100)
    assert span.moved(1, -120, 320) == Span(20, 30, 0, 60)  # the first 20 of 80 pixels are out of sight
    assert span.moved(1, 200, 320) == Span(10, 10, 300, 320)
    assert span.moved(-1, 320, 320) == Span(10, 40, 140, 220, mirrored=True)
    assert span.moved(-1, 120, 320) == Span(10, 10, 0, 20, mirrored=True)
    for offset in (-180, 220):
        assert span.moved(1, offset, 320).taken == 0
    assert span.scale_and_offset == (2, 80)
    assert span.moved(-1, 320, 320).scale_and_offset == (-2, 240)


@given(st.floats(0.1, 3), st.floats(-300, 300), st.booleans())
def test_spans_that_meet_still_meet(factor: float, offset: float, mirrored: bool) -> None:
    factor, offset = (-factor, 320 - offset) if mirrored else (factor, offset)
    left, right = Span(0, 100, 20, 150).moved(factor, offset, 320), Span(5, 60, 150, 260).moved(factor, offset, 320)
    if left.taken and right.taken:
        assert (right.end == left.start) if mirrored else (left.end == right.start)
        assert min(left.taken, right.taken) >= 1
        assert 0 <= left.first < left.first + left.taken <= 100
        assert 5 <= right.first < right.first + right.taken <= 65


@given(seeds, st.tuples(st.integers(0, 40), st.integers(0, 30)))
def test_a_placed_image_is_the_mapped_one_within_a_pixel(seed: int, corner: tuple[int, int]) -> None:
    x, y = corner
    item = painted((60, 80), (x, y, x + 20, y + 16))
    rng = np.random.default_rng(seed)
    config = AffineConfig(probability=1, scale=(0.6, 2.0), translate=0.2)
    flips = flip_matrix((60, 80), horizontal=bool(rng.random() < 0.5), vertical=bool(rng.random() < 0.5))
    matrix = chained(flips, then=random_affine_matrix(config, (60, 80), rng))
    result, reference = placed(item, matrix, (60, 80)), warped(item, matrix)
    np.testing.assert_allclose(result.boxes, reference.boxes, atol=1.6)
    found, boxes = bounds(result.image), keep_visible(result, 0.3, 2).boxes
    if len(boxes):
        np.testing.assert_allclose(found, boxes[0], atol=1.5)


def test_whole_pixels_are_exact() -> None:
    item = painted((40, 60), (10, 5, 30, 15))
    item.image[...] = np.random.default_rng(0).integers(0, 256, item.image.shape)
    shifted = placed(item, np.array([[1.0, 0, 7], [0, 1, -3]]), (40, 60))
    np.testing.assert_array_equal(shifted.image[:-3, 7:], item.image[3:, :-7])
    assert (shifted.image[:, :7] == PAD_VALUE).all()
    assert shifted.boxes.tolist() == [[17, 2, 37, 12]]
    mirrored = placed(item, flip_matrix((40, 60), horizontal=True, vertical=True), (40, 60))
    expected = flipped(item, horizontal=True, vertical=True)
    np.testing.assert_array_equal(mirrored.image, expected.image)
    assert mirrored.boxes.tolist() == expected.boxes.tolist()


def test_what_lies_out_of_sight_is_grey_and_empty() -> None:
    item = painted((40, 60), (10, 5, 30, 15))._replace(semantic=np.zeros((40, 60), dtype=np.uint8))
    gone = placed(item, np.array([[1.0, 0, 100], [0, 1, 0]]), (40, 60))
    assert (gone.image == PAD_VALUE).all()
    assert gone.semantic is not None
    assert (gone.semantic == 255).all()
    assert len(gone.boxes) == len(gone.labels) == 0


@given(seeds, st.tuples(st.integers(40, 90), st.integers(40, 90)))
def test_boxes_of_a_moved_mosaic_lie_on_their_pixels(seed: int, tile_hw: tuple[int, int]) -> None:
    hw = (96, 128)
    rng = np.random.default_rng(seed)
    tiles = [painted(tile_hw, (8, 10, 30, 34), color=color, label=k) for k, color in enumerate(COLORS)]
    motion = Motion(bool(rng.random() < 0.5), bool(rng.random() < 0.5), random_zoom_matrix((0.6, 1.6), hw, rng))
    assert motion.is_upright
    result = keep_visible(mosaic(tiles, hw, (0.6, 1.6), 0.3, rng, motion.affine(hw)), 0.3, 2)
    for label, box in zip(result.labels.tolist(), result.boxes, strict=True):
        np.testing.assert_allclose(bounds(result.image, COLORS[label]), box, atol=1.6)


@pytest.mark.parametrize("horizontal", [False, True])
def test_a_moved_mosaic_is_the_mosaic_moved(horizontal: bool) -> None:
    """Rounded ends apart: smooth pictures differ by little, and objects by less than a pixel."""
    rows, columns = np.indices((90, 120))
    smooth = np.stack([rows * 2, columns * 2, rows + columns], axis=2).astype(np.uint8)
    tiles = [painted((90, 120), (30, 20, 80, 60), label=k)._replace(image=smooth) for k in range(4)]
    for seed in range(10):
        rng = np.random.default_rng(seed)
        motion = Motion(horizontal, matrix=random_affine_matrix(AffineConfig(scale=(0.7, 1.4)), (96, 128), rng))
        state = rng.bit_generator.state
        at_once = mosaic(tiles, (96, 128), (0.5, 1.5), 0.1, rng, motion.affine((96, 128)))
        rng.bit_generator.state = state
        stepwise = moved(mosaic(tiles, (96, 128), (0.5, 1.5), 0.1, rng), motion, (96, 128))
        assert np.abs(at_once.image.astype(int) - stepwise.image).mean() < 4
        ours, expected = keep_visible(at_once, 0.2, 3), keep_visible(stepwise, 0.2, 3)
        common = np.intersect1d(ours.labels, expected.labels)
        assert len(common) >= max(len(ours.labels), len(expected.labels)) - 1
        for label in common.tolist():
            np.testing.assert_allclose(
                ours.boxes[ours.labels == label], expected.boxes[expected.labels == label], atol=1.6
            )


def test_turned_motions_are_not_upright() -> None:
    rng = np.random.default_rng(0)
    turned = random_affine_matrix(AffineConfig(rotate_degrees=10), (64, 64), rng)
    assert not Motion(matrix=turned).is_upright
    assert not Motion(displacements=np.zeros((4, 4, 2), dtype=np.float32)).is_upright
    assert Motion(matrix=random_affine_matrix(AffineConfig(), (64, 64), rng)).is_upright


def test_what_shrinks_is_a_mean_of_all_its_pixels() -> None:
    checkered = (np.indices((64, 96)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    assert np.abs(resize_smoothly(checkered, (16, 24)).astype(int) - 127.5).max() <= 1
    assert (
        np.abs(warped(painted((64, 96))._replace(image=checkered), 0.25 * np.eye(2, 3)).image[:15, :23] - 127.5).max()
        <= 1
    )
