"""The class of every pixel as colours over a picture, with a legend, and as an indexed PNG.

Letters for dimensions: C classes, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from detseg.draw.colors import Color, class_color
from detseg.draw.images import check_picture
from detseg.draw.text import Strip
from detseg.errors import DataError
from detseg.structures import IGNORE_LABEL, BoolArray, UInt8Array

_IGNORE_COLOR = (224, 224, 192)  # as VOC paints its void
_LEGEND_BACKGROUND = (32, 32, 32)


def draw_semantic(
    image: UInt8Array, labels: UInt8Array, opacity: float = 0.5, background: int | None = None
) -> UInt8Array:
    """A copy of an image under the colours of its classes, with darker lines where classes meet.

    The lines grow with the picture; below about 400 pixels there are none, since they would hide what is thin.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8; pixels of ``IGNORE_LABEL`` stay as they are.
        opacity: of the colours, from 0 (the image alone) to 1 (the colours alone).
        background: a label whose pixels stay as they are, too; None: there is none.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: wrong shape or dtype, sizes that differ, or an opacity outside 0 to 1.
    """
    check_picture(image)
    _check_labels(labels)
    if labels.shape != image.shape[:2]:
        raise ValueError(
            f"labels: expected the size of the image, height {image.shape[0]} and width {image.shape[1]}, got "
            f"{labels.shape[0]} and {labels.shape[1]}"
        )
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity: expected a number from 0 to 1, got {opacity}")
    colors = np.array([class_color(label) for label in range(256)], dtype=np.uint8)[labels]
    colors[_borders(labels, round(math.sqrt(labels.size) / 640))] //= 3
    drawn = np.asarray(cv2.addWeighted(colors, opacity, image, 1 - opacity, 0), dtype=np.uint8)
    plain = labels == IGNORE_LABEL
    if background is not None:
        plain |= labels == background
    drawn[plain] = image[plain]
    return drawn


def draw_legend(image: UInt8Array, entries: Sequence[tuple[str, str, Color]]) -> UInt8Array:
    """A picture with a legend below it: nothing of the picture is covered.

    Args:
        image: (H, W, 3) uint8 RGB.
        entries: name, a note after it (may be empty) and colour of each entry, in the order wanted.

    Returns:
        (H + L, W, 3) uint8 RGB; L is 0 without entries, else as many rows of strips as the entries need.

    Raises:
        ValueError: ``image`` is not (H, W, 3) uint8.
    """
    check_picture(image)
    height, width, _ = image.shape
    placed: list[tuple[Strip, int, int, Color]] = []
    left, top = 0, height
    for name, note, color in entries:
        strip = Strip.lay_out(name, note, (height, width))
        if left and left + strip.width > width:
            left, top = 0, top + strip.height
        placed.append((strip, left, top, color))
        left += strip.width
    bottom = max([height, *(y + strip.height for strip, _, y, _ in placed)])
    canvas = Image.new("RGB", (width, bottom), _LEGEND_BACKGROUND)
    canvas.paste(Image.fromarray(image), (0, 0))
    for strip, x, y, color in placed:
        strip.draw(ImageDraw.Draw(canvas), x, y, color)
    return np.array(canvas)


def write_index_png(path: Path, labels: UInt8Array, palette: UInt8Array) -> None:
    """Write labels as an 8-bit PNG with a palette, the form of VOC's masks; ``IGNORE_LABEL`` is shown as VOC's void.

    Args:
        path: the file; an existing one is replaced.
        labels: (H, W) uint8.
        palette: (C, 3) uint8 RGB, the colour of each label.

    Raises:
        ValueError: wrong shape or dtype, or a label that the palette has no colour for.
        DataError: the file could not be written.
    """
    _check_labels(labels)
    if palette.ndim != 2 or palette.shape[1] != 3 or palette.dtype != np.uint8 or len(palette) > IGNORE_LABEL:
        raise ValueError(
            f"palette: expected uint8 of shape (C, 3), C at most {IGNORE_LABEL}, got {palette.dtype} of {palette.shape}"
        )
    unknown = [label for label in np.unique(labels).tolist() if len(palette) <= label != IGNORE_LABEL]
    if unknown:
        raise ValueError(f"labels: expected below {len(palette)} or {IGNORE_LABEL}, got {unknown[0]}")
    full = np.zeros((256, 3), dtype=np.uint8)  # all 256 colours, or Pillow would pack several labels into a byte
    full[: len(palette)] = palette
    full[IGNORE_LABEL] = _IGNORE_COLOR
    indexed = Image.fromarray(labels)
    indexed.putpalette(full.tobytes())
    try:
        indexed.save(path, format="PNG")
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{path}: the labels could not be written ({reason}); is there space, and the right to write?"
        ) from error


def _check_labels(labels: UInt8Array) -> None:
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ValueError(f"labels: expected uint8 of shape (H, W), got {labels.dtype} of shape {labels.shape}")


def _borders(labels: UInt8Array, width: int) -> BoolArray:
    """(H, W) bool: pixels whose label differs from that ``width`` pixels to the right or below; none for width 0."""
    borders = np.zeros(labels.shape, dtype=np.bool_)
    if width > 0:
        borders[:, :-width] |= labels[:, width:] != labels[:, :-width]
        borders[:-width] |= labels[width:] != labels[:-width]
    return borders
