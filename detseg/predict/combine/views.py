"""Images as in a mirror, and the way back for what is found in them.

Letters for dimensions: N objects, H and W pixels of the image.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from detseg.ops.masks import encode_part
from detseg.predict.results import Detections
from detseg.structures import InstanceMasks

Flip = Literal["horizontal", "vertical"]
FLIPS: tuple[Flip, ...] = get_args(Flip)
"""Left and right swapped; top and bottom swapped."""

_Array = TypeVar("_Array", bound=npt.NDArray[Any])


def flipped(pixels: _Array, flip: Flip | None, rows_axis: int) -> _Array:
    """An array whose axis ``rows_axis`` are the rows of an image and the next one its columns, flipped; its own
    inverse."""
    if flip is None:
        return pixels
    found: Any = np.ascontiguousarray(np.flip(pixels, rows_axis + (flip == "horizontal")))
    return found  # type: ignore[no-any-return]  # of the same type


def unflipped(found: Detections, flip: Flip | None, hw: tuple[int, int]) -> Detections:
    """What was found in a flipped image of ``hw``, in pixels of the image."""
    if flip is None:
        return found
    boxes, axis = found.boxes.copy(), 0 if flip == "horizontal" else 1
    side = np.float32(hw[1] if flip == "horizontal" else hw[0])
    boxes[:, axis], boxes[:, axis + 2] = side - found.boxes[:, axis + 2], side - found.boxes[:, axis]
    masks = None if found.masks is None else _unflipped_masks(found.masks, flip)
    return Detections(boxes, found.scores, found.labels, found.classes, masks)


def _unflipped_masks(masks: InstanceMasks, flip: Flip) -> InstanceMasks:
    counts = []
    for i in range(len(masks)):
        part, (top, left) = masks.part(i)
        if part.size and flip == "horizontal":
            left = masks.hw[1] - left - part.shape[1]
        elif part.size:
            top = masks.hw[0] - top - part.shape[0]
        counts.append(encode_part(flipped(part, flip, 0), (top, left), masks.hw))
    return InstanceMasks(masks.hw, tuple(counts))
