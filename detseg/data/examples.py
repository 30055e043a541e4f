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

from detseg.config.data import AugmentationConfig
from detseg.data.bad_samples import BadSample, file_of, replaced
from detseg.data.cropped_masks import CroppedMasks
from detseg.data.geometry import AnnotatedImage, BoxArray, through_letterbox
from detseg.data.mosaic import mixup, mosaic
from detseg.data.sample_check import check_sample
from detseg.data.sampling import SampleRequest, Stream, random_stream
from detseg.data.source import SampleSource
from detseg.errors import DataError
from detseg.ops.letterbox import Letterbox
from detseg.structures import BoolArray, IntArray, Sample, UInt8Array


@dataclass(frozen=True, slots=True)
class Example:
    """One entry of a batch.

    Attributes:
        image: (3, H, W) uint8 RGB.
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
        from detseg.data.transforms import TrainTransform  # here, so that evaluation does not need albumentations

        self.source, self.config, self.seed, self.skip_bad = source, config, seed, skip_bad
        self.transform = TrainTransform(config)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, request: SampleRequest) -> Example:
        """The augmented sample for a request of `EpochBatchSampler`."""
        rng = random_stream(Stream.SAMPLE, self.seed, request.epoch, request.index)
        bad: list[BadSample] = []
        item = self._image_or_mosaic(request.index, request, rng, bad)
        if request.mix and rng.random() < self.config.mixup:
            item = mixup(item, self._image_or_mosaic(self._partner(rng), request, rng, bad), rng)
        return to_example(self.transform.augment(item, rng), request.index, None, skipped=bad)

    def __getitems__(self, requests: list[SampleRequest]) -> list[Example] | DataError:
        """What a loader asks for: the examples of a batch, or what is wrong with the data (see `BatchLoader`)."""
        return _examples_or_error(self, requests)

    def _image_or_mosaic(
        self, index: int, request: SampleRequest, rng: np.random.Generator, bad: list[BadSample]
    ) -> AnnotatedImage:
        hw = (request.height, request.width)
        if request.mix and rng.random() < self.config.mosaic:
            indices = [index, self._partner(rng), self._partner(rng), self._partner(rng)]
            tiles = [self._annotated(i, request.epoch, bad) for i in rng.permutation(indices).tolist()]
            return mosaic(tiles, hw, self.config.mosaic_scale, self.config.min_visibility, rng)
        return self.transform.fit(self._annotated(index, request.epoch, bad), hw, rng)

    def _annotated(self, index: int, epoch: int, bad: list[BadSample]) -> AnnotatedImage:
        if not self.skip_bad:
            return annotated(checked_sample(self.source, index))
        sample, found = replaced(partial(checked_sample, self.source), self.source, self.seed, epoch, index)
        bad += found
        return annotated(sample)

    def _partner(self, rng: np.random.Generator) -> int:
        return int(rng.integers(len(self.source)))


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


def checked_sample(source: SampleSource, index: int) -> Sample:
    """A sample that a network can learn from.

    Raises:
        DataError: it cannot be read, or does not keep the contract.  Whatever else its source raises (out of memory, a
            mistake in a source of the user's) goes on with a note that names the file, which a loader hands on, too.
    """
    try:
        sample = source[index]
        check_sample(sample, source.classes)
    except DataError:
        raise
    except Exception as error:
        error.add_note(f"This happened while {file_of(source, index)} was read.")
        raise
    return sample


def annotated(sample: Sample) -> AnnotatedImage:
    """The part of a sample that augmentation changes; the bounds of masks, where there are any, for boxes."""
    item = AnnotatedImage(sample.image, sample.boxes, sample.labels, sample.ignore, sample.semantic)
    return item if sample.masks is None else with_pixels(item.of_masks(CroppedMasks.decoded(sample.masks)))


def with_pixels(item: AnnotatedImage) -> AnnotatedImage:
    """Without the objects whose mask has no pixel: they have no box, either."""
    return item if item.masks is None else item.picked(item.masks.areas > 0)


def to_example(
    item: AnnotatedImage,
    index: int,
    letterbox: Letterbox | None,
    truth: UInt8Array | None = None,
    skipped: Sequence[BadSample] = (),
) -> Example:
    """Channels first, as networks want them."""
    image = np.ascontiguousarray(item.image.transpose(2, 0, 1))  # 3 H W
    columns = (image, item.boxes, item.labels, item.ignore)
    return Example(*columns, index, letterbox, item.semantic, truth, item.masks, tuple(skipped))


def _examples_or_error(dataset: Dataset[Example], requests: Sequence[Any]) -> list[Example] | DataError:
    try:
        return [dataset[request] for request in requests]
    except DataError as error:
        error.add_note("In the loader:\n" + traceback.format_exc())  # for --debug; notes travel between processes
        return error
