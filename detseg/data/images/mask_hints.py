"""What is said of masks whose values or colours do not fit: a histogram, and the likely mend.

Letters for dimensions: H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.data.images.mask_encoding import MaskEncoding, color_codes, row_blocks
from detseg.messages import printable
from detseg.structures import BoolArray, IntArray, UInt8Array

_MAX_SHOWN = 8
"""So many values or colours of a mask are shown in a message."""
_MANY = 8
"""More unlisted values or colours than this, and than there are classes, are hardly classes that nobody listed."""


def value_histogram(values: npt.NDArray[Any]) -> str:
    """The values of a picture and how often they occur: ``0 (81.2 %), 255 (18.8 %)``; in order of value."""
    found, counts = np.unique(values, return_counts=True)
    return histogram([str(value) for value in found.tolist()], counts)


def describe_unknown_values(values: UInt8Array, encoding: MaskEncoding) -> str:
    """What is wrong with a mask that holds values outside the table, and the likely mend; without the file's name.

    Args:
        values: (H, W) uint8, some outside the table.
        encoding: the table.
    """
    found, counts = np.unique(values, return_counts=True)
    outside = encoding.unknown[found] == 1
    num = len(encoding.classes)
    ignored = "" if encoding.ignore_index is None else f", and {encoding.ignore_index} for what counts nowhere"
    order = np.concatenate([np.flatnonzero(outside), np.flatnonzero(~outside)])
    return (
        f"values {{{_runs(found.tolist())}}} with {num} classes: "
        f"{_value_mend(found.tolist(), found[outside].tolist(), encoding)} "
        f"(found: {histogram([str(value) for value in found[order].tolist()], counts[order])}; "
        f"expected: {_runs(sorted(encoding.class_values))}{ignored})"
    )


def _runs(values: Sequence[int]) -> str:
    """Ascending values, three and more in a row as ``0 to 10``."""
    parts: list[str] = []
    start = 0
    for place in range(1, len(values) + 1):
        if place < len(values) and values[place] == values[place - 1] + 1:
            continue
        run = values[start:place]
        parts += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else [str(value) for value in run]
        start = place
    return ", ".join(parts[:_MAX_SHOWN]) + (", ..." if len(parts) > _MAX_SHOWN else "")


def describe_unknown_colors(image: UInt8Array, known: BoolArray, encoding: MaskEncoding) -> str:
    """What is wrong with a mask that holds unlisted colours: the most frequent ones, each with the nearest class.

    Args:
        image: (H, W, 3) uint8 RGB.
        known: (H, W) bool, the pixels whose colour is listed; not all of them.
        encoding: the listed colours.
    """
    colors, counts = _color_counts(image, ~known)
    order = np.argsort(-counts, kind="stable")[:_MAX_SHOWN]
    table = np.array(encoding.colors, dtype=np.int64)
    found = []
    for code, count in zip(colors[order].tolist(), counts[order].tolist(), strict=True):
        color = (code >> 16, code >> 8 & 255, code & 255)
        nearest = int(((table - np.array(color)) ** 2).sum(axis=1).argmin())
        name = printable(encoding.classes.names[nearest])
        found.append(f"{color} {_pixels(count)}, nearest {name} {tuple(table[nearest].tolist())}")
    more = f"; and {len(colors) - len(order)} more" if len(colors) > len(order) else ""
    mend = "name them in data.mask_colors, or in data.ignore_colors if they are to count nowhere"
    if (image[..., :1] == image).all():
        mend = "the mask is grey: if its values are the labels, leave out data.mask_colors; else " + mend
    elif len(colors) > _many(encoding):
        mend = (
            "so many suggest a mask resized with interpolation or saved with loss; make it anew from its source; "
            f"or, if each of them means something, {mend}"
        )
    return f"{len(colors)} colour(s) that are not listed: {'; '.join(found)}{more}: {mend}"


def most_frequent_colors(image: UInt8Array) -> str:
    """The colours of (H, W, 3) uint8 RGB pixels, the most frequent first: ``(0, 0, 0) (81.2 %), ...``."""
    colors, counts = _color_counts(image, np.ones(image.shape[:2], dtype=np.bool_))
    order = np.argsort(-counts, kind="stable")
    names = [str((code >> 16, code >> 8 & 255, code & 255)) for code in colors[order].tolist()]
    return histogram(names, counts[order])


def _color_counts(image: UInt8Array, counted: BoolArray) -> tuple[IntArray, IntArray]:
    """The codes of the colours of some pixels of an image, ascending, and how many pixels have each."""
    found = [np.unique(color_codes(image[rows])[counted[rows]], return_counts=True) for rows in row_blocks(image)]
    colors, place = np.unique(np.concatenate([codes for codes, _ in found]), return_inverse=True)
    counts = np.zeros(len(colors), dtype=np.int64)
    np.add.at(counts, place, np.concatenate([numbers for _, numbers in found]))
    return colors, counts


def _value_mend(found: Sequence[int], unknown: Sequence[int], encoding: MaskEncoding) -> str:
    """The question or the advice that fits the values of a mask best; ``unknown`` are those outside the table."""
    num = len(encoding.classes)
    if num == 2 and len(found) == 2 and found[0] == 0:
        ignored = "" if encoding.ignore_index not in found else " data.ignore_index=null"
        return f"is {found[1]} the foreground? set data.mask_values=[0, {found[1]}]{ignored}"
    if len(unknown) > _many(encoding):
        return (
            "so many suggest a mask resized with interpolation or saved with loss, or one of object numbers; "
            "make it anew from its source; or, if each is a class, name every class in data.classes"
        )
    if unknown == [255] and encoding.ignore_index is None:
        return "is 255 void? set data.ignore_index=255"
    if encoding.values is None and unknown == [num]:
        if 0 not in found:
            return f"do the values count from 1? set data.mask_values={_from_one(num)}"
        return (
            f"is {num} void? set data.ignore_index={num}; or is 0 void, or a background without a name? set "
            f"data.mask_values={_from_one(num)} data.ignore_index=0, or name it first in data.classes"
        )
    if encoding.ignore_index is None and len(unknown) == 1:
        return f"is {unknown[0]} void? set data.ignore_index={unknown[0]}"
    if len(found) == num:
        return f"are these the values of the classes? set data.mask_values={list(found)}"
    return "name every class in data.classes, and in data.mask_values the value of each, if it is not 0, 1, 2, ..."


def _from_one(num: int) -> str:
    return str(list(range(1, num + 1))) if num <= _MAX_SHOWN else f"[1, 2, ..., {num}]"


def _many(encoding: MaskEncoding) -> int:
    return max(_MANY, len(encoding.classes))


def histogram(names: Sequence[str], counts: IntArray) -> str:
    """How often each of some values occurs, in the given order: ``0 (81.2 %), 255 (18.8 %)``; cut after eight.

    Args:
        names: what each value is called.
        counts: int64, pixels of each.
    """
    total = int(counts.sum())
    shown = [
        f"{name} ({_share(count, total)})" for name, count in zip(names[:_MAX_SHOWN], counts.tolist(), strict=False)
    ]
    more = f", and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return ", ".join(shown) + more


def _share(count: int, total: int) -> str:
    """A small number of pixels as such, a large one as its share."""
    share = 100 * count / total
    return _pixels(count) if share < 0.1 else f"{share:.1f} %"


def _pixels(count: int) -> str:
    return f"{count} pixel" if count == 1 else f"{count} pixels"
