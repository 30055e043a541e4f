"""Splits: sizes, proportions of classes against a random split, groups, seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.data.splits import image_groups, part_sizes, pattern_groups, stratified_parts
from detseg.errors import ConfigError


def test_rare_classes_are_in_every_part() -> None:
    counts = np.zeros((1000, 4), dtype=np.int64)
    counts[:, 0] = 3
    counts[::10, 1] = 1  # 100 images
    counts[5::100, 2] = 7  # 10 images
    counts[7::200, 3] = 1  # 5 images
    parts = stratified_parts(counts, (0.6, 0.2, 0.2), np.arange(1000), seed=0)
    shown = counts > 0
    assert [[int(shown[parts == part, k].sum()) for k in range(4)] for part in range(3)] == [
        [600, 60, 6, 3],
        [200, 20, 2, 1],
        [200, 20, 2, 1],
    ]
    assert np.array_equal(parts, stratified_parts(counts, (0.6, 0.2, 0.2), np.arange(1000), seed=0))
    assert not np.array_equal(parts, stratified_parts(counts, (0.6, 0.2, 0.2), np.arange(1000), seed=1))


def test_images_without_objects_are_divided_too() -> None:
    counts = np.zeros((40, 1), dtype=np.int64)
    counts[:20] = 1
    parts = stratified_parts(counts, (0.75, 0.25), np.arange(40), seed=3)
    assert [int((parts[:20] == 1).sum()), int((parts[20:] == 1).sum())] == [5, 5]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_groups_stay_whole_and_sizes_are_near(data: st.DataObject) -> None:
    number = data.draw(st.integers(1, 60))
    groups = np.array(data.draw(st.lists(st.integers(0, 12), min_size=number, max_size=number)))
    counts = np.array(
        data.draw(st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=number, max_size=number))
    )
    fractions = data.draw(st.sampled_from([(0.8, 0.2), (0.7, 0.2, 0.1), (0.2,) * 5]))
    parts = stratified_parts(counts, fractions, groups, seed=data.draw(st.integers(0, 9)))
    assert all(len(set(parts[groups == group])) == 1 for group in set(groups.tolist()))
    largest = max(np.bincount(groups))
    sizes = np.bincount(parts, minlength=len(fractions))
    assert np.abs(sizes - part_sizes(number, fractions)).max() <= largest * (len(fractions) - 1)
    alone = stratified_parts(counts, fractions, np.arange(number), seed=0)
    assert np.bincount(alone, minlength=len(fractions)).tolist() == part_sizes(number, fractions).tolist()


def test_sizes() -> None:
    assert part_sizes(364, (0.8, 0.2)).tolist() == [291, 73]
    assert part_sizes(10, (0.2,) * 5).tolist() == [2] * 5
    assert part_sizes(3, (0.98, 0.01, 0.01)).tolist() == [1, 1, 1]
    assert part_sizes(1, (0.9, 0.1)).tolist() == [1, 0]


def test_a_pattern_names_groups() -> None:
    paths = ["a/p1_01.jpg", "a/p1_02.jpg", "b/p2_01.jpg", "other.jpg", "else.jpg"]
    for pattern in (r"(p\d+)_", r"^\w/"):
        groups, alone = pattern_groups(paths, pattern, "x")
        assert (groups.tolist(), alone) == ([0, 0, 2, 3, 4], 2)
    assert (
        image_groups([Path(path) for path in paths], "p1", "x")[1]
        == ", 4 groups by 'p1' (3 images without a match, each alone)"
    )
    with pytest.raises(
        ConfigError, match=r"^--group: expected near-duplicates, none or a regular expression, got '\('"
    ):
        pattern_groups(paths, "(", "--group")
