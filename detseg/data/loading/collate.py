"""A batch on its way from a loader's worker to the main process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from detseg.data.augment.item import AugmentItem, BoxArray
from detseg.data.datasets.bad_samples import BadSample
from detseg.data.loading.examples import Example
from detseg.errors import DataError
from detseg.ops.letterbox import Letterbox
from detseg.structures import Batch, BoolArray, BoxTargets, IntArray, UInt8Array


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """A batch of B images of H x W pixels with the T targets of all images in a few arrays.

    torch passes every tensor between processes through a shared memory file of its own: with the targets of each image
    apart that is slower, and large batches run out of open files.

    Attributes:
        images: (B, 3, H, W) uint8.
        boxes, labels, ignore: (T, 4) float32 xyxy, (T,) int64, (T,) bool.
        mask_bits: uint8, what each object's mask has in its box, row by row, 8 pixels to a byte; None without masks.
        counts: number of objects of each image.
        indices, letterboxes, semantic, truths: as in `Batch`.
        skipped: the bad samples that others replace.
        num_dropped: objects that the user's own augmentation has removed.
    """

    images: Tensor
    boxes: BoxArray
    labels: IntArray
    ignore: BoolArray
    mask_bits: UInt8Array | None
    counts: list[int]
    indices: list[int]
    letterboxes: list[Letterbox]
    semantic: Tensor | None
    truths: list[UInt8Array]
    skipped: tuple[BadSample, ...]
    num_dropped: int

    def pin_memory(self) -> PackedBatch:
        """The same with its images in page-locked memory (called by the loader's pinning thread)."""
        semantic = None if self.semantic is None else self.semantic.pin_memory()
        return replace(self, images=self.images.pin_memory(), semantic=semantic)

    def unpack(self) -> Batch:
        """The batch that tasks consume."""
        arrays = (self.boxes, self.labels, self.ignore)
        columns = [torch.split(torch.from_numpy(array), self.counts) for array in arrays]
        masks: Sequence[Tensor | None] = [None] * len(self.counts)
        if self.mask_bits is not None:
            masks = torch.split(torch.from_numpy(self._dense_masks(self.mask_bits)), self.counts)
        targets = [BoxTargets(*of_image) for of_image in zip(*columns, masks, strict=True)]
        return Batch(
            self.images, targets, self.indices, self.letterboxes, semantic=self.semantic, semantic_truths=self.truths
        )

    def _dense_masks(self, bits: UInt8Array) -> BoolArray:
        """(T, H, W) bool."""
        pixels = np.unpackbits(bits).view(np.bool_)
        masks = np.zeros((len(self.boxes), *self.images.shape[2:]), dtype=np.bool_)
        start = 0
        for mask, (x1, y1, x2, y2) in zip(masks, self.boxes.astype(np.int64).tolist(), strict=True):
            window = mask[y1:y2, x1:x2]
            window[:] = pixels[start : start + window.size].reshape(window.shape)
            start += window.size
        return masks


def collate(examples: list[Example] | DataError) -> PackedBatch | DataError:
    """Stack the examples of one batch; an error is passed through.

    Raises:
        ValueError: images of different sizes, or some examples have a semantic map or masks and others none.
    """
    if isinstance(examples, DataError):
        return examples
    items = [example.item for example in examples]
    for name in ("semantic", "masks"):
        if (num := sum(getattr(item, name) is not None for item in items)) not in (0, len(items)):
            raise ValueError(f"{name}: expected it in all images of a batch or in none, got {num} of {len(items)}")
    semantic = [torch.from_numpy(item.semantic) for item in items if item.semantic is not None]
    return PackedBatch(
        images=_stack([item.image for item in items]),
        boxes=np.concatenate([item.boxes for item in items]),
        labels=np.concatenate([item.labels for item in items]),
        ignore=np.concatenate([item.ignore for item in items]),
        mask_bits=_pack_masks(items),
        counts=[len(item.labels) for item in items],
        indices=[example.index for example in examples],
        letterboxes=[example.letterbox for example in examples if example.letterbox is not None],
        semantic=torch.stack(semantic) if semantic else None,
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


def _stack(images: list[UInt8Array]) -> Tensor:
    """B images (H, W, 3) uint8 → (B, 3, H, W); OpenCV puts channels first faster than numpy."""
    batch = np.empty((len(images), 3, *images[0].shape[:2]), dtype=np.uint8)
    for planes, image in zip(batch, images, strict=True):
        if image.shape != images[0].shape:
            raise ValueError(f"a batch needs images of one size, got {images[0].shape} and {image.shape}")
        cv2.split(image, tuple(planes))
    return torch.from_numpy(batch)
