"""The structures of tensors: targets and batches from loaders to networks, and what detectors return.

Letters for dimensions: N objects of one image, B images of a batch, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from detseg.ops.masks import paste_grid
from detseg.structures.arrays import ImageAnnotations, InstanceMasks, UInt8Array

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
        _check_boxes(self.boxes)
        num = len(self.boxes)
        _check_column("labels", self.labels, (num,), torch.int64)
        _check_column("ignore", self.ignore, (num,), torch.bool)
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

    @classmethod
    def empty(cls) -> BoxTargets:
        """Targets of an image without objects."""
        return cls(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of images with their targets."""

    images: Tensor  # (B, 3, H, W) uint8 RGB; they are scaled to [0, 1] on the device
    targets: list[BoxTargets]  # B entries, in pixels of ``images``
    indices: list[int]  # B positions in the data set
    # B geometries, which map back to original pixels; empty in training.
    letterboxes: list[Letterbox] = field(default_factory=list)
    image_ids: list[int] = field(default_factory=list)  # B ids in evaluation files; empty in training
    # B ground truths in original pixels, in which detections are evaluated; empty in training.
    annotations: list[ImageAnnotations] = field(default_factory=list)
    # (B, H, W) uint8 labels of the pixels of ``images``, ``IGNORE_LABEL`` where a pixel is ignored; None in detection.
    # Tasks convert it to int64 on the device.
    semantic: Tensor | None = None
    # B label maps (H_i, W_i) uint8 at the sizes of the original images, at which predictions are evaluated; empty in
    # training and in detection.
    semantic_truths: list[UInt8Array] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.semantic is not None:
            _check_column("semantic", self.semantic, (len(self.images), *self.images.shape[2:]), torch.uint8)

    def __len__(self) -> int:
        return len(self.targets)

    def windows(self) -> list[tuple[slice, slice]]:
        """B rows and columns of ``images`` that show the image, not the padding of its letterbox; in training, where
        augmentation has moved it, all of them."""
        whole = slice(0, self.images.shape[2]), slice(0, self.images.shape[3])
        return [box.inside for box in self.letterboxes] or [whole] * len(self.images)

    def to(self, device: torch.device | str, **_: object) -> Batch:
        """The same batch with its tensors on another device; boxes, labels and flags of all images in one copy each."""
        device = torch.device(device)
        if self.images.device == device:
            return self
        counts = [len(target) for target in self.targets]
        columns = [[t.boxes for t in self.targets], [t.labels for t in self.targets], [t.ignore for t in self.targets]]
        moved = [torch.split(_moved(torch.cat(column), device), counts) for column in columns if column]
        masks = [None if t.masks is None else t.masks.to(device, non_blocking=True) for t in self.targets]
        seeds = [target.draw_seed for target in self.targets]
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            targets=[BoxTargets(*of_image) for of_image in zip(*moved, masks, seeds, strict=True)] if moved else [],
            semantic=None if self.semantic is None else self.semantic.to(device, non_blocking=True),
        )

    def tensors(self) -> list[Tensor]:
        """All tensors of the batch."""
        columns = [[t.boxes, t.labels, t.ignore, t.masks] for t in self.targets]
        found = [self.images, self.semantic, *(tensor for column in columns for tensor in column)]
        return [tensor for tensor in found if tensor is not None]

    def to_original(self, detections: Sequence[DetectorOutput]) -> list[DetectorOutput]:
        """B detections in pixels of ``images`` → in pixels of the original images (evaluation batches only). TypeError:
        a module of the user's gave something else."""
        if len(detections) != len(self) or not all(isinstance(found, DetectorOutput) for found in detections):
            raise TypeError(f"predictions: expected a detseg.DetectorOutput for each of {len(self)} images")
        return [found.to_original(letterbox) for found, letterbox in zip(detections, self.letterboxes, strict=True)]


def _moved(column: Tensor, device: torch.device) -> Tensor:
    """A copy on the device: to a GPU from page-locked memory, from where the host need not wait for it."""
    from_host = column.pin_memory() if device.type == "cuda" and column.device.type == "cpu" else column
    return from_host.to(device, non_blocking=True)


