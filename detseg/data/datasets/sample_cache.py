"""A cache of decoded samples, for mosaics, which use each image several times."""

from __future__ import annotations

from collections import OrderedDict

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
        self._kept: OrderedDict[tuple[int, tuple[int, int]], Sample] = OrderedDict()
        self._num_bytes = 0

    def __call__(self, index: int, input_hw: tuple[int, int]) -> Sample:
        """The result of ``checked_sample``; errors are not cached."""
        key = (index, input_hw)
        if key not in self._kept:
            self._kept[key] = checked_sample(self._source, index, input_hw)
            self._num_bytes += _num_bytes(self._kept[key])
        sample = self._kept[key]
        self._kept.move_to_end(key)
        while self._num_bytes > self._max_bytes:
            self._num_bytes -= _num_bytes(self._kept.popitem(last=False)[1])
        return sample

    def __reduce__(self) -> tuple[type[SampleCache], tuple[SampleSource, int]]:
        """Pickles an empty cache: where loader processes are spawned, each of them receives the data set."""
        return SampleCache, (self._source, self._max_bytes)


def _num_bytes(sample: Sample) -> int:
    return sample.image.nbytes + (0 if sample.semantic is None else sample.semantic.nbytes)
