"""Loaders: which images come in which batch, one stream for any number of workers, errors that arrive as one line."""

from __future__ import annotations

import copy
import hashlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable

import numpy as np
import pytest
import torch

from detseg.config.schema.data import AffineConfig, AugmentationConfig, ColorConfig, ElasticConfig
from detseg.data.loading.examples import EvalDataset, TrainDataset, collate
from detseg.data.loading.loader import BatchLoader, TrainLoader, eval_loader, train_loader
from detseg.data.loading.sampling import EpochBatchSampler, SampleRequest
from detseg.errors import DataError
from detseg.ops.random_streams import Stream, random_stream
from detseg.structures import Batch
from tests.data.images.painted import LabeledSource, PaintedSource, letterboxed_labels

AFFINE = AffineConfig(probability=0.7, rotate_degrees=10, shear_degrees=5)
COLOR, ELASTIC = ColorConfig(probability=0.7), ElasticConfig(probability=0.5)
CONFIG = AugmentationConfig(crop=0.3, affine=AFFINE, color=COLOR, blur=0.3, mosaic=0.5, mixup=0.3, multi_scale=(0.5, 2))
SEMANTIC = CONFIG.model_copy(update={"mixup": 0.0, "scale_jitter": (0.5, 2.0), "elastic": ELASTIC})


def digest(batch: Batch) -> str:
    parts = [batch.images, *(x for t in batch.targets for x in (t.boxes, t.labels, t.ignore))]
    parts += [] if batch.semantic is None else [batch.semantic]
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts) + str(batch.indices).encode()).hexdigest()


def run_epochs(loader: BatchLoader, epochs: Iterable[int]) -> list[str]:
    batches = loader.batch_sampler
    assert isinstance(batches, EpochBatchSampler)
    digests = []
    for epoch in epochs:
        batches.set_epoch(epoch)
        digests += [digest(batch) for batch in loader]
    return digests


def error_of(loader: BatchLoader) -> BaseException:
    """The error of a loader, without the traceback, which would keep the loader and its workers alive."""
    try:
        list(loader)
    except Exception as error:
        return error.with_traceback(None)
    raise AssertionError("no error")


def make_loader(workers: int, source: PaintedSource | None = None, config: AugmentationConfig = CONFIG) -> TrainLoader:
    options = {"batch_size": 4, "num_workers": workers, "seed": 3, "max_epochs": 10}
    return train_loader(source or PaintedSource(40), config, input_hw=(64, 96), **options)


@pytest.mark.parametrize(("source", "config"), [(PaintedSource(40), CONFIG), (LabeledSource(40), SEMANTIC)])
def test_workers_see_the_new_epoch_and_resume_the_run(source: PaintedSource, config: AugmentationConfig) -> None:
    torch.ones(200, 200) @ torch.ones(200, 200)  # a parent with a thread pool, as in training
    expected = run_epochs(make_loader(0, source, config), (0, 1, 2))
    assert len(set(expected)) == 30
    loader = make_loader(2, source, config)
    assert run_epochs(loader, (0, 1, 2)) == expected
    assert run_epochs(loader, (1,)) == expected[10:20]
    assert run_epochs(make_loader(2, source, config), (2,)) == expected[20:]


def test_plain_requests_are_not_mixed() -> None:
    config = AugmentationConfig(mosaic=1.0, mixup=1.0)
    dataset = TrainDataset(PaintedSource(12), config, 0)
    for mix in (True, False):
        alone = [set(dataset[SampleRequest(0, i, 96, 96, mix)].item.labels.tolist()) <= {i} for i in range(12)]
        assert all(alone) != mix
    loader = make_loader(0, config=config.model_copy(update={"no_mosaic_last_epochs": 2}))
    assert isinstance(loader.batch_sampler, EpochBatchSampler)
    assert loader.batch_sampler.no_mosaic_from_epoch == 8


def test_images_that_do_not_make_a_batch() -> None:
    plain, labeled = EvalDataset(PaintedSource(3), (64, 96))[0], EvalDataset(LabeledSource(3), (64, 96))[0]
    for other, message in (
        (EvalDataset(PaintedSource(3), (64, 64))[0], "images of one size"),
        (labeled, "semantic: expected it in all images of a batch or in none, got 1 of 2"),
    ):
        with pytest.raises(ValueError, match=message):
            collate([plain, other])


def test_a_training_batch_keeps_the_contract() -> None:
    for batch in make_loader(0):
        assert isinstance(batch, Batch)  # BoxTargets and Batch check types and shapes themselves
        assert batch.images.is_contiguous()
        limit = torch.tensor(batch.images.shape[:1:-1])
        for boxes in (target.boxes for target in batch.targets):
            assert ((boxes[:, :2] >= 0) & (boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= limit)).all()
    for batch in make_loader(0, LabeledSource(24), SEMANTIC):
        assert isinstance(batch, Batch)
        assert batch.semantic is not None
        assert 10 < len(values := set(np.unique(batch.semantic.numpy()).tolist())) <= len(values & {*range(24), 255})


