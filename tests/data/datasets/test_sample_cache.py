"""The cache of decoded samples does not change them; mosaics combine the images of a mix group."""

from __future__ import annotations

import copy
from typing import ClassVar

import numpy as np
import pytest

from detseg.config.schema.data import AugmentationConfig
from detseg.data.augment.mosaic import GROUP_SIZE, MixPartners
from detseg.data.datasets.contract import SampleCache
from detseg.data.loading.examples import TrainDataset
from detseg.data.loading.sampling import EpochBatchSampler, SampleRequest
from detseg.errors import DataError
from detseg.ops.random_streams import epoch_order
from detseg.structures import Sample
from tests.data.images.painted import PaintedSource

HW = (64, 64)


class Counted(PaintedSource):
    """Lists the samples that are read, by copies too."""

    reads: ClassVar[list[int]] = []

    def __getitem__(self, index: int) -> Sample:
        self.reads.append(index)
        return super().__getitem__(index)


def test_samples_are_read_once_while_they_are_kept_and_errors_are_not() -> None:
    Counted.reads.clear()
    source = PaintedSource(4)
    sizes = [source[index].image.nbytes for index in range(3)]
    cache = SampleCache(Counted(4, broken=3), max_bytes=sizes[0] + max(sizes[1:]))
    for index in (0, 1, 0, 2, 0, 1):  # 2 takes the place of 1, not of 0
        np.testing.assert_array_equal(cache(index, HW).image, source[index].image)
    assert Counted.reads == [0, 1, 2, 1]
    for _ in range(2):
        with pytest.raises(DataError, match=r"3\.jpg"):
            cache(3, HW)
    copy.deepcopy(cache)(1, HW)  # by the same way as pickle, which sends an empty cache
    nothing = SampleCache(Counted(4), max_bytes=0)
    assert nothing(0, HW).index == nothing(0, HW).index == 0
    assert Counted.reads[4:] == [3, 3, 1, 0, 0]


def test_mix_groups_are_neighbours_in_the_order_of_the_epoch() -> None:
    num = 3 * GROUP_SIZE + 5
    groups = MixPartners(7, num)
    for epoch in (0, 1):
        order = epoch_order(7, epoch, num)
        for place in (0, GROUP_SIZE - 1, GROUP_SIZE, 2 * GROUP_SIZE + 3):
            first = place // GROUP_SIZE * GROUP_SIZE
            np.testing.assert_array_equal(groups.group(epoch, int(order[place])), order[first : first + GROUP_SIZE])
        np.testing.assert_array_equal(groups.group(epoch, int(order[-1])), order[-GROUP_SIZE:])
    assert sorted(MixPartners(0, 5).group(0, 3).tolist()) == list(range(5))
    assert MixPartners(0, 1).group(4, 0).tolist() == [0]


def test_an_epoch_of_mosaics_decodes_each_image_once() -> None:
    num = 2 * GROUP_SIZE
    Counted.reads.clear()
    dataset = TrainDataset(Counted(num), AugmentationConfig(mosaic=1.0, mixup=0.5), 0)
    seen = set()
    for batch in EpochBatchSampler(num, 8, 0, HW):
        for request in batch:
            seen |= set(dataset[request].item.labels.tolist()) - {request.index}
    assert sorted(Counted.reads) == list(range(num))
    assert len(seen) > num / 2  # two thirds have objects, which are seen in mosaics of other images


@pytest.mark.parametrize("num", [2, 4, GROUP_SIZE + 1])
def test_no_image_is_in_a_mosaic_twice_where_there_are_enough(num: int) -> None:
    """Objects of a painted image have its index as label, and there are four of them at most."""
    dataset = TrainDataset(PaintedSource(num), AugmentationConfig(mosaic=1.0), 0)
    requests = [SampleRequest(epoch, 0, *HW, mix=True) for epoch in range(30)]
    most = [np.bincount(dataset[request].item.labels).max(initial=0) for request in requests]
    assert max(most) > 4 if num == 2 else 2 <= max(most) <= 4
