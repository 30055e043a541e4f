"""What is wrong with boxes, by their numbers alone.  T objects of I images, packed image by image."""

from __future__ import annotations

import numpy as np

from detseg.structures import BoolArray, FloatArray, IntArray

# From this fraction of boxes that are inverted, or leave their image, on, width and height may stand where the second
# corner should, or the reverse ...
_INVERTED = 0.25
_FITTING = 0.95  # ... if at least this fraction of the boxes lies inside its image when it is read so
_OTHER_WAY = 0.05  # of the inverted boxes that are inverted in another way than most: who swaps corners swaps all alike
_LARGE = 0.25  # of the boxes that reach over half a side when corners are swapped
_PIXEL, _OF_SMALL = 1.01, 0.5  # pixels that sides are off in a repetition, and the IoU that suffices then
_MIX = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93], dtype=np.uint64)
_MIX_GROUP, _SHIFT = np.uint64(0xA0761D6478BD642F), np.uint64(29)


def inverted(boxes: FloatArray) -> BoolArray:
    """(T,) bool: the second corner lies left of or above the first."""
    return np.asarray((boxes[:, 2:] < boxes[:, :2]).any(axis=1))


def have_size_as_corner(boxes: FloatArray, sizes_hw: IntArray) -> bool:
    """Whether width and height seem to stand where the second corner should: at least a quarter of the boxes are
    inverted, and read as widths and heights nearly all lie inside their images. ``sizes_hw``: (T, 2), of each box's."""
    if len(boxes) < 2 or inverted(boxes).mean() < _INVERTED:
        return False
    fits = (boxes[:, :2] + boxes[:, 2:] <= sizes_hw[:, ::-1] + 1).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    return bool(fits.mean() >= _FITTING)


def are_no_swapped_corners(boxes: FloatArray, sizes_hw: IntArray) -> bool:
    """Whether boxes that `have_size_as_corner` cannot be swapped corners, which lie inside their images as well: they
    are inverted in several ways (in x, in y, in both), and with swapped corners many would be large, all of them about
    centres in the upper left quarter."""
    ways = (boxes[:, 2:] < boxes[:, :2]) @ np.array([1, 2])
    others = np.sort(np.bincount(ways, minlength=4)[1:])[:2].sum()
    large = (np.abs(boxes[:, 2:] - boxes[:, :2]) > sizes_hw[:, ::-1] / 2).any(axis=1)
    return bool(others >= _OTHER_WAY * (ways > 0).sum() and large.mean() >= _LARGE)


def as_two_corners(boxes: FloatArray, centred: bool) -> FloatArray:
    """(T, 4) what a file states as a corner (``centred``: as the centre), width and height, read as two corners."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([(low + high) / 2 if centred else low, high - low], axis=1)


def have_corner_as_size(boxes: FloatArray, sizes_hw: IntArray, centred: bool) -> bool:
    """Whether two corners seem to stand where a corner (``centred``: the centre), width and height should: at least a
    quarter of the boxes leave their images, and nearly all lie inside, with ordered corners, when they are read so.
    ``sizes_hw``: (T, 2), of each box's."""
    limits, corners = sizes_hw[:, ::-1] + 1, as_two_corners(boxes, centred)
    leave = (boxes[:, :2] < -1).any(axis=1) | (boxes[:, 2:] > limits).any(axis=1)
    if len(boxes) < 2 or leave.mean() < _INVERTED:
        return False
    fits = (corners[:, 2:] <= limits).all(axis=1) & (corners[:, 2:] > corners[:, :2]).all(axis=1)
    return bool(fits.mean() >= _FITTING)


def relative(boxes: FloatArray, image_of: IntArray, num_images: int) -> BoolArray:
    """(T,) bool: all boxes of the image lie within [0, 1], and there are fractions among their numbers: they are
    relative to the image's sides. VOC's corners are read one less, so -1 to 0 counts as well."""
    low, high = boxes[:, :2], boxes[:, 2:]
    small = ((low >= -1) & (high > 0) & (high <= 1) & (low < high)).all(axis=1)
    fraction = (boxes != np.rint(boxes)).any(axis=1)
    some = np.bincount(image_of[fraction & small], minlength=num_images) > 0
    others = np.bincount(image_of[~small], minlength=num_images) > 0
    return np.asarray((some & ~others)[image_of])


def repeated(boxes: FloatArray, groups: IntArray) -> BoolArray:
    """(T,) bool: an earlier object of the same group (image, class and crowd flag as one number) has the same box, to a
    hundredth of a pixel: tools round fractions of the sides."""
    boxes = boxes.round(2)
    # Sorting one hash of the five numbers is ten times as fast as sorting by five keys; equal hashes are compared.
    bits = np.ascontiguousarray(boxes + 0.0).view(np.uint64).reshape(-1, 4)
    keys = groups.astype(np.uint64) * _MIX_GROUP
    for column, factor in zip(bits.T, _MIX, strict=True):
        keys = (keys ^ (column >> _SHIFT) ^ column) * factor
        keys ^= keys >> _SHIFT
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    first, second = order[same], order[same + 1]
    equal = (groups[first] == groups[second]) & (boxes[first] == boxes[second]).all(axis=1)
    found = np.zeros(len(boxes), dtype=np.bool_)
    found[second[equal]] = True
    return found


def nearly_repeated(boxes: FloatArray, groups: IntArray, iou: float) -> BoolArray:
    """(T,) bool: an object of the same group has nearly the same box, of IoU above ``iou`` or with no side more than a
    pixel off and IoU above 0.5, and comes before it in the order of left sides; boxes that are the same count, too."""
    found = np.zeros(len(boxes), dtype=np.bool_)
    widths = boxes[:, 2] - boxes[:, 0]
    order = np.lexsort((boxes[:, 0], groups))
    order = order[(widths[order] > 0) & (boxes[order, 3] > boxes[order, 1])]
    first, step = np.arange(len(order)), 1
    while len(first := first[first + step < len(order)]):
        one, two = order[first], order[first + step]
        # Boxes of such an IoU have left sides no further apart than this; and left sides ascend.
        apart = np.maximum((1 / iou - 1) * widths[one] / iou, _PIXEL)
        near = (groups[one] == groups[two]) & (boxes[two, 0] - boxes[one, 0] <= apart)
        first, one, two = first[near], one[near], two[near]
        sides = np.minimum(boxes[one, 2:], boxes[two, 2:]) - np.maximum(boxes[one, :2], boxes[two, :2])
        common = sides.clip(0).prod(axis=1)
        areas = [(boxes[rows, 2:] - boxes[rows, :2]).prod(axis=1) for rows in (one, two)]
        least = np.where((np.abs(boxes[one] - boxes[two]) <= _PIXEL).all(axis=1), min(iou, _OF_SMALL), iou)
        found[two[common > least * (areas[0] + areas[1] - common)]] = True
        step += 1
    return found
