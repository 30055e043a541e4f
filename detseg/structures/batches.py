"""Targets and batches, which travel from loaders to tasks.

Letters for dimensions: N objects of one image, B images of a batch, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from detseg.structures.arrays import UInt8Array, check_boxes, check_column
from detseg.structures.detections import DetectorOutput
from detseg.structures.samples import ImageAnnotations

if TYPE_CHECKING:
    from detseg.ops.letterbox import Letterbox


@dataclass(frozen=True, eq=False)
class BoxTargets:
    """The objects of one image for the losses, in pixels of the network input.

    Attributes:
        boxes: (N, 4) float32 xyxy.
        labels: (N,) int64.
        ignore: (N,) bool; crowd, difficult and ignore regions, which are neither positive nor negative.
        masks: (N, H, W) bool, of the size of the network input; None in training of boxes alone.
        draw_seed: seed, below 2^63, of the random choices of a model for this image in training; None: they come from
            torch's own generator.
    """

    boxes: Tensor
    labels: Tensor
    ignore: Tensor
    masks: Tensor | None = None
    draw_seed: int | None = None

    def __post_init__(self) -> None:
        check_boxes(self.boxes)
        num = len(self.boxes)
        check_column("labels", self.labels, num, torch.int64)
        check_column("ignore", self.ignore, num, torch.bool)
        masks = self.masks
        if masks is not None and (masks.ndim != 3 or len(masks) != num or masks.dtype != torch.bool):
            raise ValueError(f"masks: expected bool of shape ({num}, H, W), got {masks.dtype} of {tuple(masks.shape)}")

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> BoxTargets:
        """The same targets on another device."""
        boxes, labels, ignore = (x.to(device, non_blocking=True) for x in (self.boxes, self.labels, self.ignore))
        masks = None if self.masks is None else self.masks.to(device, non_blocking=True)
        return BoxTargets(boxes, labels, ignore, masks, self.draw_seed)

    @property
    def counted(self) -> BoxTargets:
        """Without the ignored objects."""
        keep = ~self.ignore
        masks = None if self.masks is None else self.masks[keep]
        return BoxTargets(self.boxes[keep], self.labels[keep], self.ignore[keep], masks, self.draw_seed)

    @classmethod
    def empty(cls, device: torch.device | str = "cpu") -> BoxTargets:
        """Targets of an image without objects."""
        return cls(
            torch.zeros(0, 4, device=device),
            torch.zeros(0, dtype=torch.int64, device=device),
            torch.zeros(0, dtype=torch.bool, device=device),
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of images with their targets.

    Attributes:
        images: (B, 3, H, W) uint8 RGB; they are scaled to [0, 1] on the device.
        targets: B entries, in pixels of ``images``.
        indices: B positions in the data set.
        letterboxes: B geometries, which map back to original pixels; empty in training.
        image_ids: B ids in evaluation files; empty in training.
        annotations: B ground truths in original pixels, in which detections are evaluated; empty in training.
        semantic: (B, H, W) uint8 labels of the pixels of ``images``, ``IGNORE_LABEL`` where a pixel is ignored;
            None in detection. Tasks convert it to int64 on the device.
        semantic_truths: B label maps (H_i, W_i) uint8 at the sizes of the original images, at which predictions are
            evaluated; empty in training and in detection.
    """

    images: Tensor
    targets: list[BoxTargets]
    indices: list[int]
    letterboxes: list[Letterbox] = field(default_factory=list)
    image_ids: list[int] = field(default_factory=list)
    annotations: list[ImageAnnotations] = field(default_factory=list)
    semantic: Tensor | None = None
    semantic_truths: list[UInt8Array] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.semantic is not None:
            expected = (self.images.shape[0], *self.images.shape[2:])
            if self.semantic.dtype != torch.uint8 or self.semantic.shape != expected:
                raise ValueError(
                    f"semantic: expected uint8 of shape {expected}, got {self.semantic.dtype} of "
                    f"{tuple(self.semantic.shape)}"
                )

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str, **_: object) -> Batch:
        """The same batch with its tensors on another device."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            targets=[target.to(device) for target in self.targets],
            semantic=None if self.semantic is None else self.semantic.to(device, non_blocking=True),
        )

    def to_original(self, detections: Sequence[DetectorOutput]) -> list[DetectorOutput]:
        """B detections in pixels of ``images`` → in pixels of the original images (evaluation batches only)."""
        return [found.to_original(letterbox) for found, letterbox in zip(detections, self.letterboxes, strict=True)]

    def pin_memory(self) -> Batch:
        """The same batch with images in page-locked memory; called by the loader's pinning thread."""
        semantic = None if self.semantic is None else self.semantic.pin_memory()
        return replace(self, images=self.images.pin_memory(), semantic=semantic)
