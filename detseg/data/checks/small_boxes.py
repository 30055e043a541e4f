"""Warns of boxes that the letterbox makes too small to train on.

Letters for dimensions: I images, T objects of all images, U different image sizes.
"""

from __future__ import annotations

import numpy as np

from detseg.data.annotations.model import PackedAnnotations, training_boxes
from detseg.data.augment.geometry import visible_boxes
from detseg.messages import printable
from detseg.ops.letterbox import Letterbox

_MAX_NAMED = 3


def small_boxes_line(annotations: PackedAnnotations, input_hw: tuple[int, int], min_box_size: float) -> str | None:
    """One line on the boxes that are too small in the letterboxed image, by the rule of training; None if all are kept.

    Args:
        annotations: of the training set.
        input_hw: height and width of the network input, pixels.
        min_box_size: the shortest side that training keeps, pixels of the network input.
    """
    image_of = np.repeat(np.arange(len(annotations)), np.diff(annotations.offsets))  # (T,)
    sizes_hw, size_of = np.unique(annotations.sizes_hw, axis=0, return_inverse=True)  # (U, 2), (I,)
    boxes, has_area = training_boxes(annotations.boxes, annotations.sizes_hw[image_of])
    counted = has_area & ~annotations.crowd & ~annotations.difficult
    letterboxes = [Letterbox.fit((int(height), int(width)), input_hw) for height, width in sizes_hw]
    scales = np.array([box.scale_xy * 2 for box in letterboxes]).reshape(-1, 4)  # (U, 4)
    paddings = np.array([(box.left, box.top) * 2 for box in letterboxes]).reshape(-1, 4)
    which = size_of.reshape(-1)[image_of]  # (T,)
    in_input = (boxes * scales[which] + paddings[which]).astype(np.float32)
    _, keep = visible_boxes(in_input, (0, 0, input_hw[1], input_hw[0]), 0.0, min_box_size)
    small = counted & ~keep
    if not small.any():
        return None
    names = ", ".join(printable(annotations.path(int(i))) for i in np.unique(image_of[small])[:_MAX_NAMED])
    return (
        f"{small.sum()} of {counted.sum()} objects ({small.sum() / counted.sum():.1%}) have a side below "
        f"data.augmentation.min_box_size = {min_box_size:g} pixels in the network input of {input_hw[1]} x "
        f"{input_hw[0]} and are not trained on unless augmentation enlarges them ({names}); raise data.image_size or "
        "lower data.augmentation.min_box_size"
    )
