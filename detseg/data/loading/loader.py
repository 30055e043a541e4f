"""The loaders of training and evaluation batches."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import DataLoader

from detseg.config.schema.data import AugmentationConfig
from detseg.data.datasets.bad_samples import BadSampleList
from detseg.data.datasets.contract import EvalSource, SampleSource
from detseg.data.loading.copying import copied_ahead
from detseg.data.loading.examples import EvalDataset, PackedBatch, TrainDataset, collate
from detseg.data.loading.processes import LoaderProcesses, init_worker, look_at_shared_memory
from detseg.data.loading.sampling import EpochBatchSampler
from detseg.errors import DataError
from detseg.structures import Batch

TIMEOUT = 300.0
"""Seconds to wait for a batch, if nothing else is said."""

_AHEAD = 4  # batches that each loader process prepares


class BatchLoader(DataLoader[Any]):
    """A DataLoader of ``Batch`` that raises a DataError of a worker as the one line it is: workers return it as a
    value, since torch would raise it with the worker's traceback as its message."""

    bad_samples: BadSampleList | None = None  # where skipped samples are listed; None: bad samples are errors
    num_objects: int = 0  # in the batches so far
    num_dropped: int = 0  # objects that the user's own augmentation has removed from them

    def __init__(self, *args: Any, timeout: float = TIMEOUT, **options: Any) -> None:
        super().__init__(*args, **options)  # without torch's time-out: that of the processes covers more
        self.processes = LoaderProcesses(timeout if self.num_workers else math.inf)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch declares its own iterator class
        packed: PackedBatch | DataError
        for packed in self.processes.batches(super().__iter__):
            if isinstance(packed, DataError):
                try:
                    raise packed
                finally:
                    del packed  # its traceback refers to this frame: a cycle would keep the workers alive
            if self.bad_samples is not None:
                self.bad_samples.add(packed.skipped)
            self.num_objects += len(packed.labels)
            self.num_dropped += packed.num_dropped
            yield packed.unpack()


class TrainLoader(BatchLoader):
    """First yields None for each batch of the epoch that a resumed run has trained on already."""

    gpu: torch.device | None = None  # where batches are copied ahead; None: they stay on the host

    def __iter__(self) -> Iterator[Batch | None]:  # type: ignore[override]  # torch declares its own iterator class
        yield from itertools.repeat(None, self.batch_sampler.num_done)  # type: ignore[union-attr]  # ours
        batches = super().__iter__()
        yield from batches if self.gpu is None else copied_ahead(batches, self.gpu)

    def lines(self) -> list[str]:
        """What the end of a run says of objects that the user's own augmentation removed."""
        total = self.num_objects + self.num_dropped
        removed = f"removed {self.num_dropped} of {total} objects ({self.num_dropped / max(total, 1):.2%})"
        line = f"data.augmentation.albumentations: the pipeline {removed} from the training images of this process"
        return [line] if self.num_dropped else []


class EvalLoader(BatchLoader):
    """Adds ids and annotations, which need not travel from the workers; then come ``num_empty`` batches without an
    image, so that all processes make the same number of steps."""

    dataset: EvalDataset
    num_empty: int = 0

    def __len__(self) -> int:
        return super().__len__() + self.num_empty

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch declares its own iterator class
        source, (height, width) = self.dataset.source, self.dataset.input_hw
        for batch in super().__iter__():
            image_ids = [source.image_id(index) for index in batch.indices]
            yield replace(batch, image_ids=image_ids, annotations=[source.annotations(i) for i in batch.indices])
        yield from itertools.repeat(Batch(torch.zeros(0, 3, height, width, dtype=torch.uint8), [], []), self.num_empty)


