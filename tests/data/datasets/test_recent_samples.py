"""What is kept of decoded samples changes the time alone; mosaics draw on images that were dealt together."""

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
    source = PaintedSource(6)
    recent = SampleCache(source)
    for index in (0, 1, 0, 1, 2, 0):
        np.testing.assert_array_equal(recent(index, HW).image, source[index].image)
    assert recent.num_reads == 3


def test_those_asked_for_longest_ago_make_room() -> None:
    source = PaintedSource(4)
    sizes = [source[index].image.nbytes for index in range(4)]
    recent = SampleCache(source, max_bytes=sizes[0] + max(sizes[1:]))
    for index in (0, 1, 0, 2):
        recent(index, HW)
    assert recent.num_reads == 3
    recent(0, HW)
    assert recent.num_reads == 3
    recent(1, HW)
    assert recent.num_reads == 4
    nothing = SampleCache(source, max_bytes=0)
    assert nothing(0, HW).index == nothing(0, HW).index == 0
    assert nothing.num_reads == 2


def test_errors_are_raised_each_time_and_other_processes_begin_with_nothing() -> None:
    recent = SampleCache(PaintedSource(3, broken=1))
    recent(0, HW)
    for _ in range(2):
        with pytest.raises(DataError, match=r"1\.jpg"):
            recent(1, HW)
    sent = copy.deepcopy(recent)  # goes the way of pickle
    assert sent.num_reads == 0
    sent(0, HW)
    assert sent.num_reads == 1


def test_companies_are_images_dealt_in_a_row() -> None:
    num = 3 * GROUP_SIZE + 5
    companies = MixGroups(7, num)
    for epoch in (0, 1):
        order = epoch_order(7, epoch, num)
        for place in (0, GROUP_SIZE - 1, GROUP_SIZE, 2 * GROUP_SIZE + 3):
            first = place // GROUP_SIZE * GROUP_SIZE
            np.testing.assert_array_equal(companies.of(epoch, int(order[place])), order[first : first + GROUP_SIZE])
        np.testing.assert_array_equal(companies.of(epoch, int(order[-1])), order[-GROUP_SIZE:])
    assert sorted(MixGroups(0, 5).of(0, 3).tolist()) == list(range(5))
    assert MixGroups(0, 1).of(4, 0).tolist() == [0]


@pytest.mark.parametrize("num", [4, GROUP_SIZE + 1, 3 * GROUP_SIZE])
def test_no_image_is_in_a_mosaic_twice(num: int) -> None:
    dataset = TrainDataset(PaintedSource(num), AugmentationConfig(mosaic=1.0), 0)
    rng = np.random.default_rng(0)
    for index in range(num):
        partners = dataset._partners(3, SampleRequest(0, index, *HW, mix=True), rng)
        assert len({index, *partners}) == 4
    few = TrainDataset(PaintedSource(2), AugmentationConfig(mosaic=1.0), 0)
    assert set(few._partners(3, SampleRequest(0, 0, *HW, mix=True), rng)) <= {0, 1}


def test_an_epoch_of_mosaics_decodes_each_image_once() -> None:
    num = 2 * GROUP_SIZE
    dataset = TrainDataset(PaintedSource(num), AugmentationConfig(mosaic=1.0, mixup=0.5), 0)
    seen = set()
    for batch in EpochBatchSampler(num, 8, 0, HW):
        for request in batch:
            seen |= set(dataset[request].labels.tolist()) - {request.index}
    assert dataset.recent.num_reads == num
    assert len(seen) > num / 2  # two thirds have objects; they come in each other's pictures


def test_without_mosaic_nothing_is_kept() -> None:
    dataset = TrainDataset(PaintedSource(4), AugmentationConfig(), 0)
    for request in next(iter(EpochBatchSampler(4, 4, 0, HW))):
        dataset[request]
    assert dataset.recent.num_reads == 0
