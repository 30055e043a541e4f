"""How mask images say which class a pixel has: by value or by colour."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from detseg.errors import ClassTableError
from detseg.messages import listed, printable, shown
from detseg.structures import IGNORE_LABEL, MAX_CLASSES, BoolArray, ClassTable, IntArray, UInt8Array

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class MaskEncoding:
    """The class of each pixel value, or of each colour, of mask images.

    Attributes:
        classes: the classes.
        values: value of each class in label order, 0 to 255; None: the label itself.
        ignore_index: value of pixels to ignore; None: there is none.
        colors: red, green and blue of each class in label order, 0 to 255; None: masks hold values. With colours,
            ``values`` must be None, and ``ignore_index`` has no effect.
        ignore_colors: colours of pixels to ignore.

    Raises:
        ClassTableError: the values or colours are not one per class, not all different, or out of range.
    """

    classes: ClassTable
    values: tuple[int, ...] | None
    ignore_index: int | None
    colors: tuple[Rgb, ...] | None = None
    ignore_colors: tuple[Rgb, ...] = ()

    def __post_init__(self) -> None:
        num, names, values = len(self.classes), self.classes.names, self.class_values
        if not 2 <= num <= MAX_CLASSES:
            fix = f"; name the background, too: [background, {printable(names[0])}]" if num == 1 else ""
            raise ClassTableError(f"data.classes: expected 2 to {MAX_CLASSES} classes, got {num}{fix}")
        if self.ignore_index is not None and not 0 <= self.ignore_index <= 255:
            raise ClassTableError(f"data.ignore_index: expected a value from 0 to 255, got {self.ignore_index}")
        if self.colors is not None:
            self._check_colors(self.colors)
            return
        if self.ignore_colors:
            raise ClassTableError("data.ignore_colors: give data.mask_colors, too, the colour of each class")
        if not len(values) == len(set(values)) == num or not all(0 <= value <= 255 for value in values):
            raise ClassTableError(
                f"data.mask_values: expected {num} different values from 0 to 255, one for each of the classes "
                f"{listed(names)}, got {list(values)}"
            )
        if self.ignore_index in values:
            name = shown(names[values.index(self.ignore_index)])
            raise ClassTableError(
                f"data.ignore_index: {self.ignore_index} is the value of the class {name}; set data.ignore_index=null "
                "or to another value, or give the value of each class in data.mask_values"
            )

    def _check_colors(self, colors: tuple[Rgb, ...]) -> None:
        if self.values is not None:
            raise ClassTableError("data.mask_values: masks are either values or colours; leave out one of the two")
        for color in (every := [*colors, *self.ignore_colors]):
            if len(color) != 3 or not all(0 <= part <= 255 for part in color):
                raise ClassTableError(f"data.mask_colors: expected [R, G, B] from 0 to 255, got {list(color)}")
            if every.count(color) > 1:
                raise ClassTableError(f"data.mask_colors, data.ignore_colors: {color} is listed more than once")
        if len(colors) != len(self.classes):
            raise ClassTableError(
                f"data.mask_colors: expected {len(self.classes)} colours, one for each of the classes "
                f"{listed(self.classes.names)}, got {len(colors)}"
            )

    @property
    def class_values(self) -> tuple[int, ...]:
        """The value of each class, in label order."""
        return tuple(range(len(self.classes))) if self.values is None else self.values

    def labels_of_values(self, values: UInt8Array) -> tuple[UInt8Array, BoolArray]:
        """(H, W) uint8 values → (H, W) uint8 labels, and (H, W) bool: where the value is a class or to be ignored."""
        table, known = np.full(256, IGNORE_LABEL, dtype=np.uint8), np.zeros(256, dtype=np.uint8)
        table[[*self.class_values]] = range(len(self.classes))
        known[[*self.class_values]] = 1
        if self.ignore_index is not None:
            known[self.ignore_index] = 1
        return np.asarray(cv2.LUT(values, table), dtype=np.uint8), np.asarray(cv2.LUT(values, known)).view(np.bool_)

    def labels_of_colors(self, image: UInt8Array) -> tuple[UInt8Array, BoolArray]:
        """(H, W, 3) uint8 RGB → (H, W) uint8 labels, and (H, W) bool: where the colour is listed."""
        colors = np.array([*(self.colors or ()), *self.ignore_colors], dtype=np.uint8)
        order = np.argsort(color_codes(colors))
        listed_codes = color_codes(colors)[order]
        label_of = np.where(order < len(self.classes), order, IGNORE_LABEL).astype(np.uint8)
        labels, known = np.empty(image.shape[:2], dtype=np.uint8), np.empty(image.shape[:2], dtype=np.bool_)
        for rows in row_blocks(image):
            codes = color_codes(image[rows])
            place = np.searchsorted(listed_codes, codes).clip(max=len(order) - 1)
            labels[rows], known[rows] = label_of[place], listed_codes[place] == codes
        return labels, known


def row_blocks(image: UInt8Array) -> Iterator[slice]:
    """The rows of an (H, W, 3) image in blocks, since codes take 16 times the memory of labels."""
    step = max((1 << 20) // max(image.shape[1], 1), 1)
    for start in range(0, image.shape[0], step):
        yield slice(start, start + step)


def color_codes(colors: UInt8Array) -> IntArray:
    """(..., 3) uint8 RGB → (...) int64, 65536 R + 256 G + B."""
    codes: IntArray = colors.astype(np.int64) @ np.array([65536, 256, 1], dtype=np.int64)
    return codes
