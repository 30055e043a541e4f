"""Pictures as they are drawn on, and many of them on one sheet.

Pictures are (H, W, 3) uint8 RGB arrays; what is passed in is never changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from detseg.ops.letterbox import PAD_VALUE, Letterbox
from detseg.structures import UInt8Array


def check_picture(image: UInt8Array) -> None:
    """Refuse what is no picture.

    Raises:
        ValueError: ``image`` is not (H, W, 3) uint8.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image: expected uint8 of shape (H, W, 3), got {image.dtype} of shape {image.shape}")


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
        check_picture(image)
        height, width, _ = image.shape
        top, left = i // columns * cell + 2, i % columns * cell + 2
        fitted = Letterbox.fit((height, width), (inner, inner)).apply(image)
        sheet[top : top + inner, left : left + inner] = fitted
    return sheet
