"""What the letterbox makes too small to train on, said before training instead of dropped without a word.

Letters for dimensions: I images, T objects of all images, U different image sizes.
"""

from __future__ import annotations

import numpy as np

from detseg.data.annotations.model import training_boxes
from detseg.data.augment.geometry import visible_boxes
from detseg.data.datasets.detection import DetectionDataset
from detseg.messages import printable
from detseg.ops.letterbox import Letterbox
from detseg.structures import BoolArray, IntArray

_MAX_NAMED = 3


def small_boxes_line(dataset: DetectionDataset, input_hw: tuple[int, int], min_box_size: float) -> str | None:
    """One line on the boxes that count but are too small in the letterboxed image, or None where there are none.

    Args:
        dataset: the training set.
        input_hw: height and width of the network input, pixels.
        min_box_size: the shortest side that training keeps, pixels of the network input.
    """
    image_of = np.repeat(np.arange(len(dataset)), np.diff(dataset.packed.offsets))  # (T,)
    counted, small = _counted_and_small(dataset, image_of, input_hw, min_box_size)
    if not small.any():
        return None
    rows = np.unique(image_of[small])[:_MAX_NAMED]
    names = ", ".join(printable(dataset.packed.path(int(row))) for row in rows)
    return (
        f"{small.sum()} of {counted.sum()} objects ({small.sum() / counted.sum():.1%}) have a side below "
        f"data.augmentation.min_box_size = {min_box_size:g} pixels in the network input of {input_hw[1]} x "
        f"{input_hw[0]} and are not trained on unless augmentation enlarges them ({names}); raise data.image_size or "
        "lower data.augmentation.min_box_size"
    )


def _counted_and_small(
    dataset: DetectionDataset, image_of: IntArray, input_hw: tuple[int, int], min_box_size: float
) -> tuple[BoolArray, BoolArray]:
    """(T,) bool each: objects that training counts, and those of them that the letterbox makes too small."""
    packed = dataset.packed
    sizes_hw, size_of = np.unique(packed.sizes_hw, axis=0, return_inverse=True)  # (U, 2), (I,)
    boxes, has_area = training_boxes(packed.boxes, packed.sizes_hw[image_of])
    counted = has_area & ~packed.crowd & ~packed.difficult
    letterboxes = [Letterbox.fit((int(height), int(width)), input_hw) for height, width in sizes_hw]
    scales = np.array([box.scale_xy * 2 for box in letterboxes]).reshape(-1, 4)
    paddings = np.array([(box.left, box.top) * 2 for box in letterboxes]).reshape(-1, 4)
    which = size_of.reshape(-1)[image_of]  # (T,)
    in_input = (boxes * scales[which] + paddings[which]).astype(np.float32)
    _, keep = visible_boxes(in_input, (0, 0, input_hw[1], input_hw[0]), 0.0, min_box_size)
    return counted, counted & ~keep
