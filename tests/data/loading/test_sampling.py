"""Which images come in which batch: by epoch, by process, by size."""

from __future__ import annotations

import itertools

import pytest

from detseg.data.loading.sampling import EpochBatchSampler, SampleRequest
from detseg.ops.random_streams import Stream, random_stream


def epoch_of(sampler: EpochBatchSampler, epoch: int) -> list[list[SampleRequest]]:
    sampler.set_epoch(epoch)
    return list(sampler)


def indices(batches: list[list[SampleRequest]]) -> list[list[int]]:
    return [[request.index for request in batch] for batch in batches]


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own() -> None:
    sampler = EpochBatchSampler(35, 5, 0, (64, 64))
    first, second = (list(itertools.chain(*indices(epoch_of(sampler, epoch)))) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(35))
    assert first != second
    assert indices(epoch_of(sampler, 0)) == [first[i : i + 5] for i in range(0, 35, 5)]
    other_seed = EpochBatchSampler(35, 5, 1, (64, 64))
    assert list(itertools.chain(*indices(epoch_of(other_seed, 0)))) != first


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "world_size", "lengths"),
    [
        (8, 4, 1, [4, 4]),
        (9, 4, 1, [4, 4, 4]),
        (3, 4, 1, [3]),  # fewer than a global batch
        (3, 1, 1, [1, 1, 1]),
        (17, 4, 2, [4, 4, 4]),
        (5, 4, 2, [3]),
    ],
)
def test_batches_are_whole_and_the_last_is_filled_up_from_the_beginning_of_the_epoch(
    num_samples: int, batch_size: int, world_size: int, lengths: list[int]
) -> None:
    group = [
        EpochBatchSampler(num_samples, batch_size, 0, (64, 64), rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    parts = [indices(epoch_of(sampler, 2)) for sampler in group]
    assert [len(batch) for batch in parts[0]] == lengths
    assert len(group[0]) == len(lengths)
    order = [index for batches in zip(*parts, strict=True) for batch in batches for index in batch]
    assert sorted(order[:num_samples]) == list(range(num_samples))
    assert order[num_samples:] == order[: len(order) - num_samples]


def test_a_resumed_run_gets_what_is_left_of_its_epoch() -> None:
    whole, resumed = (EpochBatchSampler(10, 2, 0, (64, 64), multi_scale=(0.5, 2.0)) for _ in range(2))
    resumed.begin_at(epoch=3, num_batches=2)
    assert len(resumed) == 5
    for epoch, done in ((2, 0), (3, 2), (4, 0), (3, 2)):
        assert epoch_of(resumed, epoch) == epoch_of(whole, epoch)[done:]
        assert resumed.num_done == done
    resumed.begin_at(epoch=3, num_batches=5)
    assert epoch_of(resumed, 3) == []


def test_fewer_images_than_processes() -> None:
    with pytest.raises(ValueError, match="each of 4 processes, got 3"):
        EpochBatchSampler(3, 2, 0, (64, 64), world_size=4)


def test_sizes_of_batches() -> None:
    sampler = EpochBatchSampler(400, 2, 0, (320, 640), multi_scale=(0.5, 1.5))
    sizes = [{(request.height, request.width) for request in batch} for batch in epoch_of(sampler, 0)]
    assert {len(of_batch) for of_batch in sizes} == {1}
    heights, widths = zip(*set().union(*sizes), strict=True)
    assert set(heights) == set(range(160, 481, 32))
    assert min(widths) >= 320
    assert max(widths) <= 960
    assert all(width % 32 == 0 and abs(width - 2 * height) <= 32 for height, width in zip(heights, widths, strict=True))
    assert sizes != [{(request.height, request.width) for request in batch} for batch in epoch_of(sampler, 1)]
    tiny = EpochBatchSampler(4, 2, 0, (32, 32), multi_scale=(0.1, 0.2))
    assert {(r.height, r.width) for batch in tiny for r in batch} == {(32, 32)}


def test_plain_epochs_at_the_end_and_the_order_of_the_data_set() -> None:
    sampler = EpochBatchSampler(6, 4, 0, (64, 96), no_mosaic_from_epoch=3, shuffle=False)
    for epoch, mix in ((2, True), (3, False)):
        expected = [[SampleRequest(epoch, k, 64, 96, mix) for k in batch] for batch in ([0, 1, 2, 3], [4, 5, 0, 1])]
        assert epoch_of(sampler, epoch) == expected


def test_the_epoch_is_fixed_when_iteration_begins() -> None:
    sampler = EpochBatchSampler(8, 4, 0, (64, 64))
    running = iter(sampler)
    sampler.set_epoch(1)
    assert {request.epoch for batch in running for request in batch} == {0}
    assert sampler.sampler is sampler  # where Lightning looks for set_epoch


def test_streams_do_not_repeat_each_other() -> None:
    keys = itertools.product(Stream, (0, 1, 2**40), range(3), range(3))
    draws = [random_stream(stream, seed, epoch, index).integers(2**62) for stream, seed, epoch, index in keys]
    assert len(set(draws)) == len(draws)
