"""Boxes with their classes and scores on a picture, and many pictures on one sheet.

Lines and letters grow with the picture, so that a drawing reads alike at 160 and at 4000 pixels.  Pictures are
(H, W, 3) uint8 RGB arrays; what is passed in is never changed.  N counts boxes.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from detseg.ops.letterbox import PAD_VALUE, Letterbox
from detseg.structures import Detections, UInt8Array

Color = tuple[int, int, int]

# Each colour lies as far as can be (CIE Lab) from all before it, among those light and vivid enough to show on a photo.
_PALETTE = bytes.fromhex(
    """
    f01e1e 00ff00 2d4bff 2dc3d2 ffd200 ff87d2 2d7800 c3875a 1e96ff ff00ff 0fffa5 e1f096 96d200 d2005a ff8700 963cb4
    00785a ff00b4 8769a5 968700 b45a69 87f0c3 b44b0f 00c32d 9600ff 87c3ff f0c3ff 7878ff 87a569 ff78ff ff7869 0069a5
    2db469 ffc369 96f078 b42d87 ffa5b4 d296ff b45aff 78692d 96b43c c300c3 00ffff e1f05a 96ff00 c31e2d d29600 ff6996
    00b496 a5690f ff965a 00ff69 0096c3 c378a5 ff5a00 ff004b c3b469 f0f000 5a69c3 5aa500 a5a5f0 b44b3c d2c34b f00087
    ffb496 00ffd2 87ff5a 78872d a5e196 c369c3 4b783c 69a54b c31ef0 694be1 1ed269 f05ac3 9669d2 4bd2ff 964b87 0f96e1
    """
)

# Pillow's own font holds little more than ASCII; beyond it, the first of these that is installed and has every letter.
_WIDE_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc")


def class_color(label: int) -> Color:
    """The colour of a class, RGB in 0..255: the same for a label in every picture; they repeat after 80 classes."""
    start = 3 * label % len(_PALETTE)
    return _PALETTE[start], _PALETTE[start + 1], _PALETTE[start + 2]


def draw_detections(image: UInt8Array, detections: Detections) -> UInt8Array:
    """A copy of an image with detections drawn on it, the best on top.

    Args:
        image: (H, W, 3) uint8 RGB.
        detections: N boxes in pixels of ``image``; without a class table the labels' numbers are written.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: ``image`` is not (H, W, 3) uint8, or a box is not finite.
    """
    found = detections.cpu()
    return draw_boxes(image, found.boxes.numpy(), found.labels.tolist(), found.classes.names, found.scores.tolist())


def draw_boxes(
    image: UInt8Array,
    boxes: npt.ArrayLike,
    labels: npt.ArrayLike,
    names: Sequence[str],
    scores: npt.ArrayLike | None = None,
) -> UInt8Array:
    """A copy of an image with boxes drawn on it, each with the name of its class and its score.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) xyxy in pixels of ``image``; what lies outside is cut off at its border.
        labels: (N,) integers.
        names: the name of each class, by label; empty: the labels' numbers are written.
        scores: (N,) in [0, 1], drawn from low to high so that the best lie on top; None: drawn in the order given.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: ``image`` is not (H, W, 3) uint8, a box is not finite, a label has no name, or lengths differ.
    """
    _check_image(image)
    xyxy = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if not np.isfinite(xyxy).all():
        raise ValueError(f"boxes: expected finite numbers, got {xyxy[~np.isfinite(xyxy).all(axis=1)][0].tolist()}")
    numbers = [int(label) for label in np.asarray(labels).reshape(-1)]
    values = None if scores is None else np.asarray(scores, dtype=np.float64).reshape(-1)
    if len(numbers) != len(xyxy) or (values is not None and len(values) != len(xyxy)):
        raise ValueError(f"expected a label and a score for each of {len(xyxy)} boxes, got {len(numbers)} labels")
    texts = [_name(label, names) for label in numbers]
    notes = [""] * len(texts) if values is None else [f" {value:.2f}" for value in values]

    picture = Image.fromarray(image)
    canvas = ImageDraw.Draw(picture)
    order = list(range(len(xyxy))) if values is None else np.argsort(values, kind="stable").tolist()
    corners = [_draw_rectangle(canvas, xyxy[i], class_color(numbers[i])) for i in order]
    for i, corner in zip(order, corners, strict=True):  # after every rectangle, so that no line crosses a text
        _draw_label(canvas, texts[i], notes[i], corner, class_color(numbers[i]))
    return np.array(picture)


def contact_sheet(images: Sequence[UInt8Array], columns: int, cell: int) -> UInt8Array:
    """Many pictures on one, row by row, each scaled to fit a square cell.

    Args:
        images: at least one (H, W, 3) uint8 RGB; sizes may differ.
        columns: pictures in a row, at least 1.
        cell: side of a cell in pixels, at least 8.

    Returns:
        (rows * cell, columns * cell, 3) uint8 RGB; fewer pictures than ``columns`` make one shorter row.

    Raises:
        ValueError: no images, one that is not (H, W, 3) uint8, or a size below its minimum.
    """
    if not images or columns < 1 or cell < 8:
        raise ValueError(f"expected images, columns >= 1 and cell >= 8, got {len(images)} images, {columns} and {cell}")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    sheet = np.full((rows * cell, columns * cell, 3), PAD_VALUE, dtype=np.uint8)
    inner = cell - 4  # leaves a thin frame between neighbours
    for i, image in enumerate(images):
        _check_image(image)
        height, width, _ = image.shape
        top, left = i // columns * cell + 2, i % columns * cell + 2
        fitted = Letterbox.fit((height, width), (inner, inner)).apply(image)
        sheet[top : top + inner, left : left + inner] = fitted
    return sheet


def _check_image(image: UInt8Array) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image: expected uint8 of shape (H, W, 3), got {image.dtype} of shape {image.shape}")


def _name(label: int, names: Sequence[str]) -> str:
    if not names:
        return str(label)
    if not 0 <= label < len(names):
        raise ValueError(f"label {label} has no name: expected 0 to {len(names) - 1}")
    return names[label]


def _draw_rectangle(canvas: ImageDraw.ImageDraw, xyxy: npt.NDArray[np.float64], color: Color) -> tuple[int, int]:
    """Draw the outline inside the box's own pixels; returns its top left pixel."""
    width, height = canvas.im.size
    left, top = (min(max(round(float(v)), 0), side - 1) for v, side in zip(xyxy[:2], (width, height), strict=True))
    # Half-open corners: the last pixel of a box is the one before x2, y2.
    right = min(max(round(float(xyxy[2])) - 1, left), width - 1)
    bottom = min(max(round(float(xyxy[3])) - 1, top), height - 1)
    line = max(1, round(math.sqrt(width * height) / 320))
    canvas.rectangle((left, top, right, bottom), outline=color, width=line)
    return left, top


