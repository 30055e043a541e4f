"""A cache of decoded samples, for mosaics, which use each image several times."""

from __future__ import annotations

import threading

from detseg.data.datasets.contract import SampleSource, checked_sample
from detseg.structures import Sample


class SampleCache:
    """Reads samples and keeps those that were used last; the results do not depend on it.

    Args:
        source: of the samples.
        max_bytes: largest sum of the bytes of images and semantic maps that one process keeps; by default a mix group
            of 32 images of a megapixel.
    """

    def __init__(self, source: SampleSource, max_bytes: int = 96 * 2**20) -> None:
        self._source, self._max_bytes = source, max_bytes
        self._kept: dict[tuple[int, tuple[int, int]], Sample] = {}
        self._num_bytes, self._lock = 0, threading.Lock()

    def __call__(self, index: int, input_hw: tuple[int, int]) -> Sample:
        """The result of ``checked_sample``; errors are not cached."""
        key = (index, input_hw)
        sample = self._kept.get(key) or checked_sample(self._source, index, input_hw)
        with self._lock:
            self._num_bytes += 0 if self._kept.pop(key, None) else _num_bytes(sample)
            self._kept[key] = sample  # the last one
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= _num_bytes(self._kept.pop(next(iter(self._kept))))
        return sample

    def __reduce__(self) -> tuple[type[SampleCache], tuple[SampleSource, int]]:
        """Pickles an empty cache: where loader processes are spawned, each of them receives the data set."""
        return SampleCache, (self._source, self._max_bytes)


def _num_bytes(sample: Sample) -> int:
    return sample.image.nbytes + (0 if sample.semantic is None else sample.semantic.nbytes)
