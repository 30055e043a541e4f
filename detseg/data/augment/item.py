"""The image that augmentation changes, with everything that moves with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from detseg.data.augment.instance_layers import InstanceLayers
from detseg.structures import IGNORE_LABEL, BoolArray, IntArray, UInt8Array

BoxArray = npt.NDArray[np.float32]

MoveLabels = Callable[[npt.NDArray[np.integer], int], npt.NDArray[np.integer]]
"""Moves an (H, W) map of integers by nearest neighbour; the second argument is the value where nothing is shown."""


@dataclass(frozen=True, eq=False)
class AugmentItem:
    """An image of H x W pixels and its N objects or its semantic map.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) float32 xyxy, pixels; of objects with masks only `keep_visible` makes them the bounds.
        labels: (N,) int64.
        ignore: (N,) bool.
        semantic: (H, W) uint8, the label of each pixel, ``IGNORE_LABEL`` where none counts; None in detection.
        masks: N masks of the size of the image; None where only boxes are learned.
        num_dropped: objects that the user's own pipeline has removed.
    """

    image: UInt8Array
    boxes: BoxArray
    labels: IntArray
    ignore: BoolArray
    semantic: UInt8Array | None = None
    masks: InstanceLayers | None = None
    num_dropped: int = 0

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def select(self, rows: BoolArray | IntArray) -> AugmentItem:
        """Some of the objects only; ``rows``: (N,) bool, or positions."""
        masks = None if self.masks is None else self.masks.select(rows)
        return replace(self, boxes=self.boxes[rows], labels=self.labels[rows], ignore=self.ignore[rows], masks=masks)

    def with_image(self, image: UInt8Array, move: MoveLabels, area_scale: float = 1.0) -> AugmentItem:
        """Another (H, W, 3) uint8 image, with the semantic map and masks moved to it, which enlarges areas by a factor;
        the boxes stay."""
        semantic = None if self.semantic is None else np.asarray(move(self.semantic, IGNORE_LABEL), dtype=np.uint8)
        masks = None if self.masks is None else self.masks.moved(lambda ids: move(ids, 0), area_scale)
        return replace(self, image=image, semantic=semantic, masks=masks)
