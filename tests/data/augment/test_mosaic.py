"""Mosaic and mixup: where boxes and labels land, by hand and by painted rectangles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detseg.config.schema.data import AffineConfig
from detseg.data.augment.geometry import (
    AugmentItem,
    Motion,
    chained,
    flip_matrix,
    keep_visible,
    moved,
    random_affine_matrix,
    random_zoom_matrix,
)
from detseg.data.augment.mosaic import copy_paste, mixup, mosaic
from detseg.structures import IGNORE_LABEL
from tests.data.images.painted import (
    assert_bounds_of_masks,
    assert_valid,
    blobs,
    bounds,
    colored,
    dense_masks,
    ellipses,
    painted,
)

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]


class Middle:
    """A stand-in for a generator: the middle of every range."""

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2

    def random(self) -> float:
        return 0.5


def middle() -> Any:
    return Middle()


def test_large_tiles_are_cut_at_the_border_of_their_quadrants() -> None:
    tiles = [painted((100, 100), (10, 20, 40, 45), (30, 30, 70, 70), (60, 0, 90, 20), label=k) for k in range(4)]
    result = mosaic(tiles, (100, 100), (1.0, 1.0), 0.1, middle())
    # Pixels 25 to 75 of each tile show; of the first box 15 × 20 of 30 × 25 pixels, of the third nothing.
    assert result.boxes.tolist() == [
        [x, y, x + 15, y + 20] if cut else [x + 5, y + 5, x + 45, y + 45]
        for x, y in ((0, 0), (50, 0), (0, 50), (50, 50))
        for cut in (True, False)
    ]
    assert result.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert mosaic(tiles, (100, 100), (1.0, 1.0), 0.41, middle()).labels.tolist() == [0, 1, 2, 3]


def test_small_tiles_touch_the_center() -> None:
    maps = [colored(np.full((200, 100), label, dtype=np.uint8)) for label in range(4)]
    box = painted((200, 100), (0, 0, 100, 200))
    tiles = [replace(box, image=item.image, semantic=item.semantic) for item in maps]
    result = mosaic(tiles, (80, 80), (0.5, 0.5), 0.1, middle())  # letterboxed 80 × 40, halved 40 × 20
    assert result.boxes.tolist() == [[20, 0, 40, 40], [40, 0, 60, 40], [20, 40, 40, 80], [40, 40, 60, 80]]
    expected = np.full((80, 80), IGNORE_LABEL, dtype=np.uint8)
    expected[:40, 20:40], expected[:40, 40:60], expected[40:, 20:40], expected[40:, 40:60] = 0, 1, 2, 3
    np.testing.assert_array_equal(result.semantic, expected)
    np.testing.assert_array_equal(colored(expected).image, result.image)


@given(st.integers(0, 2**32 - 1), st.tuples(st.integers(40, 90), st.integers(40, 90)), st.booleans())
def test_boxes_lie_on_their_pixels(seed: int, tile_hw: tuple[int, int], moves: bool) -> None:
    hw = (96, 128)
    rng = np.random.default_rng(seed)
    tiles = [painted(tile_hw, (8, 10, 30, 34), color=color, label=k) for k, color in enumerate(COLORS)]
    matrix = flip_matrix(hw, horizontal=moves, vertical=moves)
    matrix = chained(matrix, then=random_zoom_matrix((0.6, 1.6), hw, rng)) if moves else matrix
    result = keep_visible(mosaic(tiles, hw, (0.6, 1.6), 0.1, rng, matrix), 0.1, 1)
    assert_valid(result, hw)
    assert len(set(result.labels.tolist())) == len(result.labels)
    for label, color in enumerate(COLORS):
        found = bounds(result.image, color)
        if label in result.labels.tolist():
            np.testing.assert_allclose(found, result.boxes[result.labels.tolist().index(label)], atol=1.6)
        elif found:  # dropped: at most a tenth of it is seen, and a row of blended pixels
            zoomed_area = 22 * 24 * (1.6 * 1.6 * min(hw[0] / tile_hw[0], hw[1] / tile_hw[1])) ** 2
            assert (found[2] - found[0] - 1) * (found[3] - found[1] - 1) <= 0.1 * zoomed_area


def test_mixup_blends_about_half_and_counts_all_boxes() -> None:
    a, b = painted((20, 20), (0, 0, 20, 20), label=1), painted((20, 20), (5, 5, 9, 9), (1, 1, 3, 3), label=2)
    black = replace(b, image=np.zeros_like(b.image))
    levels = []
    for seed in range(50):
        result: AugmentItem = mixup(a, black, np.random.default_rng(seed))
        assert result.labels.tolist() == [1, 2, 2]
        assert result.boxes.tolist() == [[0, 0, 20, 20], [5, 5, 9, 9], [1, 1, 3, 3]]
        assert len(np.unique(result.image)) == 1
        levels.append(int(result.image[0, 0, 0]) / 255)
    # Beta(32, 32) has mean 0.5 and standard deviation 1 / sqrt(4 · 65) = 0.062.
    assert abs(np.mean(levels) - 0.5) < 0.04
    assert 0.04 < np.std(levels) < 0.09


@given(st.integers(0, 2**32 - 1))
def test_what_is_pasted_covers_what_lies_beneath(seed: int) -> None:
    """Against masks as arrays of bool."""
    item, other = ellipses((40, 50), seed), ellipses((40, 50), seed + 1, base=3)
    result = copy_paste(item, other, np.random.default_rng(seed))
    num, pasted = len(item.labels), result.labels[len(item.labels) :].tolist()
    assert set(pasted) <= set(other.labels[~other.ignore].tolist())
    rows = [other.labels.tolist().index(label) for label in pasted]
    over = dense_masks(other)[rows]
    covered = over.any(axis=0)
    np.testing.assert_array_equal(dense_masks(result), np.concatenate([dense_masks(item) & ~covered, over]))
    np.testing.assert_array_equal(result.image, np.where(covered[:, :, None], other.image, item.image))
    np.testing.assert_array_equal(result.ignore, [*item.ignore, *[False] * len(rows)])
    left = keep_visible(result, 0.5, 0)
    fractions = (dense_masks(item) & ~covered).sum(axis=(1, 2)) / dense_masks(item).sum(axis=(1, 2))
    kept = [*(fractions >= 0.5), *[True] * len(rows)]
    assert left.labels.tolist() == result.labels[kept].tolist()
    np.testing.assert_array_equal(assert_bounds_of_masks(left), dense_masks(result)[kept])
    assert num + len(rows) == len(result.labels)


def test_each_object_that_counts_is_pasted_every_other_time() -> None:
    item, other = ellipses((40, 50), 0), ellipses((40, 50), 1, base=3)  # the second one of each is to be ignored
    results = [copy_paste(item, other, np.random.default_rng(seed)) for seed in range(200)]
    pasted = [tuple(result.labels[3:].tolist()) for result in results]
    assert set(pasted) == {(), (3,), (5,), (3, 5)}
    assert all(30 <= pasted.count(subset) <= 70 for subset in set(pasted))


@pytest.mark.parametrize("horizontal", [False, True])
def test_a_moved_mosaic_is_the_mosaic_moved(horizontal: bool) -> None:
    """Rounded ends apart: smooth images differ by little, and objects by less than a pixel."""
    rows, columns = np.indices((90, 120))
    smooth = np.stack([rows * 2, columns * 2, rows + columns], axis=2).astype(np.uint8)
    tiles = [replace(painted((90, 120), (30, 20, 80, 60), label=k), image=smooth) for k in range(4)]
    for seed in range(10):
        rng = np.random.default_rng(seed)
        flip = flip_matrix((96, 128), horizontal=horizontal, vertical=False)
        matrix = chained(flip, then=random_affine_matrix(AffineConfig(scale=(0.7, 1.4)), (96, 128), rng))
        state = rng.bit_generator.state
        at_once = mosaic(tiles, (96, 128), (0.5, 1.5), 0.1, rng, matrix)
        rng.bit_generator.state = state
        stepwise = moved(mosaic(tiles, (96, 128), (0.5, 1.5), 0.1, rng), Motion(matrix), (96, 128))
        assert np.abs(at_once.image.astype(int) - stepwise.image).mean() < 4
        ours, theirs = keep_visible(at_once, 0.2, 3), keep_visible(stepwise, 0.2, 3)
        common = np.intersect1d(ours.labels, theirs.labels)
        assert len(common) >= max(len(ours.labels), len(theirs.labels)) - 1
        for label in common.tolist():
            np.testing.assert_allclose(ours.boxes[ours.labels == label], theirs.boxes[theirs.labels == label], atol=1.6)


def test_images_that_cannot_be_put_together() -> None:
    plain, masked, labeled = painted((30, 50)), ellipses((30, 50), 0), blobs((30, 50), 0)
    for odd in (labeled, masked):
        with pytest.raises(ValueError, match="in all or in none"):
            mosaic([odd, plain, plain, plain], (64, 64), (0.5, 1.5), 0.1, np.random.default_rng(0))
    for first, message in ((masked, "in all or in none"), (labeled, r"set data\.augmentation\.mixup to 0")):
        with pytest.raises(ValueError, match=message):
            mixup(first, plain, np.random.default_rng(0))
    for pair in ((masked, plain), (plain, masked), (labeled, labeled)):
        with pytest.raises(ValueError, match=r"needs masks of objects; set data\.augmentation\.copy_paste to 0"):
            copy_paste(*pair, np.random.default_rng(0))
