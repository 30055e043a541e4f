"""Boxes and labels follow pixels through crop, flips, zoom and affine maps; boxes are dropped by the stated rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detseg.config.schema.data import AffineConfig
from detseg.data.augment.affine import chained, random_affine_matrix, random_zoom_matrix
from detseg.data.augment.geometry import (
    MIN_CROP,
    flipped,
    keep_visible,
    letterboxed,
    random_crop,
    visible_boxes,
    warped,
)
from detseg.ops.letterbox import PAD_VALUE
from detseg.structures import IGNORE_LABEL, UInt8Array
from tests.data.images.painted import blobs, bounds, colored, painted

seeds = st.integers(0, 2**32 - 1)
spans = st.tuples(st.integers(0, 40), st.integers(6, 20))


@pytest.mark.parametrize(
    ("box", "stays"),
    [
        ((10, 10, 20, 20), True),
        ((-30, 0, 10, 40), True),  # 400 of 1600 square pixels: exactly the quarter that is asked for
        ((-30.4, 0, 9.6, 40), False),  # 384 of 1600
        ((0, 60, 20, 200), True),  # 40 of 140 rows: 0.286
        ((0, 70, 20, 200), False),  # 30 of 130 rows: 0.231
        ((80, 80, 120, 120), True),  # a quarter again, over a corner
        ((50, 50, 54, 90), True),
        ((50, 50, 53.9, 90), False),  # 3.9 pixels wide
        ((-8, 50, 3.9, 90), False),  # what is left is 3.9 pixels wide
        ((120, 120, 130, 130), False),
    ],
)
def test_drop_rule_by_hand(box: tuple[float, float, float, float], stays: bool) -> None:
    clipped, keep = visible_boxes(np.array([box]), (0, 0, 100, 100), min_visibility=0.25, min_size=4)
    assert keep.tolist() == [stays]
    assert clipped.dtype == np.float32
    np.testing.assert_array_equal(clipped, np.clip(np.array([box], dtype=np.float32), 0, 100))


@pytest.mark.parametrize("box", [(120, 0, 130, 10), (-10, 0, 0, 10), (50, 0, 50 + 1e-9, 10), (0, 99.9999999, 9, 120)])
def test_boxes_without_area_are_dropped_even_when_nothing_is_asked(box: tuple[float, ...]) -> None:
    assert visible_boxes(np.array([box]), (0, 0, 100, 100), 0.0, 0.0)[1].tolist() == [False]


def test_columns_follow_their_boxes() -> None:
    item = painted((100, 100), (0, 0, 10, 10), (20, 20, 21, 30), (50, 50, 60, 60))._replace(
        labels=np.array([4, 5, 6]), ignore=np.array([False, False, True])
    )
    kept = keep_visible(item, min_visibility=0.1, min_size=2)
    assert kept.labels.tolist() == [4, 6]
    assert kept.ignore.tolist() == [False, True]
    assert kept.boxes.tolist() == [[0, 0, 10, 10], [50, 50, 60, 60]]


def test_flips_by_hand() -> None:
    item = painted((40, 100), (10, 5, 30, 15))
    assert flipped(item, horizontal=True, vertical=False).boxes.tolist() == [[70, 5, 90, 15]]
    assert flipped(item, horizontal=False, vertical=True).boxes.tolist() == [[10, 25, 30, 35]]
    both = flipped(item, horizontal=True, vertical=True)
    assert both.boxes.tolist() == [[70, 25, 90, 35]] == [bounds(both.image)]


def test_affine_by_hand() -> None:
    item = painted((100, 100), (20, 30, 40, 50))
    quarter_turn = np.array([[0.0, -1.0, 100.0], [1.0, 0.0, 0.0]])  # about (50, 50): (x, y) → (100 - y, x)
    turned = warped(item, quarter_turn)
    assert turned.boxes.tolist() == [[50, 20, 70, 40]] == [bounds(turned.image)]
    doubled = warped(item, np.array([[2.0, 0.0, -50.0], [0.0, 2.0, -50.0]]))
    assert doubled.boxes.tolist() == [[-10, 10, 30, 50]]
    assert bounds(doubled.image) == [0, 10, 30, 50]
    halved = warped(item, np.array([[0.5, 0.0, 25.0], [0.0, 0.5, 25.0]]))
    assert halved.boxes.tolist() == [[35, 40, 45, 50]] == [bounds(halved.image)]
    assert halved.image[0, 0].tolist() == [PAD_VALUE] * 3


def test_affine_matrix_keeps_the_center_and_its_ranges() -> None:
    config = AffineConfig(probability=1, scale=(0.5, 2.0), translate=0.0, rotate_degrees=30)
    center = np.array([40.0, 30.0, 1.0])
    zooms, angles = [], []
    for seed in range(300):
        matrix = random_affine_matrix(config, (60, 80), np.random.default_rng(seed))
        np.testing.assert_allclose(matrix @ center, center[:2], atol=1e-9)
        zooms.append(math.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        angles.append(math.degrees(math.atan2(matrix[1, 0], matrix[0, 0])))
    assert 0.5 <= min(zooms) < 0.55
    assert 1.8 < max(zooms) <= 2.0
    assert 120 < sum(zoom < 1 for zoom in zooms) < 180  # halving is as likely as doubling
    assert -30 <= min(angles) < -25
    assert 25 < max(angles) <= 30


def test_shift_reaches_its_share_of_the_side() -> None:
    config = AffineConfig(probability=1, scale=(1.0, 1.0), translate=0.25)
    matrices = np.stack([random_affine_matrix(config, (60, 80), np.random.default_rng(s)) for s in range(300)])
    np.testing.assert_allclose(matrices[:, :, :2], np.broadcast_to(np.eye(2), (300, 2, 2)))
    assert 19 < np.abs(matrices[:, 0, 2]).max() <= 20
    assert 14 < np.abs(matrices[:, 1, 2]).max() <= 15


@given(seeds, spans, spans)
def test_a_painted_box_follows_the_pixels_of_an_affine_map(
    seed: int, horizontal: tuple[int, int], vertical: tuple[int, int]
) -> None:
    (x, width), (y, height) = horizontal, vertical
    item = painted((64, 80), (x, y, x + width, y + height))
    config = AffineConfig(probability=1, scale=(0.7, 1.4), translate=0.1, rotate_degrees=20, shear_degrees=10)
    result = warped(item, random_affine_matrix(config, (64, 80), np.random.default_rng(seed)))
    x1, y1, x2, y2 = result.boxes[0].tolist()
    if x1 < 0 or y1 < 0 or x2 > 80 or y2 > 64:
        return  # the corners that span the box may lie outside
    # Corners thinner than a pixel are blended with what surrounds them.
    np.testing.assert_allclose(bounds(result.image), [x1, y1, x2, y2], atol=1.5)


@given(seeds, spans, spans)
def test_crop_keeps_every_box_whole(seed: int, horizontal: tuple[int, int], vertical: tuple[int, int]) -> None:
    (x, width), (y, height) = horizontal, vertical
    item = painted((64, 80), (x, y, x + width, y + height), (30, 20, 36, 29))
    result = random_crop(item, np.random.default_rng(seed))
    assert result.hw[0] >= 64 * MIN_CROP
    assert result.hw[1] >= 80 * MIN_CROP
    assert (result.boxes >= 0).all()
    assert (result.boxes[:, 2:] <= result.hw[::-1]).all()
    np.testing.assert_array_equal(result.boxes[:, 2:] - result.boxes[:, :2], item.boxes[:, 2:] - item.boxes[:, :2])
    x1, y1 = result.boxes.min(axis=0)[:2].tolist()
    x2, y2 = result.boxes.max(axis=0)[2:].tolist()
    assert bounds(result.image) == [x1, y1, x2, y2]


def test_crop_without_boxes_and_with_fractional_ones() -> None:
    shapes = {random_crop(painted((64, 80)), np.random.default_rng(seed)).hw for seed in range(50)}
    assert len(shapes) > 30
    item = painted((64, 80), (0, 0, 80, 64))._replace(boxes=np.array([[0.4, 0.2, 79.6, 63.7]], dtype=np.float32))
    assert random_crop(item, np.random.default_rng(0)).hw == (64, 80)


def test_letterboxed_box_lies_on_its_pixels() -> None:
    result = letterboxed(painted((100, 200), (40, 20, 100, 80)), (96, 96))
    assert result.boxes.tolist() == [bounds(result.image)] or np.abs(result.boxes - bounds(result.image)).max() < 1


def test_crop_and_flips_move_each_label_with_its_pixel() -> None:
    item = blobs((60, 81), 0, fields=20)
    for seed in range(20):
        part = random_crop(item, np.random.default_rng(seed))
        for result in (part, *(flipped(part, horizontal=h, vertical=v) for h, v in ((True, False), (False, True)))):
            assert result.semantic is not None
            np.testing.assert_array_equal(colored(result.semantic).image, result.image)
    assert item.semantic is not None
    both = flipped(item, horizontal=True, vertical=True).semantic
    np.testing.assert_array_equal(both, item.semantic[::-1, ::-1])


def nearest_by_brute_force(semantic: UInt8Array, matrix: np.ndarray) -> tuple[UInt8Array, np.ndarray]:
    """The label under each pixel's centre, and how far that place is from a border between pixels."""
    height, width = semantic.shape
    y, x = np.indices(semantic.shape) + 0.5
    places = np.stack([x, y], axis=2) - matrix[:, 2]
    u, v = np.moveaxis(places @ np.linalg.inv(matrix[:, :2]).T, 2, 0)
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    result = np.full(semantic.shape, IGNORE_LABEL, dtype=np.uint8)
    result[inside] = semantic[v[inside].astype(int), u[inside].astype(int)]
    return result, np.minimum(np.abs(u - np.round(u)), np.abs(v - np.round(v)))


