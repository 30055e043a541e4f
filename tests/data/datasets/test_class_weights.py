"""Median frequency balancing, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detseg.data.datasets.class_weights import class_pixel_counts, median_frequency_weights
from detseg.data.formats.voc import read_voc_masks
from detseg.errors import DataError
from detseg.structures import ClassTable, UInt8Array
from tests.data.formats.mask_layouts import write_voc_masks
from tests.shared_data import shared_data

MASKS = {"a": [[0, 0, 0, 1, 255]], "b": [[0, 0, 2, 2, 2]], "c": [[255, 255, 0, 0, 0]]}


class Maps:
    """Label maps without files."""

    def __init__(self, names: str, *rows: list[int]) -> None:
        self.classes = ClassTable(tuple(names))
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def semantic(self, index: int) -> UInt8Array:
        """One row of pixels."""
        return np.array([self.rows[index]], dtype=np.uint8)


def test_pixels_of_each_class_and_of_the_images_that_show_it(tmp_path: Path) -> None:
    dataset = read_voc_masks(write_voc_masks(tmp_path, MASKS), "train", classes=("x", "y", "z", "w"))
    counts, present = class_pixel_counts(dataset)
    assert counts.tolist() == [8, 1, 3, 0]
    assert present.tolist() == [12, 4, 5, 0]  # 4 + 5 + 3 that count, those of a, those of b, none
    assert counts.dtype == present.dtype == np.int64


def test_weights(tmp_path: Path) -> None:
    dataset = read_voc_masks(write_voc_masks(tmp_path, MASKS), "train", classes=("x", "y", "z", "w"))
    # Frequencies 8/12, 1/4, 3/5; their median is 3/5; w never occurs.
    assert median_frequency_weights(dataset) == pytest.approx((0.9, 2.4, 1.0, 0.0))


def test_an_even_number_of_classes_has_the_mean_of_the_middle_two() -> None:
    # Frequencies 1/10, 2/10, 3/10, 4/10; their median is 1/4.
    maps = Maps("abcd", [0, 1, 1, 2, 2, 2, 3, 3, 3, 3])
    assert median_frequency_weights(maps) == pytest.approx((2.5, 1.25, 5 / 6, 0.625))


def test_no_pixel_counts() -> None:
    with pytest.raises(DataError, match="no pixel of the training masks counts"):
        median_frequency_weights(Maps("ab", [255, 255]))


def test_rare_classes_of_real_streets_weigh_more() -> None:
    weights = median_frequency_weights(read_voc_masks(shared_data("camvid_small"), "val"))
    assert len(weights) == 11
    assert np.median([1 / weight for weight in weights]) == pytest.approx(1)
    assert weights[2] > weights[8] > weights[3]  # poles are rarer than cars, cars than road
