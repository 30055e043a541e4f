"""Masks of objects on a picture: translucent, outlined, and each to be told from its neighbours.

Letters for dimensions: N objects, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from detseg.draw.colors import class_color
from detseg.draw.images import check_picture
from detseg.structures import BoolArray, InstanceMasks, UInt8Array

_OPACITY = 0.45
_BLOCK_ROWS = 256  # mixed at a time, so that no second picture of colours is needed
_SHADES = (1.0, 0.55, 1.45, 0.8)  # brightness of the objects of a class in turn


def paint_instances(image: UInt8Array, masks: InstanceMasks, labels: Sequence[int]) -> UInt8Array:
    """A copy of an image tinted by masks: each in a shade of its class's colour, outlined in the colour itself.

    Where masks overlap the smallest shows: it would be hidden by a larger one, but does not hide that.  No more than
    one mask is decoded at a time.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: N masks of the size of ``image``.
        labels: the class of each.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: ``image`` is not (H, W, 3) uint8, or the masks are not as many as the labels, or of another size.
    """
    check_picture(image)
    if len(masks) != len(labels):
        raise ValueError(f"masks: expected one for each of {len(labels)} labels, got {len(masks)}")
    if masks.hw != image.shape[:2]:
        raise ValueError(
            f"masks: expected the size of the image, height {image.shape[0]} and width {image.shape[1]}, got "
            f"{masks.hw[0]} and {masks.hw[1]}"
        )
    picture = image.copy()
    owners = _owners(masks)
    line = max(1, round(math.sqrt(owners.size) / 640))
    fills, lines = _shades(labels), np.array([(0, 0, 0), *map(class_color, labels)], dtype=np.uint8)
    for start in range(0, len(picture), _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, len(picture))
        block, shown = picture[start:stop], owners[start:stop]
        if not shown.any():
            continue
        tinted = np.asarray(cv2.addWeighted(fills[shown], _OPACITY, block, 1 - _OPACITY, 0), dtype=np.uint8)
        np.copyto(block, tinted, where=(shown > 0)[..., None])
        np.copyto(block, lines[shown], where=_outlines(owners, start, stop, line)[..., None])
    return picture


def _owners(masks: InstanceMasks) -> npt.NDArray[np.unsignedinteger]:
    """(H, W) whose mask each pixel shows, counted from 1; 0 where there is none."""
    owners = np.zeros(masks.hw, dtype=np.min_scalar_type(len(masks)))
    for i in np.argsort(-masks.areas, kind="stable").tolist():
        part, (top, left) = masks.part(i)
        owners[top : top + part.shape[0], left : left + part.shape[1]][part] = i + 1
    return owners


def _shades(labels: Sequence[int]) -> UInt8Array:
    """(N + 1, 3) RGB of the fills; the first is for pixels of no object."""
    shades, seen = [(0.0, 0.0, 0.0)], dict.fromkeys(labels, 0)
    for label in labels:
        brightness = _SHADES[seen[label] % len(_SHADES)]
        seen[label] += 1
        r, g, b = (min(brightness * value, 255.0) for value in class_color(label))
        shades.append((r, g, b))
    return np.array(shades).round().astype(np.uint8)


def _outlines(owners: npt.NDArray[np.unsignedinteger], start: int, stop: int, line: int) -> BoolArray:
    """(stop - start, W) bool: pixels of an object that have another one, or none, within ``line`` pixels along an
    axis; the border of the picture is no end of an object."""
    first, last = max(start - line, 0), min(stop + line, len(owners))
    near = owners[first:last]
    ends = np.zeros(near.shape, dtype=np.bool_)
    across, down = near[:, line:] != near[:, :-line], near[line:] != near[:-line]
    ends[:, line:] |= across
    ends[:, :-line] |= across
    ends[line:] |= down
    ends[:-line] |= down
    ends &= near > 0
    return ends[start - first : stop - first]
