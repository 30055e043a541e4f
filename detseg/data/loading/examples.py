"""Samples as the model's input: augmented for training, only letterboxed for evaluation."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from detseg.config.schema.data import AugmentationConfig
from detseg.data.augment.audit import AugmentationAudit
from detseg.data.augment.geometry import MIN_CROP, AugmentItem, BoxArray, InstanceLayers, Motion, keep_visible, moved
from detseg.data.augment.mosaic import MixPartners, copy_paste, mixup, mosaic
from detseg.data.augment.pipeline import TrainTransform
from detseg.data.datasets.bad_samples import BadSample, read_or_replace
from detseg.data.datasets.contract import EvalSource, SampleCache, SampleSource, checked_sample
from detseg.data.loading.sampling import SampleRequest
from detseg.errors import DataError
from detseg.ops.letterbox import Letterbox
from detseg.ops.random_streams import Stream, random_stream
from detseg.structures import Batch, BoolArray, BoxTargets, IntArray, Sample, UInt8Array


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One entry of a batch."""

    item: AugmentItem  # of the size of the network input
    index: int  # position in the data set
    letterbox: Letterbox | None = None  # the way back to original pixels; None in training
    truth: UInt8Array | None = None  # (H, W) label map of the original image; None in training and in detection
    skipped: tuple[BadSample, ...] = ()  # the bad samples that another one replaces in this example


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
    """Augmented samples; what a request yields depends on the seed and the request alone. With ``skip_bad`` another
    sample replaces one that cannot be read; else that is an error. ``albumentations``: as in `TrainTransform`."""

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
        rng, hw = random_stream(Stream.SAMPLE, self.seed, request.epoch, request.index), (request.height, request.width)
        bad, audit = list[BadSample](), self.transform.audit
        if audit is not None:
            audit.sized(hw)
        motion = self.transform.motion(hw, rng)
        if request.mix and rng.random() < self.config.mixup:
            first = self._image_or_mosaic(request.index, request, Motion(), rng, bad)
            (partner,) = self._partners.draw(1, request.epoch, request.index, rng)
            second = self._image_or_mosaic(partner, request, Motion(), rng, bad)
            mixed = mixup(first, second, rng)
            if audit is not None:
                audit.applied("mixup")
                audit.moved(mixed, motion, hw, letterbox=False)
            item = moved(mixed, motion, hw)
        else:
            item = self._image_or_mosaic(request.index, request, motion, rng, bad)
        if request.mix and self.config.copy_paste > 0 and rng.random() < self.config.copy_paste:
            item = self._with_pasted(item, request, rng, bad)
        return Example(self.transform.finished(item, rng), request.index, skipped=tuple(bad))

    def _image_or_mosaic(
        self, index: int, request: SampleRequest, motion: Motion, rng: np.random.Generator, bad: list[BadSample]
    ) -> AugmentItem:
        hw, audit = (request.height, request.width), self.transform.audit
        if not request.mix or rng.random() >= self.config.mosaic:
            item = self.transform.cropped(self._read_part(index, request, bad), rng)
            if audit is not None:
                audit.moved(item, motion, hw)
            return moved(item, motion, hw)
        indices = [index, *self._partners.draw(3, request.epoch, request.index, rng)]
        tiles = [self._read_part(i, request, bad) for i in rng.permutation(indices).tolist()]
        scale, visibility = self.config.mosaic_scale, self.config.min_visibility
        if audit is not None:
            for name in ["mosaic", *[name for name, _ in motion.steps if motion.is_upright]]:
                audit.applied(name)
        if motion.is_upright:
            return mosaic(tiles, hw, scale, visibility, rng, motion.matrix, audit)
        item = mosaic(tiles, hw, scale, visibility, rng, audit=audit)
        if audit is not None:
            audit.moved(item, motion, hw, letterbox=False)
        return moved(item, motion, hw)

    def _with_pasted(
        self, item: AugmentItem, request: SampleRequest, rng: np.random.Generator, bad: list[BadSample]
    ) -> AugmentItem:
        (partner,) = self._partners.draw(1, request.epoch, request.index, rng)
        other = moved(self._read_item(partner, request, bad), self.transform.motion(item.hw, rng), item.hw)
        other = keep_visible(other, self.config.min_visibility, self.config.min_box_size)
        result = copy_paste(item, other, rng)
        if self.transform.audit is not None:
            self.transform.audit.pasted(item, result)
        return result

    def observe(self, audit: AugmentationAudit) -> None:
        """Tell an audit of every step of the samples that this process makes from now on."""
        self.transform.observe(audit)

    def _read_part(self, index: int, request: SampleRequest, bad: list[BadSample]) -> AugmentItem:
        """An image whose objects all become part of the sample."""
        item = self._read_item(index, request, bad)
        if self.transform.audit is not None:
            self.transform.audit.read(item)
        return item

    def _read_item(self, index: int, request: SampleRequest, bad: list[BadSample]) -> AugmentItem:
        if self.skip_bad:
            read = partial(self._read, request)
            sample, found = read_or_replace(read, self.source, self.seed, request.epoch, index)
            bad += found
        else:
            sample = self._read(request, index)
        return to_item(sample)

    def _read(self, request: SampleRequest, index: int) -> Sample:
        stretch = 1 if self.config.crop == 0 else 1 / MIN_CROP  # the letterbox shows more of a crop
        hw = round(request.height * stretch), round(request.width * stretch)
        mixes = request.mix and max(self.config.mosaic, self.config.mixup, self.config.copy_paste) > 0
        return self.recent(index, hw) if mixes else checked_sample(self.source, index, hw)


