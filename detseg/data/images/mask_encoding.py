"""How mask pictures say which class a pixel has: by value or by colour.

Letters for dimensions: C classes, H and W pixels, K colours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np

from detseg.data.annotations.classes import listed, printable
from detseg.errors import ClassTableError, shown
from detseg.structures import IGNORE_LABEL, MAX_CLASSES, BoolArray, ClassTable, IntArray, UInt8Array

Rgb = tuple[int, int, int]

_BLOCK_PIXELS = 1 << 20


@dataclass(frozen=True, eq=False)
class MaskEncoding:
    """The class of each pixel value, or of each colour, of mask pictures.

    Attributes:
        classes: the C classes.
        values: value of each class in label order, 0 to 255; None: the label itself.
        ignore_index: value that counts nowhere; None: there is none.
        colors: red, green and blue of each class in label order, 0 to 255; None: masks hold values.  With colours,
            ``values`` must be None, and ``ignore_index`` says nothing.
        ignore_colors: colours that count nowhere.
        table: (256,) uint8, the label of each value.
        unknown: (256,) uint8, 1 for each value that means nothing.
        codes: (K,) int64, the colours as 65536 R + 256 G + B, sorted.
        code_labels: (K,) uint8, their labels.

    Raises:
        ClassTableError: the values or colours are not one a class, not all different, or more than a map can hold.
    """

    classes: ClassTable
    values: tuple[int, ...] | None
    ignore_index: int | None
    colors: tuple[Rgb, ...] | None = None
    ignore_colors: tuple[Rgb, ...] = ()
    table: UInt8Array = field(init=False, repr=False, compare=False)
    unknown: UInt8Array = field(init=False, repr=False, compare=False)
    codes: IntArray = field(init=False, repr=False, compare=False)
    code_labels: UInt8Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check()
        table, unknown = np.full(256, IGNORE_LABEL, dtype=np.uint8), np.ones(256, dtype=np.uint8)
        for label, value in enumerate(self.class_values):
            table[value], unknown[value] = label, 0
        if self.ignore_index is not None:
            unknown[self.ignore_index] = 0
        colors = [*(self.colors or ()), *self.ignore_colors]
        labels = np.full(len(colors), IGNORE_LABEL, dtype=np.uint8)
        labels[: len(self.colors or ())] = np.arange(len(self.colors or ()))
        codes = color_codes(np.array(colors, dtype=np.uint8).reshape(1, -1, 3))[0]
        order = np.argsort(codes)
        for name, array in (("table", table), ("unknown", unknown), ("codes", codes[order])):
            object.__setattr__(self, name, array)
        object.__setattr__(self, "code_labels", labels[order])

    @property
    def class_values(self) -> tuple[int, ...]:
        """The value of each class, in label order."""
        return tuple(range(len(self.classes))) if self.values is None else self.values

    def labels_of_values(self, values: UInt8Array) -> UInt8Array:
        """(H, W) uint8 values → (H, W) uint8 labels; where the value means nothing, ``IGNORE_LABEL``."""
        return np.asarray(cv2.LUT(values, self.table), dtype=np.uint8)

    def unknown_values(self, values: UInt8Array) -> bool:
        """Whether any of (H, W) uint8 values means nothing."""
        return bool(cv2.LUT(values, self.unknown).any())

    def labels_of_colors(self, image: UInt8Array) -> tuple[UInt8Array, BoolArray]:
        """(H, W, 3) uint8 RGB → (H, W) uint8 labels, and (H, W) bool: where the colour means something."""
        labels, known = np.empty(image.shape[:2], dtype=np.uint8), np.empty(image.shape[:2], dtype=np.bool_)
        for rows in row_blocks(image):
            codes = color_codes(image[rows])
            place = np.searchsorted(self.codes, codes).clip(max=len(self.codes) - 1)
            labels[rows], known[rows] = self.code_labels[place], self.codes[place] == codes
        return labels, known

    def _check(self) -> None:
        num = len(self.classes)
        if not 2 <= num <= MAX_CLASSES:
            mend = f"; name the background, too: [background, {printable(self.classes.names[0])}]" if num == 1 else ""
            raise ClassTableError(f"data.classes: a mask tells 2 to {MAX_CLASSES} classes apart, got {num}{mend}")
        if self.colors is not None:
            self._check_colors(num)
        elif self.ignore_colors:
            raise ClassTableError("data.ignore_colors: give data.mask_colors, too, the colour of each class")
        values = self.class_values
        if len(values) != num or len(set(values)) != num or not all(0 <= value <= 255 for value in values):
            raise ClassTableError(
                f"data.mask_values: expected {num} different values from 0 to 255, one for each of the classes "
                f"{listed(self.classes.names)}, got {list(values)}"
            )
        if self.ignore_index is not None and not 0 <= self.ignore_index <= 255:
            raise ClassTableError(f"data.ignore_index: expected a value from 0 to 255, got {self.ignore_index}")
        if self.colors is None and self.ignore_index in values:
            name = self.classes.names[values.index(self.ignore_index)]
            others = [value for value in range(num + 1) if value != self.ignore_index]
            mend = f", or the values of the classes, as data.mask_values={others[:num]}" if self.values is None else ""
            raise ClassTableError(
                f"data.ignore_index: {self.ignore_index} is the value of the class {shown(name)}, so it cannot count "
                f"nowhere, too; set data.ignore_index=null or to another value{mend}"
            )

    def _check_colors(self, num: int) -> None:
        if self.values is not None:
            raise ClassTableError("data.mask_values: masks are either values or colours; leave out one of the two")
        colors = [*(self.colors or ()), *self.ignore_colors]
        for color in colors:
            if len(color) != 3 or not all(0 <= part <= 255 for part in color):
                raise ClassTableError(f"data.mask_colors: expected [R, G, B] from 0 to 255, got {list(color)}")
        if len(colors) - len(self.ignore_colors) != num:
            raise ClassTableError(
                f"data.mask_colors: expected {num} colours, one for each of the classes {listed(self.classes.names)}, "
                f"got {len(colors) - len(self.ignore_colors)}"
            )
        twice = sorted({tuple(color) for color in colors if colors.count(color) > 1})
        if twice:
            raise ClassTableError(f"data.mask_colors, data.ignore_colors: {twice[0]} stands there more than once")


def row_blocks(image: UInt8Array) -> Iterator[slice]:
    """The rows of an (H, W, 3) image in blocks: codes take 16 times the memory of labels, and as much on the way."""
    step = max(_BLOCK_PIXELS // max(image.shape[1], 1), 1)
    for start in range(0, image.shape[0], step):
        yield slice(start, start + step)


def color_codes(image: UInt8Array) -> IntArray:
    """(H, W, 3) uint8 → (H, W) int64, 65536 R + 256 G + B."""
    red, green, blue = (image[..., channel].astype(np.int64) for channel in range(3))
    return (red << 16) | (green << 8) | blue
