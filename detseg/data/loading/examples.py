"""Samples as the model's input: augmented for training, only letterboxed for evaluation.

H and W pixels of the network input.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from detseg.config.schema.data import AugmentationConfig
from detseg.data.augment.geometry import MIN_CROP, AugmentItem, BoxArray, through_letterbox
from detseg.data.augment.instance_layers import CroppedMasks
from detseg.data.augment.mosaic import mixup, mosaic
from detseg.data.augment.motion import Motion, moved
from detseg.data.datasets.bad_samples import BadSample, replaced
from detseg.data.datasets.contract import SampleSource, checked_sample
from detseg.data.datasets.sample_cache import SampleCache
from detseg.data.loading.sampling import MixGroups, SampleRequest, Stream, random_stream
from detseg.errors import DataError
from detseg.ops.letterbox import Letterbox
from detseg.structures import BoolArray, IntArray, Sample, UInt8Array


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One entry of a batch.

    Attributes:
        image: (3, H, W) uint8 RGB, contiguous or the view of an (H, W, 3) image.
        boxes: (N, 4) float32 xyxy in pixels of `image`.
        labels: (N,) int64.
        ignore: (N,) bool.
        index: position in the data set.
        letterbox: the way back to original pixels; None in training.
        semantic: (H, W) uint8, the label of each pixel of `image`; None in detection.
        truth: uint8 label map of the original image, at its size; None in training and in detection.
        masks: N masks of the size of `image`; None where only boxes are learnt.
        skipped: the bad samples in whose place there is another one in this example.
    """

    image: UInt8Array
    boxes: BoxArray
    labels: IntArray
    ignore: BoolArray
    index: int
    letterbox: Letterbox | None
    semantic: UInt8Array | None = None
    truth: UInt8Array | None = None
    masks: CroppedMasks | None = None
    skipped: tuple[BadSample, ...] = ()


class TrainDataset(Dataset[Example]):
    """Augmented samples; what a request yields depends on the seed and the request alone.

    Args:
        source: the samples.
        config: the augmentation.
        seed: of everything random.
        skip_bad: another sample takes the place of one that cannot be read; else that is an error.
    """

    def __init__(self, source: SampleSource, config: AugmentationConfig, seed: int, skip_bad: bool = False) -> None:
        from detseg.data.augment.pipeline import TrainTransform  # here, so that evaluation does not need albumentations

        self.source, self.config, self.seed, self.skip_bad = source, config, seed, skip_bad
        self.transform = TrainTransform(config)
        self.recent = SampleCache(source)
        self._mix_groups = MixGroups(seed, len(source))

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, request: SampleRequest) -> Example:
        """The augmented sample for a request of `EpochBatchSampler`."""
        rng = random_stream(Stream.SAMPLE, self.seed, request.epoch, request.index)
        hw = (request.height, request.width)
        bad: list[BadSample] = []
        motion = self.transform.motion(hw, rng)
        if request.mix and rng.random() < self.config.mixup:
            first = self._image_or_mosaic(request.index, request, Motion(), rng, bad)
            second = self._image_or_mosaic(self._partners(1, request, rng)[0], request, Motion(), rng, bad)
            item = moved(mixup(first, second, rng), motion, hw)
        else:
            item = self._image_or_mosaic(request.index, request, motion, rng, bad)
        return to_example(self.transform.finished(item, rng), request.index, None, skipped=bad)

    def __getitems__(self, requests: list[SampleRequest]) -> list[Example] | DataError:
        """What a loader asks for: the examples of a batch, or what is wrong with the data (see `BatchLoader`)."""
        return _examples_or_error(self, requests)

    def _image_or_mosaic(
        self, index: int, request: SampleRequest, motion: Motion, rng: np.random.Generator, bad: list[BadSample]
    ) -> AugmentItem:
        hw = (request.height, request.width)
        if not request.mix or rng.random() >= self.config.mosaic:
            return moved(self.transform.cropped(self._annotated(index, request, bad), rng), motion, hw)
        indices = [index, *self._partners(3, request, rng)]
        tiles = [self._annotated(i, request, bad) for i in rng.permutation(indices).tolist()]
        scale, visibility = self.config.mosaic_scale, self.config.min_visibility
        if motion.is_upright:
            return mosaic(tiles, hw, scale, visibility, rng, motion.affine(hw))
        return moved(mosaic(tiles, hw, scale, visibility, rng), motion, hw)

    def _annotated(self, index: int, request: SampleRequest, bad: list[BadSample]) -> AugmentItem:
        read = partial(self._read, request)
        if not self.skip_bad:
            return annotated(read(index))
        sample, found = replaced(read, self.source, self.seed, request.epoch, index)
        bad += found
        return annotated(sample)

    def _read(self, request: SampleRequest, index: int) -> Sample:
        stretch = 1 if self.config.crop == 0 else 1 / MIN_CROP  # of a crop the letterbox shows more
        hw = round(request.height * stretch), round(request.width * stretch)
        mixes = request.mix and max(self.config.mosaic, self.config.mixup) > 0
        return self.recent(index, hw) if mixes else checked_sample(self.source, index, hw)

    def _partners(self, num: int, request: SampleRequest, rng: np.random.Generator) -> list[int]:
        """Other images than the one that is asked for, each at most once, as far as there are so many."""
        company = self._mix_groups.of(request.epoch, request.index)
        others = company[company != request.index]
        if len(others) < num:
            return [int(i) for i in rng.choice(company, num)]
        return [int(i) for i in rng.choice(others, num, replace=False)]


class EvalDataset(Dataset[Example]):
    """Letterboxed samples with the geometry that leads back to original pixels.

    Args:
        source: the samples.
        input_hw: height and width of the network input, pixels.
    """

    def __init__(self, source: SampleSource, input_hw: tuple[int, int]) -> None:
        self.source, self.input_hw = source, input_hw

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        sample = checked_sample(self.source, index)
        letterbox = Letterbox.fit(sample.hw, self.input_hw)
        item = with_pixels(through_letterbox(annotated(sample), letterbox))
        return to_example(item, index, letterbox, sample.semantic)

    def __getitems__(self, indices: list[int]) -> list[Example] | DataError:
        """What a loader asks for: the examples of a batch, or what is wrong with the data (see `BatchLoader`)."""
        return _examples_or_error(self, indices)


def annotated(sample: Sample) -> AugmentItem:
    """The part of a sample that augmentation changes; the bounds of masks, where there are any, for boxes."""
    item = AugmentItem(sample.image, sample.boxes, sample.labels, sample.ignore, sample.semantic)
    return item if sample.masks is None else with_pixels(item.of_masks(CroppedMasks.decoded(sample.masks)))


def with_pixels(item: AugmentItem) -> AugmentItem:
    """Without the objects whose mask has no pixel: they have no box, either."""
    return item if item.masks is None else item.picked(item.masks.areas > 0)


def to_example(
    item: AugmentItem,
    index: int,
    letterbox: Letterbox | None,
    truth: UInt8Array | None = None,
    skipped: Sequence[BadSample] = (),
) -> Example:
    """Channels first, as networks want them."""
    image = item.image.transpose(2, 0, 1)  # 3 H W; a view, which is copied once, into the batch
    columns = (image, item.boxes, item.labels, item.ignore)
    return Example(*columns, index, letterbox, item.semantic, truth, item.masks, tuple(skipped))


def _examples_or_error(dataset: Dataset[Example], requests: Sequence[Any]) -> list[Example] | DataError:
    try:
        return [dataset[request] for request in requests]
    except DataError as error:
        error.add_note("In the loader:\n" + traceback.format_exc())  # for --debug; notes travel between processes
        return error
