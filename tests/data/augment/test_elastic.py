"""Elastic deformation against brute force: displacements, pixels, labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from detseg.config.schema.data import AffineConfig, ElasticConfig
from detseg.data.augment.affine import random_affine_matrix
from detseg.data.augment.elastic import deformed, random_displacements
from detseg.data.augment.geometry import warped
from detseg.ops.letterbox import PAD_VALUE
from detseg.structures import IGNORE_LABEL
from tests.data.images.painted import blobs, colored, painted

CONFIG = ElasticConfig(probability=1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def cubic_weights(length: int, num: int) -> npt.NDArray[np.float64]:
    """(length, num) weight of each control point at each pixel: cubic convolution (Keys 1981) with a = -0.75."""
    weights = np.zeros((length, num))
    for pixel in range(length):
        place = (pixel + 0.5) * num / length - 0.5  # control point k lies in the middle of field k
        for k in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            t = abs(place - k)
            weight = 1.25 * t**3 - 2.25 * t**2 + 1 if t <= 1 else -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
            weights[pixel, min(max(k, 0), num - 1)] += weight
    return weights


@pytest.mark.parametrize("grid", [2, 3, 7])
def test_displacements_are_bicubic_between_normal_ones(grid: int) -> None:
    config = ElasticConfig(probability=1, grid=grid, strength=0.05)
    displacements = random_displacements(config, (60, 90), rng())
    assert displacements.shape == (60, 90, 2)
    assert displacements.dtype == np.float32
    control = rng().normal(0, 3.0, (grid, grid, 2))  # 0.05 of the shorter side
    expected = np.einsum("yi,ijk,xj->yxk", cubic_weights(60, grid), control, cubic_weights(90, grid))
    np.testing.assert_allclose(displacements, expected, atol=1e-4)


def test_strength_is_the_standard_deviation_as_a_share_of_the_shorter_side() -> None:
    # With 3 fields of 17 × 21 pixels, pixel (8, 10) is the middle of the first.
    drawn = np.array([random_displacements(CONFIG, (51, 63), rng(seed))[8, 10] for seed in range(1000)])
    assert abs(drawn.std() - 0.02 * 51) < 0.06  # of 2000 numbers the deviation is known to 1.6 %
    assert np.abs(drawn.mean(axis=0)).max() < 0.1


def test_whole_pixels_of_displacement_move_exactly() -> None:
    item = blobs((40, 60), 0, fields=10)
    displacements = np.broadcast_to(np.array([3, -2], dtype=np.float32), (40, 60, 2))
    result = deformed(item, displacements)
    assert item.semantic is not None
    assert result.semantic is not None
    np.testing.assert_array_equal(result.semantic[2:, :-3], item.semantic[:-2, 3:])
    assert (result.semantic[:2] == IGNORE_LABEL).all()
    assert (result.image[:, -3:] == PAD_VALUE).all()
    np.testing.assert_array_equal(colored(result.semantic).image, result.image)


@pytest.mark.parametrize("seed", range(4))
def test_pixels_and_labels_by_brute_force(seed: int) -> None:
    height, width = 30, 40
    image = rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    semantic = rng(seed).integers(0, 9, (height, width), dtype=np.uint8)
    displacements = random_displacements(ElasticConfig(probability=1, strength=0.1), (height, width), rng(seed))
    result = deformed(painted((height, width))._replace(image=image, semantic=semantic), displacements)
    assert result.semantic is not None
    padded = np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)), constant_values=PAD_VALUE)
    for y in range(height):
        for x in range(width):
            u, v = x + float(displacements[y, x, 0]), y + float(displacements[y, x, 1])
            if not (-1 <= u < width and -1 <= v < height):
                assert (result.image[y, x] == PAD_VALUE).all()
                assert result.semantic[y, x] == IGNORE_LABEL
                continue
            i, j = int(np.floor(v)), int(np.floor(u))
            a, b = v - i, u - j
            corners = padded[i + 1 : i + 3, j + 1 : j + 3]
            expected = (1 - a) * ((1 - b) * corners[0, 0] + b * corners[0, 1]) + a * (
                (1 - b) * corners[1, 0] + b * corners[1, 1]
            )
            # OpenCV 4 counts places in 1/32 of a pixel: up to 1/64 off along both axes.
            assert np.abs(result.image[y, x] - expected).max() <= 2 * 255 / 64 + 1
            if min(abs(a - 0.5), abs(b - 0.5)) > 0.001:  # not on a border between pixels
                row, column = round(v), round(u)
                inside = 0 <= row < height and 0 <= column < width
                assert result.semantic[y, x] == (semantic[row, column] if inside else IGNORE_LABEL)


def test_with_an_affine_map_first_it_is_that_map_where_nothing_is_displaced() -> None:
    item = blobs((60, 80), 3)
    none = np.zeros((60, 80, 2), dtype=np.float32)
    for seed in range(10):
        matrix = random_affine_matrix(AffineConfig(scale=(0.7, 1.5), rotate_degrees=40), (60, 80), rng(seed))
        expected, result = warped(item, matrix), deformed(item, none, matrix)
        assert expected.semantic is not None
        assert result.semantic is not None
        assert np.abs(expected.image.astype(int) - result.image).max() <= 2 * 255 / 32 + 1
        assert (expected.semantic != result.semantic).mean() < 0.001  # centres that fall between two pixels


def test_displacements_are_pixels_of_the_result_when_an_affine_map_comes_first() -> None:
    item = blobs((40, 60), 0, fields=10)
    double = np.array([[2.0, 0, 0], [0, 2.0, 0]])
    displacements = np.broadcast_to(np.array([4, 2], dtype=np.float32), (40, 60, 2))
    result, doubled = deformed(item, displacements, double), warped(item, double)
    assert result.semantic is not None
    assert doubled.semantic is not None
    np.testing.assert_array_equal(result.semantic[:-2, :-4], doubled.semantic[2:, 4:])


def test_boxes_are_refused() -> None:
    none = np.zeros((20, 30, 2), dtype=np.float32)
    with_box = blobs((20, 30), 0)._replace(boxes=np.array([[0, 0, 5, 5]], dtype=np.float32))
    for item in (painted((20, 30)), with_box):
        with pytest.raises(ValueError, match="boxes cannot follow it"):
            deformed(item, none)
