"""Masks on a picture: of single objects, and the class of every pixel; translucent and outlined.

Letters for dimensions: N objects, C classes, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from detseg.draw.classes import ERROR_COLORS, Color, class_color, class_colors, told_apart
from detseg.draw.images import check_image, check_labels, enlarged, greyed
from detseg.structures import IGNORE_LABEL, BoolArray, InstanceMasks, UInt8Array

_OPACITY = 0.45  # of the masks of objects; that of label maps is 0.5
_BLOCK_ROWS = 256  # mixed at a time, so that no second picture of colours is needed


def paint_instances(
    image: UInt8Array,
    masks: InstanceMasks,
    colors: Sequence[Color],
    scale: int | None = 1,
    fills: Sequence[Color] | None = None,
) -> UInt8Array:
    """A copy of an image tinted by masks: each in its class's colour, or another shade of it where it touches another
    of its class, and outlined in the colour itself.

    Where masks overlap the smallest shows: it would be hidden by a larger one, but does not hide that.  No more than
    one mask is decoded at a time.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: N masks of the size of ``image``.
        colors: the colour of the class of each; equal colours are of one class.
        scale: see ``draw_boxes``.
        fills: the colour that each tints with; None: as above.

    Returns:
        (scale * H, scale * W, 3) uint8 RGB.

    Raises:
        ValueError: ``image`` is not (H, W, 3) uint8, or the masks are not as many as the colours, or of another size.
    """
    check_image(image)
    if len(masks) != len(colors):
        raise ValueError(f"masks: expected one for each of {len(colors)} labels, got {len(masks)}")
    _check_size("masks", masks.hw, image)
    picture = enlarged(image, scale)
    owners = _repeated(_owners(masks), picture.shape[0] // image.shape[0])
    line = max(1, round(math.sqrt(owners.size) / 400))
    tints = np.array([(0, 0, 0), *(told_apart(colors, masks.boxes) if fills is None else fills)], dtype=np.uint8)
    lines = np.array([(0, 0, 0), *colors], dtype=np.uint8)
    for start in range(0, len(picture), _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, len(picture))
        block, shown = picture[start:stop], owners[start:stop]
        if not shown.any():
            continue
        tinted = np.asarray(cv2.addWeighted(tints[shown], _OPACITY, block, 1 - _OPACITY, 0), dtype=np.uint8)
        np.copyto(block, tinted, where=(shown > 0)[..., None])
        np.copyto(block, lines[shown], where=_outlines(owners, start, stop, line)[..., None])
    return picture


def draw_semantic(image: UInt8Array, labels: UInt8Array, names: Sequence[str], scale: int | None = None) -> UInt8Array:
    """A copy of an image under the colours of its classes, with darker lines where classes meet.

    The lines grow with the picture; below about 400 pixels there are none, since they would hide what is thin.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8; pixels of ``IGNORE_LABEL`` and of a class named ``background`` stay as they are.
        names: the name of each class, by label; empty: there is no background, and labels are of any number.
        scale: see ``draw_boxes``.

    Returns:
        (scale * H, scale * W, 3) uint8 RGB.

    Raises:
        ValueError: wrong shape or dtype, sizes that differ, or a label without a name.
    """
    check_image(image)
    check_labels(labels)
    _check_size("labels", labels.shape, image)
    table = np.array([class_color(label) for label in range(256)], dtype=np.uint8)
    if len(names):
        table[: len(names)] = class_colors(names)
        if (unknown := labels[(labels >= len(names)) & (labels != IGNORE_LABEL)]).size:
            raise ValueError(f"label {unknown[0]} has no name: expected 0 to {len(names) - 1}")
    picture = enlarged(image, scale)
    shown = _repeated(labels, picture.shape[0] // image.shape[0])
    colors = table[shown]
    colors[_borders(shown, round(math.sqrt(shown.size) / 640))] //= 3
    drawn = np.asarray(cv2.addWeighted(colors, 0.5, picture, 0.5, 0), dtype=np.uint8)
    plain = shown == IGNORE_LABEL
    if "background" in names:
        plain |= shown == names.index("background")
    drawn[plain] = picture[plain]
    return drawn


def draw_semantic_errors(
    image: UInt8Array, truth: UInt8Array, found: UInt8Array, scale: int | None = None
) -> UInt8Array:
    """A grey copy of an image whose wrong pixels are orange; of two classes those are orange where the second class is
    found and not there, and blue where it is there and not found (``ERROR_COLORS``). What is ignored stays grey.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth, found: (H, W) uint8 labels.
        scale: see ``draw_boxes``.

    Returns:
        (scale * H, scale * W, 3) uint8 RGB.

    Raises:
        ValueError: a wrong shape or dtype.
    """
    check_image(image)
    for name, labels in (("truth", truth), ("found", found)):
        check_labels(labels)
        _check_size(name, labels.shape, image)
    wrong = (truth != found) & (truth != IGNORE_LABEL)
    is_binary = max(int(truth[truth != IGNORE_LABEL].max(initial=0)), int(found.max(initial=0))) <= 1
    missed = wrong & (truth == 1) & is_binary
    picture = greyed(image)
    for where, kind in ((wrong & ~missed, "false"), (missed, "missed")):
        color = np.array(ERROR_COLORS[kind], dtype=np.uint8)
        picture[where] = (picture[where] // 4 + color // 4 * 3).astype(np.uint8)
    return enlarged(picture, scale)


def _check_size(what: str, hw: tuple[int, ...], image: UInt8Array) -> None:
    (height, width), expected = hw, image.shape[:2]
    if hw != expected:
        raise ValueError(
            f"{what}: expected the size of the image, height {expected[0]} and width {expected[1]}, got {height} and "
            f"{width}"
        )


def _repeated(values: npt.NDArray[np.unsignedinteger], scale: int) -> npt.NDArray[np.unsignedinteger]:
    return values if scale == 1 else values.repeat(scale, axis=0).repeat(scale, axis=1)


def _owners(masks: InstanceMasks) -> npt.NDArray[np.unsignedinteger]:
    """(H, W) whose mask each pixel shows, counted from 1; 0 where there is none."""
    owners = np.zeros(masks.hw, dtype=np.min_scalar_type(len(masks)))
    for i in np.argsort(-masks.areas, kind="stable").tolist():
        part, (top, left) = masks.part(i)
        owners[top : top + part.shape[0], left : left + part.shape[1]][part] = i + 1
    return owners


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


def _borders(labels: npt.NDArray[np.unsignedinteger], width: int) -> BoolArray:
    """(H, W) bool: pixels whose label differs from that ``width`` pixels to the right or below; none for width 0."""
    borders = np.zeros(labels.shape, dtype=np.bool_)
    if width > 0:
        borders[:, :-width] |= labels[:, width:] != labels[:, :-width]
        borders[:-width] |= labels[width:] != labels[:-width]
    return borders