@pytest.mark.parametrize("source", [PaintedSource(10), LabeledSource(10)])
def test_evaluation_batches_lead_back_to_the_original_annotations(source: PaintedSource) -> None:
    seen = []
    for batch in eval_loader(source, input_hw=(64, 96), batch_size=4, num_workers=2):
        for row, index in enumerate(batch.indices):
            sample = source[index]
            letterbox, targets = batch.letterboxes[row], batch.targets[row]
            np.testing.assert_array_equal(batch.images[row].permute(1, 2, 0).numpy(), letterbox.apply(sample.image))
            np.testing.assert_allclose(letterbox.boxes_to_original(targets.boxes), sample.boxes, atol=1e-4)
            assert targets.labels.tolist() == sample.labels.tolist()
            assert targets.ignore.tolist() == sample.ignore.tolist()
            assert batch.image_ids[row] == 1000 + index
            np.testing.assert_array_equal(batch.annotations[row].boxes, sample.boxes)
            assert (batch.semantic is None) == (sample.semantic is None)
            if batch.semantic is not None and sample.semantic is not None:
                np.testing.assert_array_equal(batch.semantic_truths[row], sample.semantic)
                labels = letterboxed_labels(sample.semantic, letterbox)
                np.testing.assert_array_equal(batch.semantic[row].numpy(), labels)
            seen.append(index)
    assert seen == list(range(10))


@pytest.mark.parametrize(
    ("num_images", "num_workers", "batches"),
    [
        (9, 0, [[[0, 1], [2, 3], [4, 5], [6, 7], [8]]]),
        (9, 0, [[[0, 1], [4, 5], [8]], [[2, 3], [6, 7], []]]),
        (3, 1, [[[0, 1]], [[2]], [[]], [[]]]),
    ],
)
def test_processes_divide_evaluation_batches(num_images: int, num_workers: int, batches: list[list[list[int]]]) -> None:
    for rank, expected in enumerate(batches):
        options = {"batch_size": 2, "num_workers": num_workers, "rank": rank, "world_size": len(batches)}
        loader = eval_loader(PaintedSource(num_images), input_hw=(32, 64), **options)
        found = list(loader)
        assert [batch.indices for batch in found] == expected
        assert len(loader) == len(expected)
        if not expected[-1]:  # an empty batch is a batch
            assert (len(found[-1]), found[-1].image_ids, found[-1].annotations) == (0, [], [])
            assert found[-1].to("cpu").images.shape == (0, 3, 32, 64)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_data_error_arrives_as_its_one_line(num_workers: int) -> None:
    source = PaintedSource(12, broken=7)
    evaluation = eval_loader(source, input_hw=(32, 32), batch_size=4, num_workers=num_workers)
    for loader in (make_loader(num_workers, source), evaluation):
        error = error_of(loader)
        assert isinstance(error, DataError)
        assert str(error) == "7.jpg: the image cannot be read"
        assert any("painted.py" in note for note in error.__notes__)  # where it happened, for --debug


def test_the_loaders_travel_to_workers_that_are_not_forked() -> None:
    """Where processes are spawned (macOS, Windows), the data set goes to them by the way that deepcopy uses too."""
    dataset = TrainDataset(PaintedSource(4), CONFIG, 0)
    request = SampleRequest(0, 1, 64, 64, True)
    np.testing.assert_array_equal(copy.deepcopy(dataset)[request].item.image, dataset[request].item.image)


@pytest.mark.skipif(sys.platform != "linux", reason="only here does the system tell who sent a signal")
def test_workers_outlive_signals_to_the_group_and_end_by_that_of_their_parent() -> None:
    others = set(multiprocessing.active_children())
    loader = make_loader(1)  # kept, since its worker ends with it
    batches = iter(loader)
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - others
    for sent in (signal.SIGINT, signal.SIGTERM):  # of a terminal, or of SLURM: not from the training process
        subprocess.run(["kill", f"-{sent.value}", str(worker.pid)], check=True)
    assert len(list(batches)) == 9
    assert worker.is_alive()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGTERM)
    worker.join(20)
    assert worker.exitcode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="sockets have other limits elsewhere")
def test_a_long_name_of_the_temporary_folder_is_an_error_and_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/" + 80 * "x")
    with pytest.raises(DataError, match=r"longer name than the 75 bytes .* set TMPDIR to a shorter one"):
        make_loader(1, PaintedSource(4))


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
    # Of 3 and 5 images there are fewer than a global batch.
    [(8, 4, 1, [4, 4]), (9, 4, 1, [4, 4, 4]), (3, 4, 1, [3]), (3, 1, 1, [1] * 3), (17, 4, 2, [4] * 3), (5, 4, 2, [3])],
)
def test_the_last_batch_is_filled_up(num_samples: int, batch_size: int, world_size: int, lengths: list[int]) -> None:
    given = (num_samples, batch_size, 0, (64, 64))
    group = [EpochBatchSampler(*given, rank=rank, world_size=world_size) for rank in range(world_size)]
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="copies to a GPU, and there is none here")
def test_batches_that_are_copied_ahead_are_those_of_the_host() -> None:
    loader = make_loader(0)
    expected = run_epochs(loader, [0])
    loader.gpu = torch.device("cuda", 0)
    loader.batch_sampler.set_epoch(0)  # type: ignore[union-attr]  # ours
    batches = [batch for batch in loader if batch is not None]
    assert {tensor.device for batch in batches for tensor in batch.tensors()} == {loader.gpu}
    assert [digest(batch.to("cpu")) for batch in batches] == expected