class EvalDataset(_Examples):
    """Samples letterboxed to height and width ``input_hw``, pixels, with the way back to original pixels."""

    def __init__(self, source: EvalSource, input_hw: tuple[int, int]) -> None:
        self.source: EvalSource = source
        self.input_hw = input_hw

    def __getitem__(self, index: int) -> Example:
        sample = checked_sample(self.source, index)
        item = moved(to_item(sample), Motion(), self.input_hw)
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


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """A batch of B images of H x W pixels with the T targets of all images in a few arrays: torch passes each tensor
    between processes through a shared memory file of its own, and large batches would run out of open files. Arrays go
    through a pipe."""

    images: Tensor | UInt8Array  # (B, 3, H, W) uint8
    boxes: BoxArray  # (T, 4) float32 xyxy
    labels: IntArray  # (T,) int64
    ignore: BoolArray  # (T,)
    mask_bits: UInt8Array | None  # what each object's mask has in its box, row by row, 8 pixels to a byte
    counts: list[int]  # objects of each image
    indices: list[int]  # this and the next three: as in `Batch`
    letterboxes: list[Letterbox]
    semantic: Tensor | UInt8Array | None
    truths: list[UInt8Array]
    skipped: tuple[BadSample, ...]  # the bad samples that others replace
    num_dropped: int  # objects that the user's own augmentation has removed

    def pin_memory(self) -> PackedBatch:
        """The same with its images in page-locked memory (called by the loader's pinning thread)."""
        semantic = None if self.semantic is None else torch.as_tensor(self.semantic).pin_memory()
        return replace(self, images=torch.as_tensor(self.images).pin_memory(), semantic=semantic)

    def unpack(self) -> Batch:
        """The batch that tasks consume."""
        arrays: list[Any] = [self.boxes, self.labels, self.ignore]
        arrays += [] if self.mask_bits is None else [self._dense_masks(self.mask_bits)]
        columns = [torch.split(torch.from_numpy(array), self.counts) for array in arrays]
        targets = [BoxTargets(*of_image) for of_image in zip(*columns, strict=True)]
        images = torch.as_tensor(self.images)
        semantic = None if self.semantic is None else torch.as_tensor(self.semantic)
        return Batch(images, targets, self.indices, self.letterboxes, semantic=semantic, semantic_truths=self.truths)

    def _dense_masks(self, bits: UInt8Array) -> BoolArray:
        pixels = np.unpackbits(bits).view(np.bool_)
        masks = np.zeros((len(self.boxes), *self.images.shape[2:]), dtype=np.bool_)
        start = 0
        for mask, (x1, y1, x2, y2) in zip(masks, self.boxes.astype(np.int64).tolist(), strict=True):
            window = mask[y1:y2, x1:x2]
            window[:] = pixels[start : start + window.size].reshape(window.shape)
            start += window.size
        return masks


def collate(examples: list[Example] | DataError) -> PackedBatch | DataError:
    """Stack the examples of one batch, of one size and with the same kinds of truth; an error passes through."""
    if isinstance(examples, DataError):
        return examples
    items = [example.item for example in examples]
    for name in ("semantic", "masks"):
        if (num := sum(getattr(item, name) is not None for item in items)) not in (0, len(items)):
            raise ValueError(f"{name}: expected it in all images of a batch or in none, got {num} of {len(items)}")
    semantic = [torch.from_numpy(item.semantic) for item in items if item.semantic is not None]
    return PackedBatch(
        images=_for_sending(_stack([item.image for item in items])),
        boxes=np.concatenate([item.boxes for item in items]),
        labels=np.concatenate([item.labels for item in items]),
        ignore=np.concatenate([item.ignore for item in items]),
        mask_bits=_pack_masks(items),
        counts=[len(item.labels) for item in items],
        indices=[example.index for example in examples],
        letterboxes=[example.letterbox for example in examples if example.letterbox is not None],
        semantic=_for_sending(torch.stack(semantic)) if semantic else None,
        truths=[example.truth for example in examples if example.truth is not None],
        skipped=tuple(sample for example in examples for sample in example.skipped),
        num_dropped=sum(item.num_dropped for item in items),
    )


def _pack_masks(items: Sequence[AugmentItem]) -> UInt8Array | None:
    pixels = [np.zeros(0, dtype=np.bool_)]
    for item in items:
        if item.masks is None:
            return None
        for row, (x1, y1, x2, y2) in enumerate(item.boxes.astype(np.int64).tolist()):
            pixels.append(item.masks.mask(row, (slice(y1, y2), slice(x1, x2))).ravel())
    return np.packbits(np.concatenate(pixels))


def _for_sending(pixels: Tensor) -> Tensor | UInt8Array:
    """What a loader process sends: the pixels in shared memory; where that is full, as an array. torch would find out
    in a thread of its own, which prints a traceback and drops the batch, for which the training then waits."""
    if get_worker_info() is None:
        return pixels
    try:
        pixels.share_memory_()  # type: ignore[no-untyped-call]  # torch declares no types
    except RuntimeError:
        return pixels.numpy()
    return pixels


def _stack(images: list[UInt8Array]) -> Tensor:  # OpenCV puts channels first faster than numpy
    batch = np.empty((len(images), 3, *images[0].shape[:2]), dtype=np.uint8)
    for planes, image in zip(batch, images, strict=True):
        if image.shape != images[0].shape:
            raise ValueError(f"a batch needs images of one size, got {images[0].shape} and {image.shape}")
        cv2.split(image, tuple(planes))
    return torch.from_numpy(batch)
