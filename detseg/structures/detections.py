"""The objects found in one image.

Letters for dimensions: N objects, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from detseg.structures.arrays import BoolArray, IntArray, UInt8Array, check_boxes, check_column
from detseg.structures.masks import InstanceMasks, RoiMasks
from detseg.structures.samples import ClassTable

if TYPE_CHECKING:
    from detseg.ops.letterbox import Letterbox

NO_CLASSES = ClassTable(())
"""The class table of detections without class names."""


@dataclass(frozen=True, eq=False)
class DetectorOutput:
    """The objects found in one image, best first.

    Sliceable like a tensor: ``detections[detections.scores > 0.5]``, ``detections[:10]``, ``detections[3]``.

    Attributes:
        boxes: (N, 4) float32 xyxy in pixels; of the original image in what a Predictor returns.
        scores: (N,) float32 in [0, 1].
        labels: (N,) int64.
        classes: the table that names the labels; empty if it is not known.
        masks: N masks in the image of the boxes; None from a detector of boxes.
        grids: the masks as the network predicts them, before ``to_original`` pastes them; else None.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    classes: ClassTable = NO_CLASSES
    masks: InstanceMasks | None = None
    grids: RoiMasks | None = None

    def __post_init__(self) -> None:
        check_boxes(self.boxes)
        num = len(self.boxes)
        check_column("scores", self.scores, num, torch.float32)
        check_column("labels", self.labels, num, torch.int64)
        for name, found in (("masks", self.masks), ("grids", self.grids)):
            if found is not None and len(found) != num:
                raise ValueError(f"{name}: expected one for each of {num} boxes, got {len(found)}")

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(
        self, item: int | slice | Tensor | Sequence[int] | Sequence[bool] | IntArray | BoolArray
    ) -> DetectorOutput:
        if isinstance(item, Tensor | np.ndarray | np.generic) and item.ndim == 0:
            item = int(item)
        if isinstance(item, int):
            if not -len(self) <= item < len(self):
                raise IndexError(f"detection {item} of {len(self)}")
            item = [item]
        if isinstance(item, slice):
            item = list(range(len(self))[item])  # torch has no negative steps
        # torch has no negative strides either, such as those of positions[::-1].
        picked = torch.as_tensor(np.ascontiguousarray(item) if isinstance(item, np.ndarray) else item)
        if not picked.numel():
            picked = picked.long()  # an empty list becomes float
        return replace(
            self,
            boxes=self.boxes[picked],
            scores=self.scores[picked],
            labels=self.labels[picked],
            masks=None if self.masks is None else self.masks.select(torch.arange(len(self))[picked.cpu()].tolist()),
            grids=None if self.grids is None else self.grids[picked],
        )

    def __iter__(self) -> Iterator[DetectorOutput]:
        return (self[i] for i in range(len(self)))

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.classes.names[label] for label in self.labels.tolist()]

    def cpu(self) -> DetectorOutput:
        """The same detections on the CPU."""
        grids = None if self.grids is None else self.grids.cpu()
        return replace(self, boxes=self.boxes.cpu(), scores=self.scores.cpu(), labels=self.labels.cpu(), grids=grids)

    def to_original(self, letterbox: Letterbox) -> DetectorOutput:
        """Detections in pixels of a network input → in pixels of the original image, with grids pasted into masks.
        Detections outside the image (in the padding) are left out."""
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

    def draw(self, image: UInt8Array, score_threshold: float = 0.0) -> UInt8Array:
        """A copy of ``image`` ((H, W, 3) uint8 RGB) with boxes and masks of detections that score at least
        ``score_threshold``."""
        from detseg.draw import draw_detections

        return draw_detections(image, self[self.scores >= score_threshold])

    def to_coco(self, image_id: int | np.integer[Any]) -> list[dict[str, Any]]:
        """COCO result entries: ``image_id``, ``category_id`` (the source's id), ``bbox`` (x, y, w, h), ``score``; with
        masks also ``segmentation``, ``{"size": [H, W], "counts": str}`` with compressed run lengths.

        Raises:
            ValueError: there is no class table, or the masks are grids.
        """
        if len(self) and not len(self.classes):
            raise ValueError("these detections have no class table; set `classes` to get COCO's category ids")
        if self.grids is not None:
            raise ValueError("these detections are in pixels of a network input; call `to_original` first")
        ids = self.classes.source_ids
        entries: list[dict[str, Any]] = [
            {
                "image_id": int(image_id),
                "category_id": ids[label],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            for (x1, y1, x2, y2), score, label in zip(
                self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True
            )
        ]
        if self.masks is not None:
            for entry, counts in zip(entries, self.masks.counts, strict=True):
                entry["segmentation"] = {"size": list(self.masks.hw), "counts": counts.decode("ascii")}
        return entries

    @classmethod
    def empty(cls, classes: ClassTable = NO_CLASSES) -> DetectorOutput:
        """No detections."""
        return cls(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), classes)
