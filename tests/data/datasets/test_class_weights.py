"""Median frequency balancing, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from detseg.data.datasets.segmentation import SegmentationDataset, median_frequency_weights
from detseg.data.formats.voc import read_voc_masks
from detseg.errors import DataError
from tests.data.formats.mask_layouts import Rows, write_voc_masks


def maps(root: Path, names: str, **masks: Rows) -> SegmentationDataset:
    return read_voc_masks(write_voc_masks(root, masks), "train", classes=tuple(names))


def test_weights_by_hand(tmp_path: Path) -> None:
    dataset = maps(tmp_path, "xyzw", a=[[0, 0, 0, 1, 255]], b=[[0, 0, 2, 2, 2]], c=[[255, 255, 0, 0, 0]])
    # Pixels 8, 1, 3 and 0 of the 12, 4 and 5 that are not ignored in the images that show the class; the median of
    # the frequencies 8/12, 1/4 and 3/5 is 3/5; w never occurs.
    assert median_frequency_weights(dataset) == pytest.approx((0.9, 2.4, 1.0, 0.0))


def test_an_even_number_of_classes_has_the_mean_of_the_middle_two(tmp_path: Path) -> None:
    # Frequencies 1/10, 2/10, 3/10, 4/10; their median is 1/4.
    dataset = maps(tmp_path, "abcd", a=[[0, 1, 1, 2, 2, 2, 3, 3, 3, 3]])
    assert median_frequency_weights(dataset) == pytest.approx((2.5, 1.25, 5 / 6, 0.625))


def test_masks_without_labels_or_that_cannot_be_read(tmp_path: Path) -> None:
    dataset = maps(tmp_path, "ab", a=[[0, 1]], b=[[255, 255]])
    with pytest.raises(DataError, match="all pixels of the training masks are ignored"):
        median_frequency_weights(dataset.subset([1]))
    (tmp_path / "SegmentationClass" / "b.png").write_bytes(b"no mask")
    with pytest.raises(DataError, match=r"b\.png"):
        median_frequency_weights(dataset)
    assert median_frequency_weights(dataset, skip_bad=True) == (1.0, 1.0)