@pytest.mark.parametrize("seed", range(10))
def test_an_affine_map_takes_the_label_under_each_centre(seed: int) -> None:
    rng = np.random.default_rng(seed)
    item = colored(rng.integers(0, 4, (60, 81), dtype=np.uint8))  # every pixel for itself
    config = AffineConfig(probability=1, scale=(0.5, 2.0), translate=0.2, rotate_degrees=180, shear_degrees=20)
    matrix = chained(random_zoom_matrix((0.5, 2.0), (60, 81), rng), random_affine_matrix(config, (60, 81), rng))
    assert item.semantic is not None
    expected, distance = nearest_by_brute_force(item.semantic, matrix)
    clear = distance > 0.005  # OpenCV 4 counts in 1/1024 of a pixel
    assert clear.mean() > 0.9
    result = warped(item, matrix).semantic
    assert result is not None
    np.testing.assert_array_equal(result[clear], expected[clear])


def test_whole_pixels_stay_exact_under_an_affine_map() -> None:
    item = blobs((40, 60), 1, fields=10)
    assert item.semantic is not None
    doubled = warped(item, np.array([[2.0, 0, 0], [0, 2.0, 0]]))
    np.testing.assert_array_equal(doubled.semantic, item.semantic[:20, :30].repeat(2, axis=0).repeat(2, axis=1))
    moved = warped(item, np.array([[1.0, 0, 7], [0, 1.0, -3]]))
    assert moved.semantic is not None
    np.testing.assert_array_equal(moved.semantic[:-3, 7:], item.semantic[3:, :-7])
    np.testing.assert_array_equal(colored(moved.semantic).image, moved.image)


