"""Pictures: enlarged, with a legend, many of them on one sheet, and as files.

Letters for dimensions: C classes, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from detseg.atomic_write import write_errors
from detseg.draw.classes import Color, Strip
from detseg.errors import DataError
from detseg.structures import IGNORE_LABEL, UInt8Array

_WORTH_A_LOOK = 480  # pixels of the longer side below which names and lines are hard to read

_LEGEND_WIDTH = 240  # pixels that names need, be the picture narrower
_CELL_SIDE = 640
_PAPER: Color = (255, 255, 255)
_IGNORE_COLOR = (224, 224, 192)  # as VOC paints its void


def check_image(image: UInt8Array) -> None:
    """ValueError for what is not (H, W, 3) uint8."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image: expected uint8 of shape (H, W, 3), got {image.dtype} of shape {image.shape}")


def check_labels(labels: UInt8Array) -> None:
    """ValueError for what is not (H, W) uint8."""
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ValueError(f"labels: expected uint8 of shape (H, W), got {labels.dtype} of shape {labels.shape}")


def enlarged(image: UInt8Array, scale: int | None) -> UInt8Array:
    """A copy of an image ``scale`` times as large; None: only small ones are enlarged, 16 times at most."""
    height, width, _ = image.shape
    scale = min(max(round(_WORTH_A_LOOK / max(height, width, 1)), 1), 16) if scale is None else scale
    if scale == 1 or not image.size:
        return image.copy()
    return np.asarray(cv2.resize(image, (width * scale, height * scale), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def greyed(image: UInt8Array) -> UInt8Array:
    """An image without colour, (H, W, 3), so that what is drawn on it stands out."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), dtype=np.uint8)


def draw_legend(
    image: UInt8Array, entries: Sequence[tuple[str, str, Color]], letters_hw: tuple[int, int] | None = None
) -> UInt8Array:
    """A picture with a legend below it: nothing of the picture is covered, and of a small one the legend is wider, so
    that it can be read.

    Args:
        image: (H, W, 3) uint8 RGB.
        entries: name, a note after it (may be empty) and colour of each entry, in the order wanted.
        letters_hw: height and width, pixels, of a picture that the letters suit; None: of ``image``.

    Returns:
        (H + L, M, 3) uint8 RGB, the picture at its top left. L is 0 without entries, else as many rows of strips as the
        entries need; M is W, or what the widest entry needs, but not more than 240 pixels, if W is less.

    Raises:
        ValueError: ``image`` is not (H, W, 3) uint8.
    """
    check_image(image)
    if not entries:
        return image.copy()
    height, width, _ = image.shape
    letters_h, letters_w = letters_hw or (height, width)
    strips = [Strip.lay_out(name, note, (letters_h, max(letters_w, _LEGEND_WIDTH))) for name, note, _ in entries]
    width = max([width, *(strip.width for strip in strips if width < _LEGEND_WIDTH)])
    gap = strips[0].pad
    placed: list[tuple[int, int]] = []
    left, top = 0, height + gap
    for strip in strips:
        if left and left + strip.width > width:
            left, top = 0, top + strip.height + gap
        placed.append((left, top))
        left += strip.width + gap
    canvas = Image.new("RGB", (width, top + strips[-1].height + gap), _PAPER)
    canvas.paste(Image.fromarray(image), (0, 0))
    for strip, (x, y), (_, _, color) in zip(strips, placed, entries, strict=True):
        strip.draw(ImageDraw.Draw(canvas), x, y, color)
    return np.array(canvas)


def contact_sheet(
    images: Sequence[UInt8Array],
    columns: int,
    titles: Sequence[str] = (),
    legend: Sequence[tuple[str, str, Color]] = (),
) -> UInt8Array:
    """Many pictures on one, row by row, in cells of the size of the largest.

    Args:
        images: at least one (H, W, 3) uint8 RGB; sizes may differ, smaller ones are centred in their cells, and those
            whose longer side has more than 640 pixels are scaled down to them.
        columns: pictures in a row, at least 1.
        titles: above the columns, from left to right; a sheet of fewer columns takes the first ones.
        legend: below the sheet, see ``draw_legend``.

    Returns:
        (H, W, 3) uint8 RGB; fewer pictures than ``columns`` make one shorter row.

    Raises:
        ValueError: no images, one that is not (H, W, 3) uint8, or no columns.
    """
    if not images or columns < 1:
        raise ValueError(f"expected images and columns >= 1, got {len(images)} images and {columns}")
    for image in images:
        check_image(image)
    shown = [_shrunk(image) for image in images]
    height, width = max(image.shape[0] for image in shown), max(image.shape[1] for image in shown)
    columns, gap = min(columns, len(images)), max(2, max(height, width) // 80)
    letters_hw = (height * 3 // 2, width * 3 // 2)
    strips = [Strip.lay_out(title, "", letters_hw) for title in titles[:columns]]
    width = max([width, *(strip.width for strip in strips)])
    top = gap + (strips[0].height if strips else 0)
    rows = math.ceil(len(images) / columns)
    sheet_hw = (top + rows * (height + gap), gap + columns * (width + gap))
    sheet = np.full((*sheet_hw, 3), _PAPER, dtype=np.uint8)
    for i, image in enumerate(shown):
        y = top + i // columns * (height + gap) + (height - image.shape[0]) // 2
        x = gap + i % columns * (width + gap) + (width - image.shape[1]) // 2
        sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
    canvas = Image.fromarray(sheet)
    for i, strip in enumerate(strips):
        strip.draw(ImageDraw.Draw(canvas), gap + i * (width + gap), gap // 2, _PAPER)
    return draw_legend(np.array(canvas), legend, letters_hw)


def _shrunk(image: UInt8Array) -> UInt8Array:
    scale = _CELL_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    wh = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, wh, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def can_be_written(path: Path) -> bool:
    """Whether the suffix of a file is that of a format that ``write_image`` knows."""
    return path.suffix.isascii() and bool(cv2.haveImageWriter(f"image{path.suffix}"))


def write_image(path: Path, image: UInt8Array) -> None:
    """Write an image, and its folder where there is none.

    OpenCV only encodes, as names that are no UTF-8 crash it.

    Args:
        path: the file; an existing one is replaced.  Its suffix is that of a format that ``can_be_written``.
        image: (H, W, 3) uint8 RGB.

    Raises:
        DataError: it could not be written.
    """
    if not cv2.haveImageWriter(f"image{path.suffix}"):
        what = f"the suffix {path.suffix!r} is no image format that can be written" if path.suffix else "has no suffix"
        raise DataError(f"{path}: {what}; give it .jpg, .png, .webp, .bmp or .tif")
    with write_errors(path):
        try:
            encoded, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        except cv2.error as error:
            raise OSError(str(error)) from error
        if not encoded:
            raise OSError("it could not be encoded")
        path.write_bytes(data.tobytes())


def write_index_png(path: Path, labels: UInt8Array, palette: UInt8Array, values: Sequence[int] | None = None) -> None:
    """Write what ``index_png`` gives; an existing file is replaced, a missing folder is made.

    Raises:
        ValueError: as of ``index_png``.
        DataError: the file could not be written.
    """
    data = index_png(labels, palette, values)
    with write_errors(path):
        path.write_bytes(data)


def index_png(labels: UInt8Array, palette: UInt8Array, values: Sequence[int] | None = None) -> bytes:
    """Labels as an 8-bit PNG with a palette, the form of VOC's masks; ``IGNORE_LABEL`` is shown as VOC's void.

    Args:
        labels: (H, W) uint8.
        palette: (C, 3) uint8 RGB, the colour of each label.
        values: C different numbers, 0 to 255, to write for the labels; None: the labels themselves.

    Raises:
        ValueError: wrong shape or dtype, a label that the palette has no colour for, or values that are not as above.
    """
    check_labels(labels)
    if palette.ndim != 2 or palette.shape[1] != 3 or palette.dtype != np.uint8 or len(palette) > IGNORE_LABEL:
        raise ValueError(
            f"palette: expected uint8 of shape (C, 3), C at most {IGNORE_LABEL}, got {palette.dtype} of {palette.shape}"
        )
    unknown = [label for label in np.unique(labels).tolist() if len(palette) <= label != IGNORE_LABEL]
    if unknown:
        raise ValueError(f"labels: expected below {len(palette)} or {IGNORE_LABEL}, got {unknown[0]}")
    written = list(range(len(palette)) if values is None else values)
    if len(written) != len(palette) or len({*written, *range(256)}) != 256 or len(set(written)) != len(written):
        raise ValueError(f"values: expected {len(palette)} different numbers from 0 to 255, got {written}")
    full = np.zeros((256, 3), dtype=np.uint8)  # all 256 colours, or Pillow would pack several labels into a byte
    full[IGNORE_LABEL] = _IGNORE_COLOR
    full[written] = palette
    value_of = np.full(256, IGNORE_LABEL, dtype=np.uint8)
    value_of[: len(written)] = written
    indexed = Image.fromarray(value_of[labels])
    indexed.putpalette(full.tobytes())
    buffer = BytesIO()
    indexed.save(buffer, format="PNG")
    return buffer.getvalue()