def _draw_label(canvas: ImageDraw.ImageDraw, name: str, note: str, corner: tuple[int, int], color: Color) -> None:
    """Write name and note on a filled strip above the box's top left corner; inside the picture at any rate."""
    width, height = canvas.im.size
    size = max(8, round(math.sqrt(width * height) / 45))
    font, text = _fit(name, note, size, width)
    pad = size // 8
    ascent, descent = (font.getbbox("Ag")[i] for i in (1, 3))
    strip_w = math.ceil(font.getlength(text)) + 2 * pad
    strip_h = math.ceil(descent - ascent) + 2 * pad
    left = max(0, min(corner[0], width - strip_w))
    above = corner[1] - strip_h
    top = above if above >= 0 else max(0, min(corner[1], height - strip_h))
    canvas.rectangle((left, top, left + strip_w - 1, top + strip_h - 1), fill=color)
    brightness = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    canvas.text((left + pad, top + pad - ascent), text, font=font, fill="black" if brightness > 140 else "white")


def _fit(name: str, note: str, size: int, width: int) -> tuple[ImageFont.FreeTypeFont, str]:
    """The font and the text that fit a picture of ``width`` pixels: first the letters shrink, then the name is cut."""
    written, font = _written(" ".join(name.split()), size)
    while font.getlength(written + note) > width - size and size > 8:
        size -= 1
        written, font = _written(written, size)
    text = written + note
    while font.getlength(text) > width - 4 and written:
        written = written[:-1]
        text = f"{written}...{note}"
    return font, text


def _written(text: str, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """What can be written of a text, and in which font; a letter that no font has becomes its code, as ``\\u4e2d``."""
    own = _own_font(size)
    if text.isascii() and text.isprintable():  # nearly always, and looking glyphs up is slow
        return text, own
    for font in (own, *(_installed_font(name, size) for name in _WIDE_FONTS)):
        if font is not None and not _missing(text, font):
            return text, font
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    missing = _missing(plain, own)
    return "".join(c.encode("unicode_escape").decode() if c in missing else c for c in plain), own


@lru_cache(maxsize=64)
def _own_font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType; install the published wheel of pillow")
    return font


@lru_cache(maxsize=64)
def _installed_font(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:  # not on this machine
        return None


def _missing(text: str, font: ImageFont.FreeTypeFont) -> set[str]:
    """The characters that the font draws as its box for unknown ones (that of a code that is no character)."""
    unknown = bytes(font.getmask("\uffff"))
    return {c for c in set(text) if not c.isspace() and bytes(font.getmask(c)) == unknown}
