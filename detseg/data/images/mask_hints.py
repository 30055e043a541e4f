"""What messages say of masks whose values or colours are not listed: how often each occurs, and the likely fix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from detseg.data.images.mask_encoding import MaskEncoding, Rgb, color_codes, row_blocks
from detseg.messages import printable
from detseg.structures import BoolArray, UInt8Array

_MAX_SHOWN = 8
"""So many values or colours of a mask are shown; more unlisted ones, and more than classes, are hardly classes."""


def color_histogram(image: UInt8Array) -> str:
    """The colours of (H, W, 3) uint8 RGB pixels and how often they occur, the most frequent first."""
    return _histogram(_count_colors(image, np.ones(image.shape[:2], dtype=np.bool_)))


def describe_unknown_values(values: UInt8Array, encoding: MaskEncoding) -> str:
    """What is wrong with a mask, (H, W) uint8, that holds values outside the table, and the likely fix."""
    found, counts = (column.tolist() for column in np.unique(values, return_counts=True))
    unknown = [value for value in found if value not in (*encoding.class_values, encoding.ignore_index)]
    unknown_first = sorted(zip(found, counts, strict=True), key=lambda pair: pair[0] not in unknown)
    ignored = "" if encoding.ignore_index is None else f", and {encoding.ignore_index} for pixels to ignore"
    return (
        f"values {{{_first(found)}}} with {len(encoding.classes)} classes: {_fix_values(found, unknown, encoding)} "
        f"(found: {_histogram(unknown_first)}; expected: {_first(encoding.class_values)}{ignored})"
    )


def describe_unknown_colors(image: UInt8Array, known: BoolArray, encoding: MaskEncoding) -> str:
    """The colours of a mask, (H, W, 3) uint8 RGB, that are not listed, each with the nearest class, and the likely fix.

    ``known``: (H, W) bool, the pixels whose colour is listed; not all of them.
    """
    colors = _count_colors(image, ~known)
    table = np.array(encoding.colors)
    found = []
    for color, count in colors:
        nearest = int(((table - color) ** 2).sum(axis=1).argmin())
        name = printable(encoding.classes.names[nearest])
        found.append(f"{color} {_pixels(count)}, nearest {name} {tuple(table[nearest].tolist())}")
    fix = "name them in data.mask_colors, or in data.ignore_colors if their pixels are to be ignored"
    if (image[..., :1] == image).all():
        fix = f"the mask is grey: if its values are the labels, leave out data.mask_colors; else {fix}"
    elif len(colors) > max(_MAX_SHOWN, len(encoding.classes)):
        fix = f"so many suggest a mask resized with interpolation or saved with loss; make it again, or {fix}"
    return f"{len(colors)} colour(s) that are not listed: {_cut(found, '; ')}: {fix}"


def _fix_values(found: Sequence[int], unknown: Sequence[int], encoding: MaskEncoding) -> str:
    """The question or the advice that fits the values of a mask best; ``unknown`` are those outside the table."""
    num = len(encoding.classes)
    if num == 2 and len(found) == 2 and found[0] == 0:
        ignored = "" if encoding.ignore_index not in found else " data.ignore_index=null"
        return f"is {found[1]} the foreground? set data.mask_values=[0, {found[1]}]{ignored}"
    if len(unknown) > max(_MAX_SHOWN, num):
        return (
            "so many suggest a mask resized with interpolation or saved with loss, or one of object numbers; "
            "make it again from its source; or, if each is a class, name every class in data.classes"
        )
    if encoding.values is None and unknown == [num]:
        from_one = f"data.mask_values=[{_first(range(1, num + 1))}]"
        if 0 not in found:
            return f"do the values count from 1? set {from_one}"
        return (
            f"is {num} void? set data.ignore_index={num}; or is 0 void, or a background without a name? set "
            f"{from_one} data.ignore_index=0, or name it first in data.classes"
        )
    if encoding.ignore_index is None and len(unknown) == 1:
        return f"is {unknown[0]} void? set data.ignore_index={unknown[0]}"
    if len(found) == num:
        return f"are these the values of the classes? set data.mask_values={found}"
    return "name every class in data.classes, and in data.mask_values the value of each, if it is not 0, 1, 2, ..."


def _count_colors(image: UInt8Array, counted: BoolArray) -> list[tuple[Rgb, int]]:
    """The colours of some pixels of an image, the most frequent first, and how many pixels have each."""
    found: Counter[int] = Counter()
    for rows in row_blocks(image):
        codes, counts = np.unique(color_codes(image[rows])[counted[rows]], return_counts=True)
        found.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))
    return [((code >> 16, code >> 8 & 255, code & 255), count) for code, count in found.most_common()]


def _histogram(found: Sequence[tuple[object, int]]) -> str:
    """``0 (81.2 %), 255 (3 pixels)``: a percentage where it is 0.1 or more."""
    total = sum(count for _, count in found)
    parts = [f"{100 * count / total:.1f} %" if 1000 * count >= total else _pixels(count) for _, count in found]
    return _cut([f"{value} ({part})" for (value, _), part in zip(found, parts, strict=True)], ", ")


def _pixels(count: int) -> str:
    return "1 pixel" if count == 1 else f"{count} pixels"


def _cut(parts: Sequence[str], separator: str) -> str:
    more = [f"and {len(parts) - _MAX_SHOWN} more"] if len(parts) > _MAX_SHOWN else []
    return separator.join([*parts[:_MAX_SHOWN], *more])


def _first(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:_MAX_SHOWN])) + (f", ..., {values[-1]}" if len(values) > _MAX_SHOWN else "")
