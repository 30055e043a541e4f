"""Loaders: one sample stream for any number of workers, and errors that arrive as one line."""

from __future__ import annotations

import copy
import hashlib
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
def test_workers_that_persist_see_the_new_epoch_and_a_resumed_run_is_the_run(
    source: PaintedSource, config: AugmentationConfig
) -> None:
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
def test_processes_divide_the_batches_of_an_evaluation_and_make_as_many_steps(
    num_images: int, num_workers: int, batches: list[list[list[int]]]
) -> None:
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


@pytest.mark.skipif(sys.platform != "linux", reason="sockets have other limits elsewhere")
def test_a_long_name_of_the_temporary_folder_is_an_error_and_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/" + 80 * "x")
    with pytest.raises(DataError, match=r"longer name than the 75 bytes .* set TMPDIR to a shorter one"):
        make_loader(1, PaintedSource(4))
