"""Connected regions against brute force: flood filling in Python, and the parity of crossings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from detseg.ops.regions import drop_specks, fill_holes, mask_polygons, relabel_specks

SIDES = ((0, 1), (1, 0), (0, -1), (-1, 0))
CORNERS = ((1, 1), (1, -1), (-1, 1), (-1, -1))
Pixels = set[tuple[int, int]]
RANDOM = [(seed, fraction) for seed in range(12) for fraction in (0.3, 0.5, 0.7)]


def random_mask(seed: int, fraction: float) -> npt.NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    mask: npt.NDArray[np.bool_] = rng.random((int(rng.integers(1, 14)), int(rng.integers(1, 14)))) < fraction
    return mask


def flooded(values: npt.NDArray[np.generic], steps: tuple[tuple[int, int], ...]) -> list[Pixels]:
    """The connected regions of equal values."""
    left, regions = set(np.ndindex(values.shape)), []
    while left:
        waiting, region = [left.pop()], set[tuple[int, int]]()
        while waiting:
            row, column = waiting.pop()
            region.add((row, column))
            for down, right in steps:
                there = (row + down, column + right)
                if there in left and values[there] == values[row, column]:
                    left.remove(there)
                    waiting.append(there)
        regions.append(region)
    return regions


@pytest.mark.parametrize(("seed", "fraction"), RANDOM)
@pytest.mark.parametrize("limit", [1, 2, 5])
def test_specks_and_holes(seed: int, fraction: float, limit: int) -> None:
    mask = random_mask(seed, fraction)
    height, width = mask.shape
    kept, filled = np.zeros_like(mask), mask.copy()
    for region in flooded(mask, SIDES + CORNERS):
        if mask[next(iter(region))] and len(region) >= limit:
            kept[tuple(np.array(list(region)).T)] = True
    for region in flooded(mask, SIDES):
        is_open = any(row in (0, height - 1) or column in (0, width - 1) for row, column in region)
        if not mask[next(iter(region))] and len(region) <= limit and not is_open:
            filled[tuple(np.array(list(region)).T)] = True
    np.testing.assert_array_equal(drop_specks(mask, limit), kept)
    np.testing.assert_array_equal(fill_holes(mask, limit), filled)


def relabelled(labels: npt.NDArray[np.uint8], min_area: int) -> npt.NDArray[np.uint8]:
    """By the definition, pixel by pixel."""
    labels = labels.copy()
    specks = [region for region in flooded(labels, SIDES + CORNERS) if len(region) < min_area]
    while specks:
        unknown, found = set().union(*specks), []
        for speck in specks:
            around = Counter(list(sides_of(speck, unknown, labels)))
            if around:
                found.append((speck, min(around, key=lambda label: (-around[label], label))))
        if not found:
            return labels
        for speck, label in found:
            specks.remove(speck)
            labels[tuple(np.array(list(speck)).T)] = label
    return labels


def sides_of(speck: Pixels, unknown: Pixels, labels: npt.NDArray[np.uint8]) -> Iterator[int]:
    for row, column in speck:
        for down, right in SIDES:
            there = (row + down, column + right)
            if 0 <= there[0] < labels.shape[0] and 0 <= there[1] < labels.shape[1] and there not in unknown:
                yield int(labels[there])


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("min_area", [1, 3, 8])
def test_specks_of_maps_take_the_label_around_them(seed: int, min_area: int) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, (4, 5)).astype(np.uint8).repeat(4, axis=0).repeat(3, axis=1)
    noisy = np.where(rng.random(coarse.shape) < 0.25, rng.integers(0, 4, coarse.shape), coarse).astype(np.uint8)
    before = noisy.copy()
    np.testing.assert_array_equal(relabel_specks(noisy, min_area), relabelled(noisy, min_area))
    np.testing.assert_array_equal(noisy, before)


def test_a_map_of_specks_alone_stays() -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(relabel_specks(labels, 5), labels)


@pytest.mark.parametrize(("seed", "fraction"), RANDOM)
def test_outlines_enclose_the_pixels_of_a_mask_and_no_others(seed: int, fraction: float) -> None:
    mask = random_mask(seed, fraction)
    polygons = mask_polygons(mask)
    assert len(polygons) == sum(bool(mask[next(iter(region))]) for region in flooded(mask, SIDES + CORNERS))
    filled = np.zeros(mask.shape, dtype=np.int64)
    for outer, *holes in polygons:
        areas = []
        for ring in (outer, *holes):
            x, y = ring.T
            areas.append(int(x @ np.roll(y, -1) - y @ np.roll(x, -1)))
            assert (np.abs(ring - np.roll(ring, 1, axis=0)) > 0).sum(axis=1).tolist() == [1] * len(ring)  # along edges
            for row, column in np.ndindex(mask.shape):  # a ray to the right of the centre
                ends = zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True)
                crossed = sum(min(y1, y2) <= row < max(y1, y2) and x1 > column for (x1, y1), (_, y2) in ends)
                filled[row, column] += crossed % 2
        assert areas[0] > 0
        assert all(area < 0 for area in areas[1:])
    np.testing.assert_array_equal(filled % 2 == 1, mask)


def test_outlines_by_hand() -> None:
    mask = np.ones((4, 5), dtype=np.bool_)
    mask[1:3, 2] = False
    ((outer, hole),) = mask_polygons(mask)
    assert {tuple(point) for point in outer.tolist()} == {(0, 0), (5, 0), (5, 4), (0, 4)}
    assert {tuple(point) for point in hole.tolist()} == {(2, 1), (3, 1), (3, 3), (2, 3)}
    assert mask_polygons(np.zeros((3, 3), dtype=np.bool_)) == []
