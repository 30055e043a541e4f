"""The cache of decoded samples does not change them; mosaics combine the images of a mix group."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from detseg.config.schema.data import AugmentationConfig
from detseg.data.datasets.sample_cache import SampleCache
from detseg.data.loading.examples import TrainDataset
from detseg.data.loading.sampling import GROUP_SIZE, EpochBatchSampler, MixGroups, SampleRequest, epoch_order
from detseg.errors import DataError
from tests.data.images.painted import PaintedSource

HW = (64, 64)


def test_samples_are_read_once_while_they_are_kept() -> None:
    source = PaintedSource(4)
    sizes = [source[index].image.nbytes for index in range(4)]
    cache = SampleCache(source, max_bytes=sizes[0] + max(sizes[1:]))
    for index, num_reads in ((0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4)):  # 2 takes the place of 1, not of 0
        np.testing.assert_array_equal(cache(index, HW).image, source[index].image)
        assert cache.num_reads == num_reads
    nothing = SampleCache(source, max_bytes=0)
    assert nothing(0, HW).index == nothing(0, HW).index == 0
    assert nothing.num_reads == 2


def test_errors_are_not_kept_and_other_processes_begin_with_an_empty_cache() -> None:
    cache = SampleCache(PaintedSource(3, broken=1))
    cache(0, HW)
    for _ in range(2):
        with pytest.raises(DataError, match=r"1\.jpg"):
            cache(1, HW)
    sent = copy.deepcopy(cache)  # by the same way as pickle
    assert sent.num_reads == 0
    sent(0, HW)
    assert sent.num_reads == 1


def test_mix_groups_are_neighbours_in_the_order_of_the_epoch() -> None:
    num = 3 * GROUP_SIZE + 5
    groups = MixGroups(7, num)
    for epoch in (0, 1):
        order = epoch_order(7, epoch, num)
        for place in (0, GROUP_SIZE - 1, GROUP_SIZE, 2 * GROUP_SIZE + 3):
            first = place // GROUP_SIZE * GROUP_SIZE
            np.testing.assert_array_equal(groups.of(epoch, int(order[place])), order[first : first + GROUP_SIZE])
        np.testing.assert_array_equal(groups.of(epoch, int(order[-1])), order[-GROUP_SIZE:])
    assert sorted(MixGroups(0, 5).of(0, 3).tolist()) == list(range(5))
    assert MixGroups(0, 1).of(4, 0).tolist() == [0]


def test_an_epoch_of_mosaics_decodes_each_image_once() -> None:
    num = 2 * GROUP_SIZE
    dataset = TrainDataset(PaintedSource(num), AugmentationConfig(mosaic=1.0, mixup=0.5), 0)
    seen = set()
    for batch in EpochBatchSampler(num, 8, 0, HW):
        for request in batch:
            seen |= set(dataset[request].item.labels.tolist()) - {request.index}
    assert dataset.recent.num_reads == num
    assert len(seen) > num / 2  # two thirds have objects, which are seen in mosaics of other images
    without_mosaic = TrainDataset(PaintedSource(4), AugmentationConfig(), 0)
    without_mosaic[SampleRequest(0, 0, *HW, mix=True)]
    assert without_mosaic.recent.num_reads == 0


@pytest.mark.parametrize("num", [2, 4, GROUP_SIZE + 1])
def test_no_image_is_in_a_mosaic_twice_where_there_are_enough(num: int) -> None:
    """Objects of a painted image have its index as label, and there are four of them at most."""
    dataset = TrainDataset(PaintedSource(num), AugmentationConfig(mosaic=1.0), 0)
    most = [
        np.bincount(dataset[SampleRequest(epoch, 0, *HW, mix=True)].item.labels).max(initial=0) for epoch in range(30)
    ]
    assert max(most) > 4 if num == 2 else 2 <= max(most) <= 4
