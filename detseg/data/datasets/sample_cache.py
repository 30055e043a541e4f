"""The samples that a mosaic draws on again and again, decoded once."""

from __future__ import annotations

from collections import OrderedDict

from detseg.data.datasets.contract import SampleSource, checked_sample
from detseg.structures import Sample

MAX_BYTES = 96 * 2**20
"""Of decoded pixels that one process keeps: those of a company of 32 images of up to a megapixel."""


class SampleCache:
    """Reads samples, and keeps those that were asked for last; nothing but the time depends on it.

    Args:
        source: of the samples.
        max_bytes: largest sum of the bytes of images and semantic maps that is kept.

    Attributes:
        num_reads: samples that were not at hand.
    """

    def __init__(self, source: SampleSource, max_bytes: int = MAX_BYTES) -> None:
        self._source, self._max_bytes = source, max_bytes
        self._kept: OrderedDict[tuple[int, tuple[int, int]], Sample] = OrderedDict()
        self._num_bytes = 0
        self.num_reads = 0

    def __call__(self, index: int, input_hw: tuple[int, int]) -> Sample:
        """What ``checked_sample`` gives; an error of reading is raised each time."""
        key = (index, input_hw)
        sample = self._kept.get(key)
        if sample is not None:
            self._kept.move_to_end(key)
            return sample
        sample = checked_sample(self._source, index, input_hw)
        self.num_reads += 1
        self._kept[key] = sample
        self._num_bytes += _num_bytes(sample)
        while self._num_bytes > self._max_bytes:
            self._num_bytes -= _num_bytes(self._kept.popitem(last=False)[1])
        return sample

    def __reduce__(self) -> tuple[type[SampleCache], tuple[SampleSource, int]]:
        """Without what it keeps: where loader processes are spawned, each of them is sent the data set."""
        return SampleCache, (self._source, self._max_bytes)


def _num_bytes(sample: Sample) -> int:
    return sample.image.nbytes + (0 if sample.semantic is None else sample.semantic.nbytes)
