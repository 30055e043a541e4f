"""Random generators that are a function of seed, epoch and position alone, so that no random choice depends on the
number of workers or processes, or on whether a run was resumed."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt


class Stream(IntEnum):
    """The purposes of random numbers; each purpose has a stream of its own."""

    PERMUTATION = 0
    BATCH_SIZE = 1
    SAMPLE = 2
    REPLACEMENT = 3
    MODEL = 4
    SPLITS = 5


def random_stream(stream: Stream, seed: int, epoch: int, index: int = 0) -> np.random.Generator:
    """The generator of one purpose, epoch and position (of a sample or a batch).

    The entropy has a fixed length because numpy pads it with zeros: (3, 4) and (3, 4, 0) would be the same stream.
    """
    return np.random.default_rng((seed, epoch, index, stream))


def epoch_order(seed: int, epoch: int, num_samples: int) -> npt.NDArray[np.int64]:
    """(num_samples,) positions in the data set, in the shuffled order of an epoch."""
    return random_stream(Stream.PERMUTATION, seed, epoch).permutation(num_samples)
