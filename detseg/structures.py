"""The small validated types in which the parts of detseg meet.

Letters for dimensions: N objects of one image, B images of a batch, H and W pixels.

Boxes are always xyxy in absolute pixels, 0-based and half-open: a box over a whole image is ``(0, 0, W, H)``.
Labels are 0-based and contiguous; there is no background index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

if TYPE_CHECKING:
    from detseg.ops.letterbox import Letterbox

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set: the label of a class is its position in ``names``.

    Attributes:
        names: one name per class, all different.
        source_ids: the ids that the source used (COCO's sparse category ids), in the same order; 1..C when not given.
    """

    names: tuple[str, ...]
    source_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise ValueError(f"class names must differ, got {twice} more than once")
        if not self.source_ids:
            object.__setattr__(self, "source_ids", tuple(range(1, len(self.names) + 1)))
        if len(self.source_ids) != len(self.names) or len(set(self.source_ids)) != len(self.source_ids):
            raise ValueError(f"expected {len(self.names)} different source ids, got {list(self.source_ids)}")

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class ImageAnnotations:
    """The ground truth of one image as its file states it, in pixels of the original image (upright, EXIF applied).

    Attributes:
        boxes: (N, 4) float64 xyxy, not clipped; evaluation sees exactly these.
        labels: (N,) int64.
        crowd: (N,) bool, COCO's iscrowd: a region of many objects.
        difficult: (N,) bool, VOC's flag.
        truncated: (N,) bool, VOC's flag.
        area: (N,) float64, square pixels; COCO's ``area`` (of the mask, where there is one), else that of the box.
    """

    boxes: FloatArray
    labels: IntArray
    crowd: BoolArray
    difficult: BoolArray
    truncated: BoolArray
    area: FloatArray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def ignore(self) -> BoolArray:
        """(N,) bool: objects that are neither right nor wrong to find, in training as in evaluation."""
        return self.crowd | self.difficult


@dataclass(frozen=True)
class Sample:
    """One decoded image with its training targets; what every reader yields.

    Attributes:
        index: position in the data set.
        image_id: the id of the image in evaluation files.
        path: where the image was read from.
        image: (H, W, 3) uint8 RGB, upright.
        boxes: (N, 4) float32 xyxy with ``0 <= x1 < x2 <= W``; clipped to the image, boxes without area left out.
        labels: (N,) int64.
        ignore: (N,) bool.
    """

    index: int
    image_id: int
    path: str
    image: UInt8Array
    boxes: npt.NDArray[np.float32]
    labels: IntArray
    ignore: BoolArray

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True)
class BoxTargets:
    """The objects of one image as the losses see them, in pixels of the network input.

    Attributes:
        boxes: (N, 4) float32 xyxy.
        labels: (N,) int64.
        ignore: (N,) bool; crowd, difficult and ignore regions: neither positive nor negative.
    """

    boxes: Tensor
    labels: Tensor
    ignore: Tensor

    def __post_init__(self) -> None:
        _check_boxes(self.boxes)
        num = len(self.boxes)
        _check_column("labels", self.labels, num, torch.int64)
        _check_column("ignore", self.ignore, num, torch.bool)

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> BoxTargets:
        """The same targets on another device."""
        return BoxTargets(
            *(x.to(device, non_blocking=True) for x in (self.boxes, self.labels, self.ignore)),
        )

    @property
    def counted(self) -> BoxTargets:
        """Only the objects that count: those not ignored."""
        keep = ~self.ignore
        return BoxTargets(self.boxes[keep], self.labels[keep], self.ignore[keep])

    @classmethod
    def empty(cls, device: torch.device | str = "cpu") -> BoxTargets:
        """Targets of an image without objects."""
        return cls(
            torch.zeros(0, 4, device=device),
            torch.zeros(0, dtype=torch.int64, device=device),
            torch.zeros(0, dtype=torch.bool, device=device),
        )


