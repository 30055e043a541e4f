"""Polygons that surely have a pixel do, by pycocotools."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as mask_api

from detseg.data.annotations.filled import surely_filled
from detseg.data.annotations.ragged import running_total
from detseg.data.annotations.regions import RegionsBuilder

HW = (40, 50)


def polygon(rng: np.random.Generator) -> list[float]:
    """Thin, tiny, crossing itself, traced twice, beyond the image, on pixel centres and borders: anything."""
    scale = float(rng.choice([0.3, 1, 2, 5, 20, 60]))
    points = rng.uniform(-5, 50, 2) + scale * rng.uniform(-1, 1, (int(rng.integers(3, 9)), 2)) * rng.choice([1, 0.1], 2)
    points = points.round(int(rng.choice([0, 1, 2, 9]))) + float(rng.choice([0, 0.5]))
    if rng.random() < 0.2:
        points = np.concatenate([points, points if rng.random() < 0.5 else points[::-1]])
    if rng.random() < 0.2:
        points[:, int(rng.integers(2))] = np.floor(points[0, 0]) + float(rng.choice([0.5, 0.5000001]))
    return [float(value) for value in points.ravel()]


def test_who_is_sure_is_right() -> None:
    rng = np.random.default_rng(0)
    polygons = [polygon(rng) for _ in range(20_000)]
    offsets = running_total([len(p) for p in polygons])
    sure = surely_filled(np.concatenate(polygons), offsets, np.tile(HW, (len(polygons), 1)))
    areas = np.array([int(mask_api.area(mask_api.frPyObjects([p], *HW))[0]) for p in polygons])
    assert (areas[sure] > 0).all()
    assert sure.mean() > 0.05
    assert (areas == 0).mean() > 0.2


def test_nearly_all_of_some_size_are_sure() -> None:
    rng = np.random.default_rng(1)
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    polygons = [((rng.uniform(10, 30, 2) + rng.uniform(3, 9) * circle).ravel()) for _ in range(1000)]
    sizes = np.tile(HW, (1000, 1))
    assert surely_filled(np.concatenate(polygons), running_total([24] * 1000), sizes).mean() > 0.99


def test_regions_without_pixels() -> None:
    rng = np.random.default_rng(2)
    builder = RegionsBuilder()
    for number in range(3000):
        if number % 7:
            builder.append([polygon(rng) for _ in range(int(rng.integers(1, 4)))], HW)
        else:
            counts = [[2000], [0, 2000], [5, 1, 1994], [2000, 0]][int(rng.integers(4))]
            builder.append({"size": list(HW), "counts": counts}, HW)
    regions = builder.build()
    areas = regions.masks(range(3000), HW).areas
    assert regions.are_empty(np.tile(HW, (3000, 1))).tolist() == (areas == 0).tolist()
    assert 0 < (areas == 0).sum() < 3000
