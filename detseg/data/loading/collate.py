"""A batch on its way from a loader's worker to the main process.

B images of H × W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from detseg.data.augment.geometry import BoxArray
from detseg.data.augment.instance_layers import PackedMasks, pack_masks
from detseg.data.datasets.bad_samples import BadSample
from detseg.data.loading.examples import Example
from detseg.errors import DataError
from detseg.ops.letterbox import Letterbox
from detseg.structures import Batch, BoolArray, BoxTargets, IntArray, UInt8Array


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """A batch on its way from a worker, with the targets of all images in a few arrays.

    torch passes every tensor between processes through a shared memory file of its own; with the targets of each
    image apart that takes 1.4 ms an image instead of 0.4, and large batches run out of open files.

    Attributes:
        images: (B, 3, H, W) uint8.
        boxes, labels, ignore: the targets of all images in a row.
        counts: number of objects of each image.
        indices, letterboxes, semantic: as in `Batch`.
        truths: the label maps at original size of an evaluation batch; empty in training and in detection.
        masks: those of all images in a row; None where only boxes are learnt.
        skipped: the bad samples in whose place there are others.
    """

    images: Tensor
    boxes: BoxArray
    labels: IntArray
    ignore: BoolArray
    counts: list[int]
    indices: list[int]
    letterboxes: list[Letterbox]
    semantic: Tensor | None
    truths: list[UInt8Array]
    masks: PackedMasks | None = None
    skipped: tuple[BadSample, ...] = ()

    def pin_memory(self) -> PackedBatch:
        """The same with its images in page-locked memory (called by the loader's pinning thread)."""
        semantic = None if self.semantic is None else self.semantic.pin_memory()
        return replace(self, images=self.images.pin_memory(), semantic=semantic)

    def unpack(self) -> Batch:
        """The batch that tasks consume."""
        borders = np.cumsum(self.counts)[:-1]
        columns = [np.split(column, borders) for column in (self.boxes, self.labels, self.ignore)]
        targets = [
            BoxTargets(torch.from_numpy(boxes), torch.from_numpy(labels), torch.from_numpy(ignore))
            for boxes, labels, ignore in zip(*columns, strict=True)
        ]
        if self.masks is not None:
            height, width = self.images.shape[2:]
            dense = self.masks.dense((height, width), self.counts)
            targets = [
                replace(target, masks=torch.from_numpy(masks)) for target, masks in zip(targets, dense, strict=True)
            ]
        return Batch(
            self.images,
            targets,
            self.indices,
            self.letterboxes,
            semantic=self.semantic,
            semantic_truths=self.truths,
        )


def collate(examples: list[Example] | DataError) -> PackedBatch | DataError:
    """Stack the examples of one batch, all of one size; an error is handed on.

    Args:
        examples: B examples.

    Returns:
        the batch as it travels to the main process; `unpack()` gives the `Batch`.

    Raises:
        ValueError: some examples have a semantic map or masks, others none.
    """
    if isinstance(examples, DataError):
        return examples
    semantic = [torch.from_numpy(example.semantic) for example in examples if example.semantic is not None]
    if len(semantic) not in (0, len(examples)):
        raise ValueError(
            f"a batch needs semantic maps of all its images or of none, got {len(semantic)} of {len(examples)}"
        )
    masks = [example.masks for example in examples if example.masks is not None]
    if len(masks) not in (0, len(examples)):
        raise ValueError(f"a batch needs masks for all its images or for none, got {len(masks)} of {len(examples)}")
    return PackedBatch(
        images=_stacked([example.image for example in examples]),
        boxes=np.concatenate([example.boxes for example in examples]),
        labels=np.concatenate([example.labels for example in examples]),
        ignore=np.concatenate([example.ignore for example in examples]),
        counts=[len(example.labels) for example in examples],
        indices=[example.index for example in examples],
        letterboxes=[example.letterbox for example in examples if example.letterbox is not None],
        semantic=torch.stack(semantic) if semantic else None,
        truths=[example.truth for example in examples if example.truth is not None],
        masks=pack_masks(masks) if masks else None,
        skipped=tuple(sample for example in examples for sample in example.skipped),
    )


def _stacked(images: list[UInt8Array]) -> Tensor:
    """B images (3, H, W) uint8 → (B, 3, H, W); OpenCV takes a tenth of numpy's time to put channels first."""
    batch = np.empty((len(images), *images[0].shape), dtype=np.uint8)
    for planes, image in zip(batch, images, strict=True):
        if image.shape != planes.shape:
            raise ValueError(f"a batch needs images of one size, got {images[0].shape} and {image.shape}")
        cv2.split(image.transpose(1, 2, 0), tuple(planes))
    return torch.from_numpy(batch)
