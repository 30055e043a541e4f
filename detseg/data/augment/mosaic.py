"""Images made of several: mosaic (Bochkovskiy, Wang, Liao 2020, section 3.4), mixup (Zhang et al. 2018) and copy-paste
(Ghiasi et al. 2021, "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation", section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from detseg.data.augment import geometry
from detseg.data.augment.geometry import IDENTITY, AffineMatrix, AugmentItem, AxisPlacement, InstanceLayers, Placement
from detseg.ops.letterbox import PAD_VALUE, Letterbox
from detseg.ops.random_streams import epoch_order
from detseg.structures import IGNORE_LABEL, IntArray, UInt8Array

if TYPE_CHECKING:
    from detseg.data.augment.audit import AugmentationAudit

CENTER_RANGE = (0.3, 0.7)  # where the four images of a mosaic meet, as fractions of the sides
MIXUP_CONCENTRATION = 32.0  # both parameters of mixup's Beta distribution: ratios near one half
PASTED_FRACTION = 0.5  # how often each object of the other image of a copy-paste is pasted
GROUP_SIZE = 32  # consecutive images of an epoch's order that are combined with each other


class MixPartners:
    """Draws the images that a mosaic, mixup or copy-paste combines with an image, from its group of ``GROUP_SIZE``
    consecutive images of the epoch's random order, so that a process decodes each image of a group once. The last group
    overlaps the one before it. ``seed`` is that of the training, ``num_samples`` the length of the data set."""

    def __init__(self, seed: int, num_samples: int) -> None:
        self._seed, self._num_samples = seed, num_samples
        self._drawn: tuple[int, IntArray, IntArray] | None = None

    def draw(self, num: int, epoch: int, index: int, rng: np.random.Generator) -> list[int]:
        """Positions in the data set of ``num`` images other than ``index``, each at most once if there are enough."""
        group = self.group(epoch, index)
        others = group[group != index]
        chosen = rng.choice(group, num) if len(others) < num else rng.choice(others, num, replace=False)
        return [int(i) for i in chosen]

    def group(self, epoch: int, index: int) -> IntArray:
        """(up to GROUP_SIZE,) positions in the data set of the images in the group of image ``index``, with itself."""
        drawn = self._drawn  # another thread may replace it
        if drawn is None or drawn[0] != epoch:
            order = epoch_order(self._seed, epoch, self._num_samples)
            self._drawn = drawn = epoch, order, np.argsort(order)
        _, order, place = drawn
        first = min(int(place[index]) // GROUP_SIZE * GROUP_SIZE, max(self._num_samples - GROUP_SIZE, 0))
        return order[first : first + GROUP_SIZE]


def mosaic(
    tiles: Sequence[AugmentItem],
    input_hw: tuple[int, int],
    scale_range: tuple[float, float],
    min_visibility: float,
    rng: np.random.Generator,
    matrix: AffineMatrix = IDENTITY,
    audit: AugmentationAudit | None = None,
) -> AugmentItem:
    """Put four images with their objects, masks and semantic maps around a random point of a grey canvas.

    Each image is scaled to its letterboxed size times a random factor and fills its quadrant from that point outwards;
    of an image that is larger than the quadrant a random part is seen. What is seen is resized once.

    Args:
        tiles: the images for top left, top right, bottom left, bottom right; of any size.
        input_hw: height and width of the result, pixels.
        scale_range: of the factors, drawn on a logarithmic scale.
        min_visibility: boxes of which a smaller fraction is seen are dropped; masks are dropped by `keep_visible`.
        rng: source of all choices.
        matrix: (2, 3) map of the whole mosaic in edge coordinates, which turns and shears nothing.
        audit: told of every tile.
    """
    height, width = input_hw
    center_x, center_y = round(width * rng.uniform(*CENTER_RANGE)), round(height * rng.uniform(*CENTER_RANGE))
    (scale_x, _, offset_x), (_, scale_y, offset_y) = matrix.tolist()
    canvas = np.full((height, width, 3), PAD_VALUE, dtype=np.uint8)
    placements = []
    for position, tile in enumerate(tiles):
        zoom = geometry.random_zoom(scale_range, rng)
        fitted_height, fitted_width = Letterbox.fit(tile.hw, input_hw).resized_hw
        right, below = position % 2 == 1, position >= 2
        x = _place(tile.hw[1], fitted_width * zoom, center_x, width, (scale_x, offset_x), right, rng)
        y = _place(tile.hw[0], fitted_height * zoom, center_y, height, (scale_y, offset_y), below, rng)
        placements.append(Placement(x, y, input_hw, geometry.resize_smoothly))
        placements[-1].paint(tile.image, canvas)
    return _with_objects(canvas, tiles, placements, min_visibility, audit)


def _place(
    side: int, length: float, center: int, end: int, motion: tuple[float, float], after: bool, rng: np.random.Generator
) -> AxisPlacement:
    """Along one axis of a canvas up to ``end``: an image of ``side`` pixels, scaled to ``length``, before or after the
    centre; all of it then moved by position → scale · position + offset (``motion``)."""
    scale, offset = motion
    length = max(length, 1.0)
    low, high = (center, end) if after else (0, center)
    beyond = max(length - (high - low), 0.0) * rng.random()  # what lies on the other side of the centre, unseen
    start = center - beyond if after else center - length + beyond
    first, last = sorted((round(scale * low + offset), round(scale * high + offset)))
    return AxisPlacement.fit(side, scale * length / side, scale * start + offset, max(first, 0), min(last, end))


def _with_objects(
    canvas: UInt8Array,
    tiles: Sequence[AugmentItem],
    placements: Sequence[Placement],
    min_visibility: float,
    audit: AugmentationAudit | None,
) -> AugmentItem:
    """The canvas with the semantic maps of the tiles and the objects that it shows; small ones are dropped later."""
    semantic = None if tiles[0].semantic is None else np.full(canvas.shape[:2], IGNORE_LABEL, dtype=np.uint8)
    masks, boxes, visible = [], [], []
    for tile, place in zip(tiles, placements, strict=True):
        if semantic is not None and tile.semantic is not None:
            semantic[place.window] = place.visible_labels(tile.semantic)
        if tile.masks is not None:
            masks.append(tile.masks.moved(place.visible_labels, place.area_scale))
        x, y = place.x, place.y
        seen = x.first, y.first, x.first + x.taken, y.first + y.taken  # of the tile, pixels
        clipped, keep = geometry.visible_boxes(tile.boxes, seen, min_visibility, 0)
        boxes.append(place.boxes(clipped))
        visible.append(keep & (boxes[-1][:, 2:] > boxes[-1][:, :2]).all(axis=1))
        if audit is not None:
            audit.tile(tile.boxes, clipped, boxes[-1], visible[-1])
    corners = [(place.y.start, place.x.start) for place in placements]
    item = replace(_joined(canvas, tiles, masks, corners), semantic=semantic, boxes=np.concatenate(boxes))
    return item if masks else item.select(np.concatenate(visible))


def _joined(
    image: UInt8Array,
    items: Sequence[AugmentItem],
    masks: Sequence[InstanceLayers],
    corners: Sequence[tuple[int, int]] | None = None,
) -> AugmentItem:
    """An image with the objects of several others, one after the other; masks and corners as in `InstanceLayers`."""
    if len({(item.semantic is None, item.masks is None) for item in items}) > 1:
        raise ValueError("images that are put together need semantic maps, and masks, in all or in none of them")
    boxes, labels, ignore = (np.concatenate([getattr(i, key) for i in items]) for key in ("boxes", "labels", "ignore"))
    layers = InstanceLayers.joined(masks, (image.shape[0], image.shape[1]), corners) if masks else None
    return AugmentItem(image, boxes, labels, ignore, masks=layers)


def mixup(a: AugmentItem, b: AugmentItem, rng: np.random.Generator) -> AugmentItem:
    """Blend two images of one size at a random ratio; the objects of `a`, then those of `b` count in full."""
    if a.semantic is not None or b.semantic is not None:
        raise ValueError("mixup is for boxes: semantic maps cannot be blended; set data.augmentation.mixup to 0")
    ratio = rng.beta(MIXUP_CONCENTRATION, MIXUP_CONCENTRATION)
    image = np.asarray(cv2.addWeighted(a.image, ratio, b.image, 1 - ratio, 0), dtype=np.uint8)
    return _joined(image, (a, b), [item.masks for item in (a, b) if item.masks is not None])


def copy_paste(item: AugmentItem, other: AugmentItem, rng: np.random.Generator) -> AugmentItem:
    """Paste a random part of the objects of another image of the same size over an image, where they are.

    Objects to be ignored are not pasted, and borders are not blended, which gains nothing (section 3). The objects of
    `item` come first; their masks lose what is covered, and `keep_visible` drops those of which too little is left.
    """
    if item.masks is None or other.masks is None:
        raise ValueError("copy_paste needs masks of objects; set data.augmentation.copy_paste to 0")
    pasted = other.select(~other.ignore & (rng.random(len(other.ignore)) < PASTED_FRACTION))
    assert pasted.masks is not None
    is_pasted = np.zeros(pasted.masks.max_id + 1, dtype=np.bool_)
    is_pasted[pasted.masks.ids] = True
    covered = np.zeros(item.hw, dtype=np.bool_)
    for ids in pasted.masks.maps:
        covered |= is_pasted[ids]
    image = np.where(covered[:, :, None], other.image, item.image)
    left = tuple(np.where(covered, ids.dtype.type(0), ids) for ids in item.masks.maps)
    return _joined(image, (item, pasted), (replace(item.masks, maps=left), pasted.masks))