def test_zoom_shows_a_part_of_a_grown_image_and_all_of_a_shrunk_one() -> None:
    zooms, places = [], []
    for seed in range(400):
        matrix = random_zoom_matrix((0.5, 2.0), (60, 80), np.random.default_rng(seed))
        zoom = float(matrix[0, 0])
        np.testing.assert_array_equal(matrix[:, :2], zoom * np.eye(2))
        low, high = matrix[:, 2], matrix @ np.array([80.0, 60.0, 1.0])
        spare = np.array([80, 60]) - (high - low)
        if zoom >= 1:
            assert (low <= 0).all()
            assert (high >= (80, 60)).all()
        else:
            assert (low >= 0).all()
            assert (high <= (80, 60)).all()
        zooms.append(zoom)
        places.append(low / spare)
    assert 0.5 <= min(zooms) < 0.52
    assert 1.95 < max(zooms) <= 2.0
    assert 160 < sum(zoom < 1 for zoom in zooms) < 240  # halving is as likely as doubling
    np.testing.assert_allclose(np.quantile(places, [0.01, 0.5, 0.99], axis=0).T, [[0.01, 0.5, 0.99]] * 2, atol=0.08)
    assert abs(np.corrcoef(np.array(places).T)[0, 1]) < 0.15


def test_chained_maps_by_hand() -> None:
    double = np.array([[2.0, 0, 1], [0, 2.0, 5]])
    turn = np.array([[0.0, -1, 100], [1, 0.0, 0]])
    assert chained(double, then=turn).tolist() == [[0, -2, 95], [2, 0, 1]]  # (3, 4) → (7, 13) → (87, 7)
    assert chained(turn, then=double).tolist() == [[0, -2, 201], [2, 0, 5]]
