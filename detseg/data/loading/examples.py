"""Samples as the model's input: augmented for training, only letterboxed for evaluation."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from detseg.config.schema.data import AugmentationConfig
from detseg.data.augment.geometry import MIN_CROP, Motion, keep_visible, letterboxed, moved
from detseg.data.augment.instance_layers import InstanceLayers
from detseg.data.augment.item import AugmentItem
from detseg.data.augment.mosaic import MixPartners, mixup, mosaic
from detseg.data.augment.pipeline import TrainTransform
from detseg.data.datasets.bad_samples import BadSample, read_or_replace
from detseg.data.datasets.contract import EvalSource, SampleSource, checked_sample
from detseg.data.datasets.sample_cache import SampleCache
from detseg.data.loading.sampling import SampleRequest
from detseg.errors import DataError
from detseg.ops.letterbox import Letterbox
from detseg.ops.random_streams import Stream, random_stream
from detseg.structures import Sample, UInt8Array


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One entry of a batch.

    Attributes:
        item: of the size of the network input.
        index: position in the data set.
        letterbox: the way back to original pixels; None in training.
        truth: (H, W) uint8 label map of the original image; None in training and in detection.
        skipped: the bad samples that another one replaces in this example.
    """

    item: AugmentItem
    index: int
    letterbox: Letterbox | None = None
    truth: UInt8Array | None = None
    skipped: tuple[BadSample, ...] = ()


class _Examples(Dataset[Example]):
    source: SampleSource

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, requests: list[Any]) -> list[Example] | DataError:
        """The examples of a batch, or what is wrong with the data (see `BatchLoader`)."""
        try:
            return [self[request] for request in requests]
        except DataError as error:
            error.add_note("In the loader:\n" + traceback.format_exc())  # for --debug; notes travel between processes
            return error


class TrainDataset(_Examples):
    """Augmented samples; what a request yields depends on the seed and the request alone.

    With ``skip_bad`` another sample replaces one that cannot be read; else that is an error. ``albumentations`` is that
    of `TrainTransform`.

    Raises:
        ConfigError: a pipeline that cannot be loaded or used.
    """

    def __init__(
        self,
        source: SampleSource,
        config: AugmentationConfig,
        seed: int,
        skip_bad: bool = False,
        albumentations: Any = None,
    ) -> None:
        self.source, self.config, self.seed, self.skip_bad = source, config, seed, skip_bad
        self.transform = TrainTransform(config, albumentations)
        self.recent = SampleCache(source)
        self._partners = MixPartners(seed, len(source))

    def __getitem__(self, request: SampleRequest) -> Example:
        """The augmented sample for a request of `EpochBatchSampler`."""
        rng = random_stream(Stream.SAMPLE, self.seed, request.epoch, request.index)
        hw = (request.height, request.width)
        bad: list[BadSample] = []
        motion = self.transform.motion(hw, rng)
        if request.mix and rng.random() < self.config.mixup:
            first = self._image_or_mosaic(request.index, request, Motion(), rng, bad)
            (partner,) = self._partners.draw(1, request.epoch, request.index, rng)
            second = self._image_or_mosaic(partner, request, Motion(), rng, bad)
            item = moved(mixup(first, second, rng), motion, hw)
        else:
            item = self._image_or_mosaic(request.index, request, motion, rng, bad)
        return Example(self.transform.finished(item, rng), request.index, skipped=tuple(bad))

    def _image_or_mosaic(
        self, index: int, request: SampleRequest, motion: Motion, rng: np.random.Generator, bad: list[BadSample]
    ) -> AugmentItem:
        hw = (request.height, request.width)
        if not request.mix or rng.random() >= self.config.mosaic:
            return moved(self.transform.cropped(self._read_item(index, request, bad), rng), motion, hw)
        indices = [index, *self._partners.draw(3, request.epoch, request.index, rng)]
        tiles = [self._read_item(i, request, bad) for i in rng.permutation(indices).tolist()]
        scale, visibility = self.config.mosaic_scale, self.config.min_visibility
        if motion.is_upright:
            return mosaic(tiles, hw, scale, visibility, rng, motion.matrix)
        return moved(mosaic(tiles, hw, scale, visibility, rng), motion, hw)

    def _read_item(self, index: int, request: SampleRequest, bad: list[BadSample]) -> AugmentItem:
        read = partial(self._read, request)
        if not self.skip_bad:
            return to_item(read(index))
        sample, found = read_or_replace(read, self.source, self.seed, request.epoch, index)
        bad += found
        return to_item(sample)

    def _read(self, request: SampleRequest, index: int) -> Sample:
        stretch = 1 if self.config.crop == 0 else 1 / MIN_CROP  # the letterbox shows more of a crop
        hw = round(request.height * stretch), round(request.width * stretch)
        mixes = request.mix and max(self.config.mosaic, self.config.mixup) > 0
        return self.recent(index, hw) if mixes else checked_sample(self.source, index, hw)


class EvalDataset(_Examples):
    """Samples letterboxed to height and width ``input_hw``, pixels, with the way back to original pixels."""

    def __init__(self, source: EvalSource, input_hw: tuple[int, int]) -> None:
        self.source: EvalSource = source
        self.input_hw = input_hw

    def __getitem__(self, index: int) -> Example:
        sample = checked_sample(self.source, index)
        item = letterboxed(to_item(sample), self.input_hw)
        if item.masks is not None:
            item = keep_visible(item, 0.0, 0.0)  # a mask that lost its last pixel has no box
        return Example(item, index, Letterbox.fit(sample.hw, self.input_hw), sample.semantic)


def to_item(sample: Sample) -> AugmentItem:
    """The part of a sample that augmentation changes, without objects whose mask has no pixel."""
    item = AugmentItem(sample.image, sample.boxes, sample.labels, sample.ignore, sample.semantic)
    if sample.masks is None:
        return item
    masks = InstanceLayers.from_run_lengths(sample.masks)
    return replace(item, masks=masks).select(masks.full_areas > 0)
