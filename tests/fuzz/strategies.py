"""Boxes and images of every kind for property tests: none, thin, tiny, outside, equal, thousands."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import strategies as st

from detseg.data.augment.geometry import AugmentItem
from detseg.structures import BoolArray, BoxTargets
from tests.data.images.painted import with_masks

Boxes = npt.NDArray[np.float32]
seeds = st.integers(0, 2**32 - 1)
CELL = 16
EIGHTH = 8
"""Coordinates in eighths of a pixel are exact in float32, as are their sums and halves: two ways agree to the bit."""


def boxes_inside(hw: tuple[int, int], num: int, rng: np.random.Generator, cells: int = EIGHTH) -> Boxes:
    """(N, 4) float32 xyxy with an area inside an image, in parts of a pixel; some equal, some on borders of cells."""
    high = np.array([hw[1], hw[0]]) * cells
    low = rng.integers(0, high, (num, 2))
    fraction = 10.0 ** (rng.uniform(-1, 0, (num, 2)) * rng.choice([0.5, 4.0], (num, 2)))  # many are thin, many large
    reach = np.maximum(((high - low) * fraction).astype(np.int64), 1)
    boxes = np.concatenate([low, low + reach], axis=1) / cells
    if num > 1:
        boxes[rng.random(num) < 0.2] = boxes[0]
    snapped = np.round(boxes / CELL) * CELL  # the borders and centres of cells
    valid = (snapped[:, 2:] > snapped[:, :2]).all(axis=1) & (snapped[:, 2:] <= [hw[1], hw[0]]).all(axis=1)
    return np.where((valid & (rng.random(num) < 0.2))[:, None], snapped, boxes).astype(np.float32)


def boxes_anywhere(num: int, rng: np.random.Generator) -> Boxes:
    """(N, 4) float32 of all sizes and places, some without area, some with swapped corners."""
    low = rng.choice([1.0, 100.0, 1e5], (num, 1)) * rng.normal(size=(num, 2))
    sides = 10.0 ** rng.uniform(-4, 5, (num, 2)) * rng.choice([1, 1, 1, 1, 0, -1], (num, 2))
    return np.concatenate([low, low + sides], axis=1).astype(np.float32)


@st.composite
def box_targets(draw: st.DrawFn, hw: tuple[int, int], most: int = 12, num_classes: int = 3) -> BoxTargets:
    rng, num = np.random.default_rng(draw(seeds)), draw(st.integers(0, most))
    return BoxTargets(
        torch.from_numpy(boxes_inside(hw, num, rng)),
        torch.from_numpy(rng.integers(0, num_classes, num)),
        torch.from_numpy(rng.random(num) < 0.3),
    )


SIDES = st.one_of(st.integers(1, 3), st.integers(1, 90))
NUMBERS = st.one_of(st.integers(0, 3), st.sampled_from([40, 2000]))


@st.composite
def annotated_images(draw: st.DrawFn, masks: bool = False, semantic: bool = False) -> AugmentItem:
    """An image from one pixel on, with up to thousands of objects; with ``masks`` up to forty."""
    hw = (draw(SIDES), draw(SIDES))
    if not masks and draw(st.integers(0, 9)) == 0:
        hw = draw(st.sampled_from([(1, 3000), (3000, 1), (2, 1500)]))
    rng, num = np.random.default_rng(draw(seeds)), draw(NUMBERS)
    image = rng.integers(0, 256, (*hw, 3), dtype=np.uint8)
    labels = rng.integers(0, 256, hw, dtype=np.uint8) if semantic else None
    num = min(num, 40) if masks else num
    item = AugmentItem(
        image, boxes_inside(hw, num, rng), rng.integers(0, 9, num), rng.random(num) < 0.5, semantic=labels
    )
    return with_masks(item, _blobs(item.boxes, hw, rng)) if masks else item


def _blobs(boxes: Boxes, hw: tuple[int, int], rng: np.random.Generator) -> BoolArray:
    """(N, H, W) bool, noise inside each box; each has at least a pixel."""
    masks = np.zeros((len(boxes), *hw), dtype=np.bool_)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.tolist(), strict=True):
        window = mask[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))]
        window[:] = rng.random(window.shape) < rng.choice([0.1, 1.0])
        window[0, 0] = True
    return masks