@dataclass(frozen=True, eq=False)
class RoiMasks:
    """The masks of N objects as a network predicts them: probabilities in a grid of M × M cells over each object."""

    probabilities: Tensor  # (N, M, M) float32 in [0, 1]
    regions: Tensor  # (N, 4) float32 xyxy that the grids cover, in the pixels of the detections' boxes; not clipped
    threshold: float = 0.5  # smallest probability of a pixel of the object, in (0, 1]

    def __post_init__(self) -> None:
        _check_boxes(self.regions)
        grids = self.probabilities
        if grids.ndim != 3 or len(grids) != len(self.regions) or grids.dtype != torch.float32:
            raise ValueError(
                f"probabilities: expected float32 of shape ({len(self.regions)}, M, M), got {grids.dtype} of "
                f"{tuple(grids.shape)}"
            )
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold: expected a number above 0 and up to 1, got {self.threshold}")

    def __len__(self) -> int:
        return len(self.regions)

    def __getitem__(self, item: slice | Tensor) -> RoiMasks:
        return replace(self, probabilities=self.probabilities[item], regions=self.regions[item])

    def cpu(self) -> RoiMasks:
        """The same grids on the CPU."""
        return replace(self, probabilities=self.probabilities.cpu(), regions=self.regions.cpu())

    def paste(self, hw: tuple[int, int]) -> InstanceMasks:
        """The masks in the image of the regions, of height and width ``hw`` pixels."""
        grids = self.probabilities.detach().cpu().numpy()
        regions = self.regions.detach().cpu().tolist()
        return InstanceMasks(
            hw, tuple(paste_grid(grid, region, hw, self.threshold) for grid, region in zip(grids, regions, strict=True))
        )


@dataclass(frozen=True, eq=False)
class DetectorOutput:
    """The objects that a detector finds in one image, best first; sliceable by a slice, a (N,) bool mask or positions.

    Attributes:
        boxes: (N, 4) float32 xyxy, in pixels of the network input.
        scores: (N,) float32 in [0, 1].
        labels: (N,) int64.
        masks: N masks in the image of the boxes, once ``to_original`` has pasted the grids; else None.
        grids: the masks as the network predicts them; None from a detector of boxes.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: InstanceMasks | None = None
    grids: RoiMasks | None = None

    def __post_init__(self) -> None:
        _check_boxes(self.boxes)
        num = len(self.boxes)
        _check_column("scores", self.scores, (num,), torch.float32)
        _check_column("labels", self.labels, (num,), torch.int64)
        for name, found in (("masks", self.masks), ("grids", self.grids)):
            if found is not None and len(found) != num:
                raise ValueError(f"{name}: expected one for each of {num} boxes, got {len(found)}")

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, item: slice | Tensor) -> DetectorOutput:
        positions = torch.arange(len(self), device=self.boxes.device)[item]
        masks = None if self.masks is None else self.masks.select(positions.tolist())
        grids = None if self.grids is None else self.grids[item]
        return DetectorOutput(self.boxes[item], self.scores[item], self.labels[item], masks, grids)

    def cpu(self) -> DetectorOutput:
        """The same detections on the CPU, without gradients."""
        grids = None if self.grids is None else self.grids.cpu()
        boxes, scores, labels = (x.detach().cpu() for x in (self.boxes, self.scores, self.labels))
        return DetectorOutput(boxes, scores, labels, self.masks, grids)

    def to_original(self, letterbox: Letterbox) -> DetectorOutput:
        """The detections in pixels of the original image, with grids pasted into masks; those that lie in the padding
        are left out."""
        boxes = letterbox.boxes_to_original(self.boxes)
        # A box with NaN is kept here; the evaluator raises an error for it.
        empty = (boxes[:, 2:] <= boxes[:, :2]).any(dim=1)
        inside = replace(self, boxes=boxes)[~empty]
        if inside.grids is None:
            return inside
        # Not clipped: a grid covers the whole box.
        regions = letterbox.to_original(inside.grids.regions)
        masks = replace(inside.grids, regions=regions).paste(letterbox.original_hw)
        return replace(inside, masks=masks, grids=None)

    @classmethod
    def empty(cls) -> DetectorOutput:
        """No detections."""
        return cls(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))


def _check_boxes(boxes: Tensor) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype != torch.float32:
        raise ValueError(f"boxes: expected float32 of shape (N, 4), got {boxes.dtype} of shape {tuple(boxes.shape)}")


def _check_column(name: str, column: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if column.shape != shape or column.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype} of shape {shape}, got {column.dtype} of {tuple(column.shape)}")