@dataclass(frozen=True)
class Batch:
    """What a loader yields and a task consumes.

    Attributes:
        images: (B, 3, H, W) uint8 RGB; the task scales them to [0, 1] on the device.
        targets: B entries, in pixels of ``images``.
        indices: B positions in the data set.
        letterboxes: B geometries that lead back to original pixels; empty for training batches, where the way back is
            lost in augmentation.
        image_ids: B ids in evaluation files; empty for training batches, as are the annotations.
        annotations: B ground truths in original pixels, which is where detections are scored.
    """

    images: Tensor
    targets: list[BoxTargets]
    indices: list[int]
    letterboxes: list[Letterbox] = field(default_factory=list)
    image_ids: list[int] = field(default_factory=list)
    annotations: list[ImageAnnotations] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str, **_: object) -> Batch:
        """The same batch with its tensors on another device."""
        images = self.images.to(device, non_blocking=True)
        return replace(self, images=images, targets=[target.to(device) for target in self.targets])

    def to_original(self, detections: Sequence[Detections]) -> list[Detections]:
        """B detections in pixels of ``images`` → in pixels of the original images (evaluation batches only)."""
        return [
            replace(found, boxes=letterbox.boxes_to_original(found.boxes))
            for found, letterbox in zip(detections, self.letterboxes, strict=True)
        ]

    def pin_memory(self) -> Batch:
        """The same batch with its images in page-locked memory (called by the loader's pinning thread)."""
        return replace(self, images=self.images.pin_memory())


@dataclass(frozen=True)
class Detections:
    """The objects found in one image, best first.

    Sliceable like a tensor: ``detections[detections.scores > 0.5]``, ``detections[:10]``, ``detections[3]``.

    Attributes:
        boxes: (N, 4) float32 xyxy in pixels; of the original image in what a Predictor returns.
        scores: (N,) float32 in [0, 1].
        labels: (N,) int64.
        classes: the table that names the labels; empty as long as nobody attached one.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    classes: ClassTable = ClassTable(())

    def __post_init__(self) -> None:
        _check_boxes(self.boxes)
        num = len(self.boxes)
        _check_column("scores", self.scores, num, torch.float32)
        _check_column("labels", self.labels, num, torch.int64)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(
        self, item: int | slice | Tensor | Sequence[int] | Sequence[bool] | IntArray | BoolArray
    ) -> Detections:
        if isinstance(item, Tensor | np.ndarray | np.generic) and item.ndim == 0:
            item = int(item)
        if isinstance(item, int):
            if not -len(self) <= item < len(self):
                raise IndexError(f"detection {item} of {len(self)}")
            item = [item]
        picked = item if isinstance(item, slice) else torch.as_tensor(item)
        if isinstance(picked, Tensor) and not picked.numel():
            picked = picked.long()  # torch makes floats of an empty list
        return replace(self, boxes=self.boxes[picked], scores=self.scores[picked], labels=self.labels[picked])

    def __iter__(self) -> Iterator[Detections]:
        return (self[i] for i in range(len(self)))

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.classes.names[label] for label in self.labels.tolist()]

    def cpu(self) -> Detections:
        """The same detections in main memory."""
        return replace(self, boxes=self.boxes.cpu(), scores=self.scores.cpu(), labels=self.labels.cpu())

    def draw(self, image: UInt8Array, score_threshold: float = 0.0) -> UInt8Array:
        """A copy of ``image`` ((H, W, 3) uint8 RGB) with the boxes of at least ``score_threshold`` drawn on it."""
        from detseg.draw import draw_detections

        return draw_detections(image, self[self.scores >= score_threshold])

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """COCO result entries: ``image_id``, ``category_id`` (the source's id), ``bbox`` (x, y, w, h), ``score``."""
        if len(self) and not len(self.classes):
            raise ValueError("these detections have no class table; set `classes` to get COCO's category ids")
        ids = self.classes.source_ids
        return [
            {
                "image_id": image_id,
                "category_id": ids[label],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            for (x1, y1, x2, y2), score, label in zip(
                self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True
            )
        ]

    @classmethod
    def empty(cls, classes: ClassTable = ClassTable(())) -> Detections:
        """No detections."""
        return cls(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), classes)


def _check_boxes(boxes: Tensor) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype != torch.float32:
        raise ValueError(f"boxes: expected float32 of shape (N, 4), got {boxes.dtype} of shape {tuple(boxes.shape)}")


def _check_column(name: str, column: Tensor, num: int, dtype: torch.dtype) -> None:
    if column.shape != (num,) or column.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype} of shape ({num},), got {column.dtype} of {tuple(column.shape)}")