def train_loader(
    source: SampleSource,
    config: AugmentationConfig,
    *,
    input_hw: tuple[int, int],
    batch_size: int,
    num_workers: int,
    timeout: float = TIMEOUT,
    seed: int,
    max_epochs: int,
    shuffle: bool = True,
    rank: int = 0,
    world_size: int = 1,
    bad_samples: BadSampleList | None = None,
    albumentations: Any = None,
) -> TrainLoader:
    """The loader of augmented training batches; call ``loader.batch_sampler.set_epoch`` before each epoch.

    Args:
        source, config, albumentations: as in ``TrainDataset``; the others that are not here: ``EpochBatchSampler``.
        num_workers: loader processes; 0: samples are loaded in this process.
        timeout: seconds to wait for a batch of theirs, beyond which there is a DetsegError.
        max_epochs: of the training; mosaic, mixup and copy-paste are off in the last ``config.no_mosaic_last_epochs``.
        bad_samples: lists samples that cannot be read, which others replace; None: such a sample is an error.

    Raises:
        DataError: there are fewer images than processes; or, while iterating, an image cannot be read, or too many.
    """
    options: dict[str, Any] = {"shuffle": shuffle, "rank": rank, "world_size": world_size}
    options |= {"multi_scale": config.multi_scale, "no_mosaic_from_epoch": config.mosaic_epochs(max_epochs)}
    batches = EpochBatchSampler(len(source), batch_size, seed, input_hw, **options)
    dataset = TrainDataset(source, config, seed, bad_samples is not None, albumentations)
    scale = max(config.multi_scale or (1.0,))
    pixels = round(scale**2 * input_hw[0] * input_hw[1] * batch_size * world_size)
    loader = TrainLoader(dataset, batch_sampler=batches, **_loader_options(num_workers, timeout, pixels))
    loader.bad_samples = bad_samples
    return loader


def eval_loader(
    source: EvalSource,
    *,
    input_hw: tuple[int, int],
    batch_size: int,
    num_workers: int,
    timeout: float = TIMEOUT,
    rank: int = 0,
    world_size: int = 1,
) -> BatchLoader:
    """The loader of letterboxed batches in the order of the data set; arguments and errors as in ``train_loader``.

    The batches are those of a single process, since the last bits of a prediction may depend on the size of its batch;
    process r gets the batches r, r + world_size, .... A process with one batch less ends on an empty one.
    """
    positions = range(len(source))
    batches = [list(positions[start : start + batch_size]) for start in positions[::batch_size]]
    own = batches[rank::world_size]
    pixels = input_hw[0] * input_hw[1] * batch_size * world_size
    loader = EvalLoader(
        EvalDataset(source, input_hw), batch_sampler=own, **_loader_options(num_workers, timeout, pixels)
    )
    loader.num_empty = -(-len(batches) // world_size) - len(own)
    return loader


# Bytes of its name: a worker that cannot open its socket there loses each batch, and the training waits for ever.
_LONGEST_TEMPORARY = 107 - len("/pymp-12345678/listener-12345678")


def _loader_options(num_workers: int, timeout: float, pixels: int) -> dict[str, Any]:
    """``pixels``: of a batch, at most; of those of all processes of the training."""
    options: dict[str, Any] = {"collate_fn": collate, "pin_memory": torch.cuda.is_available()}
    if num_workers == 0:
        return options
    # Three bytes a pixel of an image, and one of a label map, which a data set shows only with its first sample.
    look_at_shared_memory(4 * pixels * (num_workers * _AHEAD + 1))
    if sys.platform == "linux" and len(os.fsencode(folder := tempfile.gettempdir())) > _LONGEST_TEMPORARY:
        raise DataError(
            f"the folder for temporary files, {folder}, has a longer name than the {_LONGEST_TEMPORARY} bytes that "
            f"sockets between loader processes allow; set TMPDIR to a shorter one, or data.num_workers=0"
        )
    # A forked worker shares the annotations and imports nothing again; macOS and Windows cannot fork safely. On Linux
    # "spawn" is nobody's default: the user has asked for it.
    spawns = sys.platform != "linux" or multiprocessing.get_start_method(allow_none=True) == "spawn"
    context = None if spawns else "fork"
    options |= {"num_workers": num_workers, "worker_init_fn": init_worker, "multiprocessing_context": context}
    return options | {"persistent_workers": True, "prefetch_factor": _AHEAD, "timeout": timeout}
