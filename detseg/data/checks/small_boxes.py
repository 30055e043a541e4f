"""Warns of boxes that the letterbox makes too small to train on."""

from __future__ import annotations

import numpy as np

from detseg.data.annotations.model import PackedAnnotations, training_boxes
from detseg.data.augment.geometry import visible_boxes
from detseg.messages import printable
from detseg.ops.letterbox import Letterbox


def small_boxes_line(annotations: PackedAnnotations, input_hw: tuple[int, int], min_box_size: float) -> str | None:
    """One line on the boxes of a training set whose sides are below ``min_box_size`` pixels in the letterbox to
    ``input_hw`` (height, width), by the rule of training; None if all are kept."""
    image_of = np.repeat(np.arange(len(annotations)), np.diff(annotations.offsets))  # (T,) of T objects
    sizes_hw, size_of = np.unique(annotations.sizes_hw, axis=0, return_inverse=True)  # (U, 2), (I,)
    boxes, has_area = training_boxes(annotations.boxes, annotations.sizes_hw[image_of])
    counted = has_area & ~annotations.crowd & ~annotations.difficult
    fits = [Letterbox.fit((int(height), int(width)), input_hw) for height, width in sizes_hw]
    moves = np.array([(*fit.scale_xy, fit.left, fit.top) for fit in fits]).reshape(-1, 4)  # (U, 4)
    scale, padding = np.split(moves[size_of.reshape(-1)[image_of]], 2, axis=1)  # (T, 2) each
    in_input = (boxes * np.tile(scale, 2) + np.tile(padding, 2)).astype(np.float32)
    _, keep = visible_boxes(in_input, (0, 0, input_hw[1], input_hw[0]), 0.0, min_box_size)
    small = counted & ~keep
    if not small.any():
        return None
    names = ", ".join(printable(annotations.path(int(i))) for i in np.unique(image_of[small])[:3])
    return (
        f"{small.sum()} of {counted.sum()} objects ({small.sum() / counted.sum():.1%}) have a side below "
        f"data.augmentation.min_box_size = {min_box_size:g} pixels in the network input of {input_hw[1]} x "
        f"{input_hw[0]} and are not trained on unless augmentation enlarges them ({names}); raise data.image_size or "
        "lower data.augmentation.min_box_size"
    )
