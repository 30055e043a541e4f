"""Boxes, labels and pixels move together, by hand and by brute force; boxes are dropped by the stated rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detseg.config.schema.data import AffineConfig, ElasticConfig
from detseg.data.augment.geometry import (
    AffineMatrix,
    AxisPlacement,
    Motion,
    Placement,
    Warp,
    chained,
    flip_matrix,
    keep_visible,
    moved,
    random_affine_matrix,
    random_displacements,
    resize_smoothly,
    visible_boxes,
)
from detseg.ops.letterbox import PAD_VALUE
from detseg.structures import IGNORE_LABEL
from tests.data.images.painted import blobs, bounds, colored, painted

seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("box", "stays"),
    [
        ((-30, 0, 10, 40), True),  # 400 of 1600 square pixels: exactly the quarter that is asked for
        ((-30.4, 0, 9.6, 40), False),  # 384 of 1600
        ((0, 60, 20, 200), True),  # 40 of 140 rows: 0.286
        ((0, 70, 20, 200), False),  # 30 of 130 rows: 0.231
        ((80, 80, 120, 120), True),  # a quarter again, over a corner
        ((50, 50, 54, 90), True),
        ((-8, 50, 3.9, 90), False),  # what is left is 3.9 pixels wide
    ],
)
def test_drop_rule_by_hand(box: tuple[float, float, float, float], stays: bool) -> None:
    clipped, keep = visible_boxes(np.array([box]), (0, 0, 100, 100), min_visibility=0.25, min_size=4)
    assert keep.tolist() == [stays]
    assert clipped.dtype == np.float32
    np.testing.assert_array_equal(clipped, np.clip(np.array([box], dtype=np.float32), 0, 100))


def test_flips_and_affine_maps_by_hand() -> None:
    item = painted((40, 100), (10, 5, 30, 15))
    for across, down, box in ((True, False, [70, 5, 90, 15]), (False, True, [10, 25, 30, 35])):
        flipped = moved(item, Motion(flip_matrix((40, 100), horizontal=across, vertical=down)), (40, 100))
        assert flipped.boxes.tolist() == [box] == [bounds(flipped.image)]
    item = painted((100, 100), (20, 30, 40, 50))
    quarter_turn = np.array([[0.0, -1.0, 100.0], [1.0, 0.0, 0.0]])  # about (50, 50): (x, y) → (100 - y, x)
    turned = moved(item, Motion(quarter_turn), (100, 100))
    assert turned.boxes.tolist() == [[50, 20, 70, 40]] == [bounds(turned.image)]
    for matrix, expected, seen in (
        ([[2.0, 0, -50], [0, 2.0, -50]], [-10, 10, 30, 50], [0, 10, 30, 50]),
        ([[0.5, 0, 25], [0, 0.5, 25]], [35, 40, 45, 50], [35, 40, 45, 50]),
    ):
        move = np.array(matrix)
        placed, warp = moved(item, Motion(move), (100, 100)), Warp(move, (100, 100))
        assert placed.boxes.tolist() == warp.boxes(item.boxes).tolist() == [expected]
        assert bounds(placed.image) == bounds(warp.image(item.image)) == seen
    assert placed.image[0, 0].tolist() == warp.image(item.image)[0, 0].tolist() == [PAD_VALUE] * 3


def test_affine_matrices_keep_the_centre_and_their_ranges() -> None:
    config = AffineConfig(probability=1, scale=(0.5, 2.0), translate=0.0, rotate_degrees=30)
    matrices = np.stack([random_affine_matrix(config, (60, 80), np.random.default_rng(s)) for s in range(300)])
    np.testing.assert_allclose(matrices @ [40.0, 30.0, 1.0], [[40.0, 30.0]] * 300, atol=1e-9)
    zooms = np.sqrt(np.abs(np.linalg.det(matrices[:, :, :2])))
    assert 0.5 <= zooms.min() < 0.55
    assert 1.8 < zooms.max() <= 2.0
    assert 0.4 < np.mean(zooms < 1) < 0.6  # halving is as likely as doubling
    angles = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert -30 <= angles.min() < -25
    assert 25 < angles.max() <= 30
    config = AffineConfig(probability=1, scale=(1.0, 1.0), translate=0.25)
    matrices = np.stack([random_affine_matrix(config, (60, 80), np.random.default_rng(s)) for s in range(300)])
    np.testing.assert_allclose(matrices[:, :, :2], np.broadcast_to(np.eye(2), (300, 2, 2)))
    assert 19 < np.abs(matrices[:, 0, 2]).max() <= 20
    assert 14 < np.abs(matrices[:, 1, 2]).max() <= 15


def test_placements_along_an_axis_by_hand() -> None:
    def fit(scale: float, offset: float, low: int = 0, high: int = 320) -> tuple[int, int, int, int, bool]:
        return tuple(AxisPlacement.fit(40, scale, offset, low, high))

    assert fit(2, 100) == (0, 40, 100, 180, False)
    assert fit(2, -20) == (10, 30, 0, 60, False)  # the first 10 pixels are out of sight
    assert fit(2, 300) == (0, 10, 300, 320, False)
    assert fit(2, 100, 120, 160) == (10, 20, 120, 160, False)
    assert fit(-2, 220) == (0, 40, 140, 220, True)
    assert fit(-2, 20) == (0, 10, 0, 20, True)
    assert fit(0.01, 3.6) == fit(2, 320) == fit(2, -80) == (0, 0, 0, 0, False)
    assert AxisPlacement.fit(40, 2, -20, 0, 320).scale_and_offset == (2, -20)
    assert AxisPlacement.fit(40, -2, 20, 0, 320).scale_and_offset == (-2, 20)
    assert AxisPlacement.fit(4, -0.5, 2, 0, 320).nearest.tolist() == [3, 1]


def placed(matrix: AffineMatrix, hw: tuple[int, int]) -> Placement:
    (scale_x, _, offset_x), (_, scale_y, offset_y) = matrix.tolist()
    x = AxisPlacement.fit(hw[1], scale_x, offset_x, 0, hw[1])
    return Placement(x, AxisPlacement.fit(hw[0], scale_y, offset_y, 0, hw[0]), hw, resize_smoothly)


@given(seeds, st.tuples(st.integers(0, 40), st.integers(0, 30)))
def test_the_fast_way_is_the_general_way_within_a_pixel(seed: int, corner: tuple[int, int]) -> None:
    (x, y), hw, rng = corner, (60, 80), np.random.default_rng(seed)
    item = painted(hw, (x, y, x + 20, y + 16))
    flips = flip_matrix(hw, horizontal=bool(rng.random() < 0.5), vertical=bool(rng.random() < 0.5))
    config = AffineConfig(probability=1, scale=(0.6, 2.0), translate=0.2)
    matrix = chained(flips, then=random_affine_matrix(config, hw, rng))
    result, fast, general = moved(item, Motion(matrix), hw), placed(matrix, hw), Warp(matrix, hw)
    # Inside the image: sides of whole pixels are another scale, and the difference grows with the distance.
    inside = [np.clip(boxes, 0, [80, 60, 80, 60]) for boxes in (result.boxes, general.boxes(item.boxes))]
    np.testing.assert_allclose(*inside, atol=1.6)
    assert fast.area_scale == pytest.approx(general.area_scale, rel=0.1)
    boxes = keep_visible(result, 0.3, 2).boxes
    if len(boxes):
        np.testing.assert_allclose(bounds(result.image), boxes[0], atol=1.5)


def test_whole_pixels_stay_exact() -> None:
    item = blobs((40, 60), 1, fields=10)
    assert item.semantic is not None
    shift, double = np.array([[1.0, 0, 7], [0, 1.0, -3]]), np.array([[2.0, 0, 0], [0, 2.0, 0]])
    doubled = item.semantic[:20, :30].repeat(2, axis=0).repeat(2, axis=1)
    for move in (Warp(shift, (40, 60)), placed(shift, (40, 60))):
        labels = move.labels(item.semantic, IGNORE_LABEL)
        np.testing.assert_array_equal(labels[:-3, 7:], item.semantic[3:, :-7])
        assert (labels[:, :7] == IGNORE_LABEL).all()
        np.testing.assert_array_equal(colored(labels).image, move.image(item.image))
    for move in (Warp(double, (40, 60)), placed(double, (40, 60))):
        np.testing.assert_array_equal(move.labels(item.semantic, 0), doubled)
    mirrored = moved(item, Motion(flip_matrix((40, 60), horizontal=True, vertical=True)), (40, 60))
    np.testing.assert_array_equal(mirrored.semantic, item.semantic[::-1, ::-1])
    np.testing.assert_array_equal(mirrored.image, item.image[::-1, ::-1])


def test_what_shrinks_is_a_mean_of_all_its_pixels() -> None:
    checkered = (np.indices((64, 96)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    assert np.abs(resize_smoothly(checkered, (16, 24)).astype(int) - 127.5).max() <= 1
    warped = Warp(0.25 * np.eye(2, 3), (64, 96)).image(checkered)
    assert np.abs(warped[:15, :23] - 127.5).max() <= 1


def test_an_image_longer_than_opencv_maps() -> None:
    item = replace(painted((2, 40_000), (0, 0, 20_000, 2)), semantic=np.zeros((2, 40_000), dtype=np.uint8))
    turned = random_affine_matrix(AffineConfig(rotate_degrees=10), (64, 64), np.random.default_rng(0))
    for motion in (Motion(turned), Motion(2 * np.eye(2, 3))):
        assert moved(item, motion, (64, 64)).image.shape == (64, 64, 3)


@pytest.mark.parametrize("elastic", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_a_warp_by_brute_force(seed: int, elastic: bool) -> None:
    """Each pixel shows what lies under its centre: pixels interpolated, labels nearest."""
    height, width = 30, 40
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    semantic = rng.integers(0, 9, (height, width), dtype=np.uint8)
    config = AffineConfig(probability=1, scale=(0.7, 2.0), translate=0.2, rotate_degrees=180, shear_degrees=20)
    matrix = random_affine_matrix(config, (height, width), rng)
    displacements = random_displacements(ElasticConfig(strength=0.1), (height, width), rng) if elastic else None
    move = Warp(matrix, (height, width), displacements)
    pixels, labels = move.image(image).astype(int), move.labels(semantic, IGNORE_LABEL)
    y, x = np.indices((height, width)) + 0.5
    places = np.stack([x, y], axis=2) + (0 if displacements is None else displacements) - matrix[:, 2]
    u, v = np.moveaxis(places @ np.linalg.inv(matrix[:, :2]).T, 2, 0)
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    expected = np.full((height, width), IGNORE_LABEL, dtype=np.uint8)
    expected[inside] = semantic[v[inside].astype(int), u[inside].astype(int)]
    clear = np.minimum(np.abs(u - np.round(u)), np.abs(v - np.round(v))) > 0.005  # OpenCV 4 counts in 1/1024 pixels
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(labels[clear], expected[clear])
    padded = np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)), constant_values=PAD_VALUE)
    u, v = np.clip(u + 0.5, 0, width + 1 - 1e-9), np.clip(v + 0.5, 0, height + 1 - 1e-9)  # centres of padded pixels
    i, j = v.astype(int), u.astype(int)
    a, b = (v - i)[..., None], (u - j)[..., None]
    mixed = (1 - a) * ((1 - b) * padded[i, j] + b * padded[i, j + 1])
    mixed += a * ((1 - b) * padded[i + 1, j] + b * padded[i + 1, j + 1])
    # OpenCV 4 counts places in 1/32 of a pixel: up to 1/64 off along both axes.
    assert np.abs(pixels - mixed).max() <= 2 * 255 / 64 + 1


@pytest.mark.parametrize("grid", [2, 3, 7])
def test_displacements_are_bicubic_between_normal_ones(grid: int) -> None:
    def weights(length: int) -> np.ndarray:
        """(length, grid) weight of each control point at each pixel: cubic convolution (Keys 1981), a = -0.75."""
        result = np.zeros((length, grid))
        for pixel in range(length):
            place = (pixel + 0.5) * grid / length - 0.5  # control point k lies in the middle of field k
            for k in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
                t = abs(place - k)
                weight = 1.25 * t**3 - 2.25 * t**2 + 1 if t <= 1 else -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
                result[pixel, min(max(k, 0), grid - 1)] += weight
        return result

    config = ElasticConfig(probability=1, grid=grid, strength=0.05)
    displacements = random_displacements(config, (60, 90), np.random.default_rng(0))
    assert displacements.dtype == np.float32
    control = np.random.default_rng(0).normal(0, 3.0, (grid, grid, 2))  # 0.05 of the shorter side
    np.testing.assert_allclose(displacements, np.einsum("yi,ijk,xj->yxk", weights(60), control, weights(90)), atol=1e-4)


def test_an_elastic_deformation_of_boxes_alone_is_refused() -> None:
    motion = Motion(displacements=np.zeros((20, 30, 2), dtype=np.float32))
    for item in (painted((20, 30)), replace(blobs((20, 30), 0), boxes=np.array([[0, 0, 5, 5]], dtype=np.float32))):
        with pytest.raises(ValueError, match="boxes cannot follow an elastic"):
            moved(item, motion, (20, 30))
