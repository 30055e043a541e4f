"""Which images a training batch is made of, and at which size, as pure functions of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from detseg.errors import DataError

SIZE_STEP = 32
"""Batch sizes in pixels are multiples of this, the coarsest stride of the networks."""


GROUP_SIZE = 32
"""Images that are mixed with each other."""


class Stream(IntEnum):
    """What random numbers are for; numbers for different ends never repeat each other."""

    PERMUTATION = 0
    BATCH_SIZE = 1
    SAMPLE = 2
    REPLACEMENT = 3
    MODEL = 4


def random_stream(stream: Stream, seed: int, epoch: int, index: int = 0) -> np.random.Generator:
    """The generator for one end, epoch and position; it depends on nothing else, workers and processes included.

    The entropy has a fixed length because numpy pads it with zeros: (3, 4) and (3, 4, 0) are one stream.
    """
    return np.random.default_rng((seed, epoch, index, stream))


def epoch_order(seed: int, epoch: int, num_samples: int) -> npt.NDArray[np.int64]:
    """(num_samples,) positions in the data set, in the order in which an epoch deals them when it shuffles."""
    return random_stream(Stream.PERMUTATION, seed, epoch).permutation(num_samples)


class MixGroups:
    """Which images a mosaic or mixup of an image draws its others from: those dealt shortly before and after it.

    The order of each epoch is cut into groups of ``GROUP_SIZE`` images in a row; the last one overlaps the one before.
    It is random in each epoch which images these are.  Within an epoch an image meets those of its company alone; in
    return, whoever makes the mosaics of a company needs no more than its images: decoded once, not four times.

    Args:
        seed: of everything random.
        num_samples: length of the data set.
    """

    def __init__(self, seed: int, num_samples: int) -> None:
        self.seed, self.num_samples = seed, num_samples
        self._epoch: int | None = None
        self._order = self._place = np.zeros(0, dtype=np.int64)

    def of(self, epoch: int, index: int) -> npt.NDArray[np.int64]:
        """Positions in the data set of the company of an image, itself included; of all where they are few."""
        if epoch != self._epoch:
            self._order = epoch_order(self.seed, epoch, self.num_samples)
            self._place = np.argsort(self._order)
            self._epoch = epoch
        first = min(int(self._place[index]) // GROUP_SIZE * GROUP_SIZE, max(self.num_samples - GROUP_SIZE, 0))
        return self._order[first : first + GROUP_SIZE]


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """What the sampler asks of the training set.

    Attributes:
        epoch: 0-based.
        index: position in the data set.
        height, width: network input, pixels; the same for the whole batch.
        mix: whether mosaic and mixup may happen.
    """

    epoch: int
    index: int
    height: int
    width: int
    mix: bool


class EpochBatchSampler:
    """Deals the training set, shuffled anew in each epoch, into batches of `SampleRequest`.

    The order of an epoch depends on (seed, epoch) alone. `world_size * batch_size` images in a row are a global batch;
    process r takes the r-th part of each, so that 1 process × 16 and 4 × 4 see the same global batches of the same size
    in pixels.

    The last global batch of an epoch is filled up with the first images of the epoch's order: every image is seen, and
    every batch is whole in any layout (a short one would be dealt out, or left out, by the number of processes).  A
    data set of fewer images than one global batch is one short batch, dealt out evenly.

    Args:
        num_samples: length of the data set.
        batch_size: images of one batch and process.
        seed: of everything random.
        input_hw: height and width of the network input, pixels.
        multi_scale: range of the factor by which a batch's size differs from `input_hw`; drawn per global batch from
            (seed, epoch, number of the batch), one for both sides, which are rounded to multiples of 32.
        plain_from_epoch: the first epoch without mosaic and mixup; None: they are never switched off.
        shuffle: false: the order of the data set in every epoch.
        rank: number of this process.
        world_size: number of processes.

    Raises:
        DataError: no images, or fewer images than processes.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int,
        input_hw: tuple[int, int],
        *,
        multi_scale: tuple[float, float] | None = None,
        plain_from_epoch: int | None = None,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if num_samples < world_size:
            raise DataError(
                f"training images: expected at least one for each of {world_size} processes, got {num_samples}; train "
                f"on fewer devices (trainer.devices, trainer.num_nodes), or on more images"
            )
        self.num_samples, self.batch_size, self.seed, self.input_hw = num_samples, batch_size, seed, input_hw
        self.multi_scale, self.plain_from_epoch, self.shuffle = multi_scale, plain_from_epoch, shuffle
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self._num_batches = -(-num_samples // (batch_size * world_size))
        self._done = (0, 0)

    @property
    def sampler(self) -> EpochBatchSampler:
        """Itself: Lightning sets the epoch of `dataloader.batch_sampler.sampler`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration deals."""
        self.epoch = epoch

    def begin_at(self, epoch: int, num_batches: int) -> None:
        """Note that a run that is gone on with has had so many batches of an epoch: they are not dealt again."""
        self._done = (epoch, num_batches)

    @property
    def num_done(self) -> int:
        """Batches of the present epoch that are not dealt, because the run had them before it was resumed."""
        epoch, num_batches = self._done
        return num_batches if epoch == self.epoch else 0

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self._num_batches

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        # The epoch of this moment, however late the batches are asked for.
        return self._deal(self.epoch, self.num_done)

    def batch(self, epoch: int, number: int) -> list[SampleRequest]:
        """The requests of one batch, whichever epoch is chosen; ``number``: within its epoch, from 0."""
        return next(self._deal(epoch, number))

    def _deal(self, epoch: int, first: int) -> Iterator[list[SampleRequest]]:
        order = np.arange(self.num_samples)
        if self.shuffle:
            order = epoch_order(self.seed, epoch, self.num_samples)
        mix = self.plain_from_epoch is None or epoch < self.plain_from_epoch
        step = min(self.batch_size * self.world_size, self.num_samples)
        order = np.concatenate([order, order[: self._num_batches * step - self.num_samples]])
        for number in range(first, self._num_batches):
            height, width = self.batch_hw(epoch, number)
            part = np.array_split(order[number * step : (number + 1) * step], self.world_size)[self.rank]
            yield [SampleRequest(epoch, index, height, width, mix) for index in part.tolist()]

    def batch_hw(self, epoch: int, number: int) -> tuple[int, int]:
        """Height and width in pixels of a global batch."""
        if self.multi_scale is None:
            return self.input_hw
        factor = random_stream(Stream.BATCH_SIZE, self.seed, epoch, number).uniform(*self.multi_scale)
        height, width = (max(round(side * factor / SIZE_STEP), 1) * SIZE_STEP for side in self.input_hw)
        return height, width
