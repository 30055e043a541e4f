"""Objects in large images by overlapping tiles, each object counted once (after Akyon, Altinuc and Temizel 2022,
"Slicing Aided Hyper Inference and Fine-Tuning for Small Object Detection").

A tile is seen as an image of its own. An object that is no longer than the overlap lies whole in one tile at least; in
others it may be cut, which is told by its box: it ends at an edge of the tile that is none of the image (within a
fiftieth of the tile's side, so that an overlap has to be larger than objects by twice that). Boxes of one class from
different tiles are the same object

- if none is cut: by their IoU, as in NMS;
- if one is cut: where most of it lies in the other one. Of a large object that is cut little lies in a small one;
- if both are cut: where most of the smaller one lies in the other one (``ios``: intersection over the smaller area).

Of the same object the better score stays, where that of a cut box counts half; of equal ones the larger box. Boxes of
one tile are never compared: the model's own NMS has done so, and what it keeps apart are two objects.

Letters for dimensions: N boxes, H and W pixels of the image, h and w pixels of a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

import numpy as np

from detseg.errors import ConfigError
from detseg.ops.letterbox import PAD_VALUE
from detseg.ops.masks import encode_part
from detseg.predict.results import Detections
from detseg.predict.tiles.cuts import Tiling, starts_of
from detseg.structures import BoolArray, Float32Array, FloatArray, InstanceMasks, IntArray, UInt8Array

Merge = Literal["ios", "nms"]
MERGES: tuple[Merge, ...] = get_args(Merge)
"""How boxes of different tiles are compared, the first by default; ``nms``: all by IoU."""

DEFAULT_OVERLAP = 4
"""What the sides of a tile are divided by: a quarter costs 1.8 times the pixels of the image, a half 4 times."""

_SAME = 0.5  # overlap from which two boxes are one object
_CUT_COUNTS = 0.5
_NEAR_EDGE = 50  # one fiftieth of a tile's side: boxes of cut objects end less far from the edge
_PAIRS = 1 << 21  # that are compared at a time, to bound the memory


@dataclass(frozen=True)
class _Place:
    """Where a tile lies; the last ones along an axis are set back, and a tile may be larger than the image."""

    top: int
    left: int

    def cut(self, image: UInt8Array, tile_hw: tuple[int, int]) -> UInt8Array:
        """The pixels of the tile, padded below and to the right where the image is smaller."""
        part = image[self.top : self.top + tile_hw[0], self.left : self.left + tile_hw[1]]
        if part.shape[:2] == tile_hw:
            return np.ascontiguousarray(part)
        tile = np.full((*tile_hw, 3), PAD_VALUE, dtype=np.uint8)
        tile[: part.shape[0], : part.shape[1]] = part
        return tile

    def is_cut(self, boxes: Float32Array, tile_hw: tuple[int, int], hw: tuple[int, int]) -> BoolArray:
        """(N,) whether boxes, in pixels of the tile, end at an edge of it beyond which the image goes on."""
        (height, width), found = tile_hw, np.zeros(len(boxes), dtype=np.bool_)
        near_y, near_x = (max(2.0, side / _NEAR_EDGE) for side in tile_hw)
        for is_inner, ends in (
            (self.left > 0, boxes[:, 0] < near_x),
            (self.top > 0, boxes[:, 1] < near_y),
            (self.left + width < hw[1], boxes[:, 2] > width - near_x),
            (self.top + height < hw[0], boxes[:, 3] > height - near_y),
        ):
            if is_inner:
                found |= ends
        return found


def find_in_tiles(
    image: UInt8Array,
    tiling: Tiling,
    predict: Callable[[list[UInt8Array]], list[Detections]],
    batch_size: int,
    full_image: bool = False,
    merge: Merge = "ios",
) -> Detections:
    """The objects of an image at its own scale, best first.

    Args:
        image: (H, W, 3) uint8 RGB.
        tiling: how to cut it.
        predict: tiles (h, w, 3) uint8 → what is found in each, in its pixels.
        batch_size: how many tiles ``predict`` gets at a time.
        full_image: ``predict`` sees the whole image, too; what it finds counts where it is in no tile whole.
        merge: see ``MERGES``.

    Raises:
        ConfigError: another word for ``merge``.
        ValueError: the image has no pixels.
    """
    if merge not in MERGES:
        raise ConfigError(f"merge: expected {' or '.join(MERGES)}, got {merge!r}")
    hw = image.shape[0], image.shape[1]
    if min(hw) < 1:
        raise ValueError(f"an image needs at least one pixel, got height {hw[0]} and width {hw[1]}")
    axes = [starts_of(*axis) for axis in zip(hw, tiling.tile_hw, tiling.overlap_hw, strict=True)]
    places = [_Place(top, left) for top, left in product(*axes)]
    found, corners, cut = list[Detections](), list[_Place](), list[BoolArray]()
    for start in range(0, len(places), batch_size):
        group = places[start : start + batch_size]
        for place, own in zip(group, predict([one.cut(image, tiling.tile_hw) for one in group]), strict=True):
            found.append(own)
            corners.append(place)
            cut.append(place.is_cut(own.boxes, tiling.tile_hw, hw))
    if full_image:
        (whole,) = predict([image])
        found.append(whole[~_fits(whole.boxes, tiling, axes)])
        corners.append(_Place(0, 0))
        cut.append(np.zeros(len(found[-1]), dtype=np.bool_))
    return _joined(found, corners, np.concatenate(cut), hw, merge)


def _fits(boxes: Float32Array, tiling: Tiling, axes: list[list[int]]) -> BoolArray:
    """(N,) whether boxes lie in one tile."""
    fits = np.ones(len(boxes), dtype=np.bool_)
    for axis, (starts, side) in enumerate(zip(axes, tiling.tile_hw, strict=True)):
        low, high = boxes[:, 1 - axis], boxes[:, 3 - axis]
        last = np.array(starts)[np.searchsorted(starts, low, side="right") - 1]
        fits &= high <= last + side
    return fits


def _joined(
    found: list[Detections], corners: list[_Place], cut: BoolArray, hw: tuple[int, int], merge: Merge
) -> Detections:
    """What was found in tiles, in pixels of the image."""
    tiles = np.repeat(np.arange(len(found)), [len(own) for own in found])
    shifts = np.array([[place.left, place.top] * 2 for place in corners], dtype=np.float32)[tiles]
    limit = np.array([hw[1], hw[0]] * 2, dtype=np.float32)
    boxes = np.minimum(np.concatenate([own.boxes for own in found]) + shifts, limit)
    scores, labels = (np.concatenate([getattr(own, name) for own in found]) for name in ("scores", "labels"))
    there = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))  # some lie in the padding
    boxes, scores, labels, tiles, cut = boxes[there], scores[there], labels[there], tiles[there], cut[there]
    kept = merged(boxes, scores, labels, tiles, cut, merge)
    masks = None
    if all(own.masks is not None for own in found):
        first = np.cumsum([0, *(len(own) for own in found)])
        rows = there[kept] - first[tiles[kept]]
        places = zip(tiles[kept].tolist(), rows.tolist(), strict=True)
        masks = InstanceMasks(hw, tuple(_moved(found[tile].masks, row, corners[tile], hw) for tile, row in places))
    return Detections(boxes[kept], scores[kept], labels[kept], found[0].classes, masks)


def _moved(masks: InstanceMasks | None, row: int, place: _Place, hw: tuple[int, int]) -> bytes:
    """Run lengths of the mask of a tile → of the image."""
    assert masks is not None
    if masks.hw == hw and not place.top and not place.left:
        return masks.counts[row]
    part, (y, x) = masks.part(row)
    top, left = place.top + y, place.left + x
    part = part[: max(hw[0] - top, 0), : max(hw[1] - left, 0)]
    return encode_part(part, (top, left) if part.size else (0, 0), hw)


def merged(
    boxes: Float32Array | FloatArray,
    scores: Float32Array | FloatArray,
    labels: IntArray,
    tiles: IntArray,
    cut: BoolArray,
    merge: Merge = "ios",
) -> IntArray:
    """(K,) positions of the boxes that stay, best score first: one of each object, by the rules of this module.

    Args:
        boxes: (N, 4) xyxy.
        scores, labels: (N,).
        tiles: (N,) the tile of each; boxes of one tile are different objects.
        cut: (N,) whether the tile's edge cuts the object.
        merge: see ``MERGES``.
    """
    boxes, areas = boxes.astype(np.float64), (boxes[:, 2:] - boxes[:, :2]).prod(axis=1, dtype=np.float64)
    places = np.empty(len(boxes), dtype=np.int64)  # in the ranking
    strength = np.where(cut, _CUT_COUNTS * scores, scores)
    places[np.lexsort((-areas, -strength))] = np.arange(len(boxes))
    pairs = [np.zeros((2, 0), dtype=np.int64)]
    for one, other in _meeting(boxes, labels):
        apart = tiles[one] != tiles[other]
        one, other = one[apart], other[apart]
        sides = np.minimum(boxes[one, 2:], boxes[other, 2:]) - np.maximum(boxes[one, :2], boxes[other, :2])
        inside = sides.prod(axis=1)
        size = areas[one] + areas[other] - inside
        if merge == "ios":
            by_cut = np.where(cut[one], np.where(cut[other], np.minimum(areas[one], areas[other]), areas[one]), size)
            size = np.where(cut[other] & ~cut[one], areas[other], by_cut)
        same = inside > _SAME * size
        one, other = one[same], other[same]
        is_better = places[one] < places[other]
        pairs.append(np.stack([np.where(is_better, one, other), np.where(is_better, other, one)]))
    better, worse = np.concatenate(pairs, axis=1)
    stays = [True] * len(boxes)
    order = np.argsort(places[better], kind="stable")
    for winner, loser in zip(better[order].tolist(), worse[order].tolist(), strict=True):
        if stays[winner]:
            stays[loser] = False
    kept = np.flatnonzero(stays)
    ranked: IntArray = kept[np.argsort(-scores[kept], kind="stable")]
    return ranked


def _meeting(boxes: FloatArray, labels: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """Positions of all pairs of boxes of one class that intersect, each pair once, some of them at a time.

    Boxes are sorted along the axis on which fewer of them overlap; each is compared with those that begin before it
    ends.
    """
    if not len(boxes):
        return
    sweeps = []
    for axis in (0, 1):
        apart = labels * (boxes[:, axis + 2].max() - boxes[:, axis].min() + 1)  # classes do not meet
        order = np.argsort(boxes[:, axis] + apart, kind="stable")
        ends = np.searchsorted((boxes[:, axis] + apart)[order], (boxes[:, axis + 2] + apart)[order])
        sweeps.append((ends - np.arange(len(boxes)) - 1, order, 1 - axis))
    counts, order, across = min(sweeps, key=lambda sweep: int(sweep[0].sum()))
    low, high = boxes[order, across], boxes[order, across + 2]
    total = np.concatenate([[0], np.cumsum(counts)])
    start = 0
    while start < len(boxes):
        stop = max(int(np.searchsorted(total, total[start] + _PAIRS, side="right")) - 1, start + 1)
        own = counts[start:stop]
        first = np.repeat(np.arange(start, stop), own)
        second = np.arange(own.sum()) - np.repeat(total[start:stop] - total[start], own) + first + 1
        meet = (low[first] < high[second]) & (low[second] < high[first])
        yield order[first[meet]], order[second[meet]]
        start = stop
