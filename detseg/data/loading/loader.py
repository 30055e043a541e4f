"""The loaders of training and evaluation batches.

B images of H × W pixels.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from detseg.config.schema.data import AugmentationConfig
from detseg.data.datasets.bad_samples import BadSampleList
from detseg.data.datasets.contract import EvalSource, SampleSource
from detseg.data.loading.collate import PackedBatch, collate
from detseg.data.loading.examples import EvalDataset, TrainDataset
from detseg.data.loading.sampling import EpochBatchSampler
from detseg.errors import DataError, DetsegError
from detseg.messages import one_line
from detseg.structures import Batch

PREFETCH = 4
"""Batches that each worker prepares ahead."""


class BatchLoader(DataLoader[Any]):
    """A DataLoader that yields `Batch`, and from whose workers a DataError arrives as the one line it is.

    torch re-raises what a worker raises with the worker's whole traceback as its message; so workers return the error
    as a value, and it is raised here.

    Attributes:
        bad_samples: where samples that were skipped are listed; None: none is.
    """

    bad_samples: BadSampleList | None = None

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch declares its own iterator class
        for packed in self._packed():
            if isinstance(packed, DataError):
                raise packed
            if self.bad_samples is not None:
                self.bad_samples.add(packed.skipped)
            yield packed.unpack()

    def _packed(self) -> Iterator[PackedBatch | DataError]:
        try:
            yield from super().__iter__()
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            raise DetsegError(
                f"a loader process has died: {one_line(error)}; if it was killed for want of memory, lower "
                "data.num_workers or data.batch_size, else --debug and data.num_workers=0 show where"
            ) from error


class TrainLoader(BatchLoader):
    """Yields None for each batch of the epoch that a resumed run had before: the count of batches goes on from there,
    and nothing is decoded."""

    def __iter__(self) -> Iterator[Batch | None]:  # type: ignore[override]  # torch declares its own iterator class
        yield from itertools.repeat(None, self.batch_sampler.num_done)  # type: ignore[union-attr]  # ours
        yield from super().__iter__()


class EvalLoader(BatchLoader):
    """Adds to each batch what its detections are scored against; this process has it at hand, so it does not travel.

    Semantic truths do travel: the worker has decoded them, and to read them again here would cost more.

    Args:
        source: the samples.
        input_hw: height and width of the network input, pixels.
        batches: positions in the data set of each batch's images.
        num_empty: batches without an image behind those, so that all processes make the same number of steps.
        options: of torch's DataLoader.
    """

    def __init__(
        self,
        source: EvalSource,
        input_hw: tuple[int, int],
        batches: Sequence[list[int]],
        num_empty: int,
        **options: Any,
    ) -> None:
        super().__init__(EvalDataset(source, input_hw), batch_sampler=batches, **options)
        self.source = source
        self.input_hw = input_hw
        self.num_empty = num_empty

    def __len__(self) -> int:
        return super().__len__() + self.num_empty

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch declares its own iterator class
        for batch in super().__iter__():
            yield replace(
                batch,
                image_ids=[self.source.image_id(index) for index in batch.indices],
                annotations=[self.source.annotations(index) for index in batch.indices],
            )
        yield from itertools.repeat(Batch(torch.zeros(0, 3, *self.input_hw, dtype=torch.uint8), [], []), self.num_empty)


def train_loader(
    source: SampleSource,
    config: AugmentationConfig,
    *,
    input_hw: tuple[int, int],
    batch_size: int,
    num_workers: int,
    seed: int,
    max_epochs: int,
    shuffle: bool = True,
    rank: int = 0,
    world_size: int = 1,
    bad_samples: BadSampleList | None = None,
) -> TrainLoader:
    """The loader of augmented training batches; call `loader.batch_sampler.set_epoch` before each epoch.

    Args:
        source: the samples.
        config: the augmentation.
        input_hw: height and width of the network input, pixels.
        batch_size: images of one batch and process.
        num_workers: loader processes; 0: this one.
        seed: of everything random.
        max_epochs: length of the training; mosaic and mixup are off in the last `config.no_mosaic_last_epochs` of it.
        shuffle: false: the order of the data set in every epoch.
        rank: number of this process.
        world_size: number of processes.
        bad_samples: where samples that cannot be read are listed, which others then take the place of; None: such a
            sample is an error.

    Returns:
        a loader of `Batch`; its `batch_sampler` is an `EpochBatchSampler`.

    Raises:
        DataError: fewer images than processes; while iterating: an image cannot be read, or too many cannot.
    """
    batches = EpochBatchSampler(
        len(source),
        batch_size,
        seed,
        input_hw,
        multi_scale=config.multi_scale,
        plain_from_epoch=max_epochs - config.no_mosaic_last_epochs,
        shuffle=shuffle,
        rank=rank,
        world_size=world_size,
    )
    dataset = TrainDataset(source, config, seed, skip_bad=bad_samples is not None)
    loader = TrainLoader(dataset, batch_sampler=batches, **_worker_options(num_workers))
    loader.bad_samples = bad_samples
    return loader


def eval_loader(
    source: EvalSource,
    *,
    input_hw: tuple[int, int],
    batch_size: int,
    num_workers: int,
    rank: int = 0,
    world_size: int = 1,
) -> BatchLoader:
    """The loader of letterboxed batches in the order of the data set.

    The batches are those of a single process, and process r sees batches r, r + world_size, ...: every image once, none
    twice to fill up, and each in the company that it would have there, since the last bits of what a network computes
    for an image may depend on the size of its batch.  Who has one batch less ends on an empty one: all make the same
    number of steps.

    Args:
        source: the samples.
        input_hw: height and width of the network input, pixels.
        batch_size: images of one batch and process.
        num_workers: loader processes; 0: this one.
        rank: number of this process.
        world_size: number of processes.

    Returns:
        a loader of `Batch`.

    Raises:
        DataError: while iterating, when an image cannot be read.
    """
    positions = list(range(len(source)))
    batches = [positions[start : start + batch_size] for start in range(0, len(source), batch_size)]
    own = batches[rank::world_size]
    num_empty = -(-len(batches) // world_size) - len(own)
    return EvalLoader(source, input_hw, own, num_empty, **_worker_options(num_workers))


def _worker_options(num_workers: int) -> dict[str, Any]:
    options: dict[str, Any] = {"collate_fn": collate, "pin_memory": torch.cuda.is_available()}
    if num_workers > 0:
        options |= {
            "num_workers": num_workers,
            "persistent_workers": True,
            "prefetch_factor": PREFETCH,
            "worker_init_fn": init_worker,
            # A forked worker shares the annotations and imports nothing again. Linux only: elsewhere the platform's own
            # choice. What hangs after a fork are thread pools, and `init_worker` leaves the workers none.
            "multiprocessing_context": "fork" if sys.platform == "linux" else None,
        }
    return options


def init_worker(worker_id: int) -> None:
    """One thread for each worker: they share the cores already, and thread pools do not survive a fork.

    Signals are the training's to answer.  Ctrl-C and many clusters send them to the workers as well, and a worker that
    died of one would take down the step that the training is about to finish.  The training itself ends a worker by
    SIGTERM.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_leave_when_the_parent_says, daemon=True).start()


def _leave_when_the_parent_says() -> None:
    """Answer SIGTERM in a worker, where it is blocked: whose it is can be told only by waiting for it."""
    if sys.platform == "linux":
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)
