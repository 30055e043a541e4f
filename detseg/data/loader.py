"""The loaders of training and evaluation batches.

B images of H × W pixels.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from detseg.config.data import AugmentationConfig
from detseg.data.examples import EvalDataset, Example, TrainDataset
from detseg.data.geometry import BoxArray
from detseg.data.packed_masks import PackedMasks, pack_masks
from detseg.data.sampling import EpochBatchSampler
from detseg.data.source import EvalSource, SampleSource
from detseg.errors import DataError
from detseg.ops.letterbox import Letterbox
from detseg.structures import Batch, BoolArray, BoxTargets, IntArray, UInt8Array

PREFETCH = 4
"""Batches that each worker prepares ahead."""


@dataclass(frozen=True)
class PackedBatch:
    """A batch on its way from a worker, with the targets of all images in a few arrays.

    torch passes every tensor between processes through a shared memory file of its own; with the targets of each
    image apart that takes 1.4 ms an image instead of 0.4, and large batches run out of open files.

    Attributes:
        images: (B, 3, H, W) uint8.
        boxes, labels, ignore: the targets of all images in a row.
        counts: number of objects of each image.
        indices, letterboxes, semantic: as in `Batch`.
        truths: the label maps at original size of an evaluation batch; empty in training and in detection.
        masks: those of all images in a row; None where only boxes are learnt.
    """

    images: Tensor
    boxes: BoxArray
    labels: IntArray
    ignore: BoolArray
    counts: list[int]
    indices: list[int]
    letterboxes: list[Letterbox]
    semantic: Tensor | None
    truths: list[UInt8Array]
    masks: PackedMasks | None = None

    def pin_memory(self) -> PackedBatch:
        """The same with its images in page-locked memory (called by the loader's pinning thread)."""
        semantic = None if self.semantic is None else self.semantic.pin_memory()
        return replace(self, images=self.images.pin_memory(), semantic=semantic)

    def unpack(self) -> Batch:
        """The batch that tasks consume."""
        borders = np.cumsum(self.counts)[:-1]
        columns = [np.split(column, borders) for column in (self.boxes, self.labels, self.ignore)]
        targets = [BoxTargets(*(torch.from_numpy(rows) for rows in image)) for image in zip(*columns, strict=True)]
        if self.masks is not None:
            height, width = self.images.shape[2:]
            dense = self.masks.dense((height, width), self.counts)
            targets = [
                replace(target, masks=torch.from_numpy(masks)) for target, masks in zip(targets, dense, strict=True)
            ]
        return Batch(
            self.images,
            targets,
            self.indices,
            self.letterboxes,
            semantic=self.semantic,
            semantic_truths=self.truths,
        )


def collate(examples: list[Example] | DataError) -> PackedBatch | DataError:
    """Stack the examples of one batch, all of one size; an error is handed on.

    Args:
        examples: B examples.

    Returns:
        the batch as it travels to the main process; `unpack()` gives the `Batch`.

    Raises:
        ValueError: some examples have a semantic map or masks, others none.
    """
    if isinstance(examples, DataError):
        return examples
    semantic = [torch.from_numpy(example.semantic) for example in examples if example.semantic is not None]
    if len(semantic) not in (0, len(examples)):
        raise ValueError(
            f"a batch needs semantic maps of all its images or of none, got {len(semantic)} of {len(examples)}"
        )
    masks = [example.masks for example in examples if example.masks is not None]
    if len(masks) not in (0, len(examples)):
        raise ValueError(f"a batch needs masks for all its images or for none, got {len(masks)} of {len(examples)}")
    return PackedBatch(
        images=torch.stack([torch.from_numpy(example.image) for example in examples]),
        boxes=np.concatenate([example.boxes for example in examples]),
        labels=np.concatenate([example.labels for example in examples]),
        ignore=np.concatenate([example.ignore for example in examples]),
        counts=[len(example.labels) for example in examples],
        indices=[example.index for example in examples],
        letterboxes=[example.letterbox for example in examples if example.letterbox is not None],
        semantic=torch.stack(semantic) if semantic else None,
        truths=[example.truth for example in examples if example.truth is not None],
        masks=pack_masks(masks) if masks else None,
    )


class BatchLoader(DataLoader[Any]):
    """A DataLoader that yields `Batch`, and from whose workers a DataError arrives as the one line it is.

    torch re-raises what a worker raises with the worker's whole traceback as its message; so workers return the error
    as a value, and it is raised here.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch declares its own iterator class
        for packed in super().__iter__():
            if isinstance(packed, DataError):
                raise packed
            yield packed.unpack()


class TrainLoader(BatchLoader):
    """Yields None for each batch of the epoch that a resumed run had before: the count of batches goes on from there,
    and nothing is decoded."""

    def __iter__(self) -> Iterator[Batch | None]:  # type: ignore[override]  # torch declares its own iterator class
        yield from itertools.repeat(None, self.batch_sampler.num_done)  # type: ignore[union-attr]  # ours
        yield from super().__iter__()


class EvalLoader(BatchLoader):
    """Adds to each batch what its detections are scored against; this process has it at hand, so it does not travel.

    Semantic truths do travel: the worker has decoded them, and to read them again here would cost more.
    """

    def __init__(self, source: EvalSource, input_hw: tuple[int, int], **options: Any) -> None:
        super().__init__(EvalDataset(source, input_hw), **options)
        self.source = source

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch declares its own iterator class
        for batch in super().__iter__():
            yield replace(
                batch,
                image_ids=[self.source.image_id(index) for index in batch.indices],
                annotations=[self.source.annotations(index) for index in batch.indices],
            )


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
) -> TrainLoader:
    """The loader of augmented training batches; call `loader.batch_sampler.set_epoch` before each epoch.

    Args:
        source: the samples.
        config: the augmentation.
        input_hw: height and width of the network input, pixels.
        batch_size: images of one batch and process.
        num_workers: loader processes; 0: this one.
        seed: of everything random.
        max_epochs: length of the training; mosaic and mixup are off in the last `config.plain_last_epochs` of it.
        shuffle: false: the order of the data set in every epoch.
        rank: number of this process.
        world_size: number of processes.

    Returns:
        a loader of `Batch`; its `batch_sampler` is an `EpochBatchSampler`.

    Raises:
        DataError: while iterating, when an image cannot be read.
        ValueError: fewer images than processes.
    """
    batches = EpochBatchSampler(
        len(source),
        batch_size,
        seed,
        input_hw,
        multi_scale=config.multi_scale,
        plain_from_epoch=max_epochs - config.plain_last_epochs,
        shuffle=shuffle,
        rank=rank,
        world_size=world_size,
    )
    return TrainLoader(TrainDataset(source, config, seed), batch_sampler=batches, **_worker_options(num_workers))


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

    Process r sees images r, r + world_size, ...: every image once, none twice to fill up, so that the metric of all
    processes together counts each image once.

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
    indices = range(rank, len(source), world_size)
    return EvalLoader(source, input_hw, batch_size=batch_size, sampler=indices, **_worker_options(num_workers))


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
    """One thread for each worker: they share the cores already, and thread pools do not survive a fork."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
