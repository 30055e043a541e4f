"""Which images a training batch is made of, and at which size, as pure functions of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field

import numpy as np

from detseg.errors import DataError
from detseg.ops.random_streams import Stream, epoch_order, random_stream

SIZE_STEP = 32  # sides of batches in pixels are multiples of this, the coarsest stride of the networks


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """What the sampler asks of the training set: a position in it, and the size of the network input in pixels."""

    epoch: int
    index: int
    height: int
    width: int
    mix: bool  # whether mosaic, mixup and copy-paste are allowed


@dataclass(eq=False)
class EpochBatchSampler:
    """Divides the training set, shuffled in each epoch, into batches of ``SampleRequest``.

    ``world_size * batch_size`` consecutive images are a global batch, and process r takes its r-th part, so that
    1 process × 16 and 4 × 4 see the same global batches at the same sizes. The last one of an epoch is filled up with
    the first images of the epoch's order; a data set that is smaller than one global batch is one short batch, divided
    evenly. A DataError if there are fewer images than processes.
    """

    num_samples: int  # length of the data set
    batch_size: int  # images per batch and process
    seed: int
    input_hw: tuple[int, int]  # height and width of the network input, pixels
    _: KW_ONLY
    multi_scale: tuple[float, float] | None = None  # range of a factor on input_hw; multiples of SIZE_STEP result
    no_mosaic_from_epoch: int | None = None  # the first epoch without these; None: every epoch has them
    shuffle: bool = True  # false: every epoch has the order of the data set
    rank: int = 0
    world_size: int = 1
    epoch: int = field(default=0, init=False)
    _done: tuple[int, int] = field(default=(0, 0), init=False)

    def __post_init__(self) -> None:
        if self.num_samples < self.world_size:
            raise DataError(
                f"training images: expected at least one for each of {self.world_size} processes, got "
                f"{self.num_samples}; train on fewer devices (trainer.devices, trainer.num_nodes), or on more images"
            )

    @property
    def sampler(self) -> EpochBatchSampler:
        """Itself: Lightning calls ``dataloader.batch_sampler.sampler.set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, of the next iteration."""
        self.epoch = epoch

    def begin_at(self, epoch: int, num_batches: int) -> None:
        """Skip the first ``num_batches`` batches of an epoch: a resumed run has trained on them."""
        self._done = (epoch, num_batches)

    @property
    def num_done(self) -> int:
        """Batches of the current epoch that are skipped, see ``begin_at``."""
        return self._done[1] if self._done[0] == self.epoch else 0

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return -(-self.num_samples // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        # Not a generator: the epoch is that of this call, however late the batches are asked for.
        return self._batches(self.epoch, self.num_done)

    def _batches(self, epoch: int, first: int) -> Iterator[list[SampleRequest]]:
        order = epoch_order(self.seed, epoch, self.num_samples) if self.shuffle else np.arange(self.num_samples)
        mix = self.no_mosaic_from_epoch is None or epoch < self.no_mosaic_from_epoch
        step = min(self.batch_size * self.world_size, self.num_samples)
        order = np.concatenate([order, order[: len(self) * step - self.num_samples]])
        for number in range(first, len(self)):
            height, width = self.batch_hw(epoch, number)
            part = np.array_split(order[number * step : (number + 1) * step], self.world_size)[self.rank]
            yield [SampleRequest(epoch, index, height, width, mix) for index in part.tolist()]

    def batch_hw(self, epoch: int, number: int) -> tuple[int, int]:
        """Height and width of a global batch, pixels."""
        if self.multi_scale is None:
            return self.input_hw
        factor = random_stream(Stream.BATCH_SIZE, self.seed, epoch, number).uniform(*self.multi_scale)
        height, width = (max(round(side * factor / SIZE_STEP), 1) * SIZE_STEP for side in self.input_hw)
        return height, width
