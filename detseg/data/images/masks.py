"""Label maps from mask images: PNG, TIFF or BMP files with one value or one listed colour per pixel; GIF with colours.

A value is what the file stores: the index of a palette, the grey level, 0 or 1 in an image of 1 bit; of a colour image
whose channels are equal it is one of them. (Grey images of 2 and 4 bits are spread to 0 ... 255, as the PNG standard
says.) An EXIF orientation is applied as it is to images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageFile

from detseg.data.images.read import decode, open_image, pending_orientation, upright
from detseg.errors import ClassTableError, DataError
from detseg.messages import listed, printable, shown
from detseg.structures import IGNORE_LABEL, MAX_CLASSES, BoolArray, ClassTable, IntArray, UInt8Array

Rgb = tuple[int, int, int]
_VALUE_MODES, _COLOR_MODES = {"1", "L", "P"}, {"RGB", "RGBA", "RGBX"}
_NEARLY_GREY = 32  # greatest difference of the channels of a mask that is compressed with loss
_MAX_SHOWN = 8  # values or colours of a mask; more unlisted ones, and more than classes, are hardly classes
_INTERPOLATED = "so many suggest a mask resized with interpolation or saved with loss"


@dataclass(frozen=True)
class MaskEncoding:
    """The class of each pixel value, or of each colour, of mask images; a ClassTableError if these are not one per
    class, not all different, or out of range. With colours or a threshold, ``values`` must be None, and
    ``ignore_index`` has no effect."""

    classes: ClassTable
    values: tuple[int, ...] | None  # of each class in label order, 0 to 255; None: the label itself
    ignore_index: int | None  # value of pixels to ignore; None: there is none
    colors: tuple[Rgb, ...] | None = None  # of each class in label order, 0 to 255; None: masks hold values
    ignore_colors: tuple[Rgb, ...] = ()  # of pixels to ignore
    threshold: int | None = None  # of two classes: the least value of the second, 1 to 255; None: values are exact

    def __post_init__(self) -> None:
        num, names = len(self.classes), self.classes.names
        if self.threshold is not None:
            if num != 2 or self.values is not None or self.colors is not None:
                what = f"expected two classes, and neither data.mask_values nor data.mask_colors, got {num} classes"
                raise ClassTableError(f"data.mask_threshold: {what}; leave it out")
            return
        if not 2 <= num <= MAX_CLASSES:
            fix = f"; name the background, too: [background, {printable(names[0])}]" if num == 1 else ""
            raise ClassTableError(f"data.classes: expected 2 to {MAX_CLASSES} classes, got {num}{fix}")
        if self.colors is not None and self.values is not None:
            raise ClassTableError("data.mask_values: masks are either values or colours; leave out one of the two")
        if self.colors is None and self.ignore_colors:
            raise ClassTableError("data.ignore_colors: give data.mask_colors, too, the colour of each class")
        key, ignore_key, kind = "data.mask_values", "data.ignore_index", "values from 0 to 255"
        given: Sequence[Any] = self.class_values
        ignored: Sequence[Any] = () if self.ignore_index is None else (self.ignore_index,)
        if self.colors is not None:
            key, ignore_key, kind = "data.mask_colors", "data.ignore_colors", "colours [R, G, B] from 0 to 255"
            given, ignored = self.colors, self.ignore_colors
        shape = () if self.colors is None else (3,)
        for where, found in ((key, given), (ignore_key, ignored)):
            if any(np.shape(one) != shape or np.min(one) < 0 or np.max(one) > 255 for one in found):
                raise ClassTableError(f"{where}: expected {kind}, got {list(found)}")
        if not len(given) == len(set(given)) == num:
            what = f"{num} different {kind}, one for each of the classes {listed(names)}"
            raise ClassTableError(f"{key}: expected {what}, got {list(given)}")
        for one in set(ignored) & set(given):
            raise ClassTableError(
                f"{ignore_key}: {one} is that of the class {shown(names[given.index(one)])}; leave it out "
                f"(data.ignore_index=null), or give that of each class in {key}"
            )

    @property
    def class_values(self) -> tuple[int, ...]:
        """The value of each class, in label order."""
        return tuple(range(len(self.classes))) if self.values is None else self.values

    def labels_of_values(self, values: UInt8Array) -> tuple[UInt8Array, BoolArray]:
        """(H, W) uint8 values → (H, W) uint8 labels, and (H, W) bool: where the value is a class or to be ignored."""
        if self.threshold is not None:
            return (values >= self.threshold).astype(np.uint8), np.ones(values.shape, dtype=np.bool_)
        table, known = np.full(256, IGNORE_LABEL, dtype=np.uint8), np.zeros(256, dtype=np.uint8)
        table[[*self.class_values]] = range(len(self.classes))
        known[[*self.class_values]] = 1
        if self.ignore_index is not None:
            known[self.ignore_index] = 1
        return np.asarray(cv2.LUT(values, table), dtype=np.uint8), np.asarray(cv2.LUT(values, known)).view(np.bool_)

    def labels_of_colors(self, image: UInt8Array) -> tuple[UInt8Array, BoolArray]:
        """(H, W, 3) uint8 RGB → (H, W) uint8 labels, and (H, W) bool: where the colour is listed."""
        colors = np.array([*(self.colors or ()), *self.ignore_colors], dtype=np.uint8)
        order = np.argsort(_color_codes(colors))
        listed_codes = _color_codes(colors)[order]
        label_of = np.where(order < len(self.classes), order, IGNORE_LABEL).astype(np.uint8)
        labels, known = np.empty(image.shape[:2], dtype=np.uint8), np.empty(image.shape[:2], dtype=np.bool_)
        step = max((1 << 20) // max(image.shape[1], 1), 1)  # rows at once: codes take 16 times the memory of labels
        for rows in (slice(start, start + step) for start in range(0, len(image), step)):
            codes = _color_codes(image[rows])
            place = np.searchsorted(listed_codes, codes).clip(max=len(order) - 1)
            labels[rows], known[rows] = label_of[place], listed_codes[place] == codes
        return labels, known


_ANY_VALUE = MaskEncoding(ClassTable(tuple(f"{value}" for value in range(IGNORE_LABEL))), None, IGNORE_LABEL)
"""Labels that are the values."""

_SOFT = MaskEncoding(ClassTable(("background", "foreground")), None, None, threshold=128)
"""Two classes with soft edges."""


def read_mask(path: Path | str, encoding: MaskEncoding) -> UInt8Array:
    """Decode a mask image to (H, W) uint8 labels, ``IGNORE_LABEL`` where none counts; upright. With colours, palette
    and grey images are taken by the colour that they show.

    A DataError if the file is missing, damaged, compressed with loss, animated, of more than 8 bits, transparent, holds
    colours where values are expected, or values or colours that are not listed.
    """
    path = Path(path)
    with open_image(path, "mask") as (header, stream):
        orientation = pending_orientation(header)
        _decode(path, header, stream, encoding)
        if encoding.colors is None:
            values = _values(header)
            labels, known = encoding.labels_of_values(values)
            if not known.all():
                raise DataError(f"{path}: {_describe_unknown_values(values, encoding)}")
        else:
            colors = np.asarray(header.convert("RGB"))
            labels, known = encoding.labels_of_colors(colors)
            if not known.all():
                raise DataError(f"{path}: {describe_unknown_colors(colors, known, encoding)}")
        return np.ascontiguousarray(upright(labels, orientation))


def read_values(path: Path) -> UInt8Array:
    """Decode a mask image to (H, W) uint8 values, whatever they mean; errors as of `read_mask`, but for compression
    with loss."""
    with open_image(path, "mask") as (header, stream):
        orientation = pending_orientation(header)
        _decode(path, header, stream, _SOFT if _lossy(header) else _ANY_VALUE)
        return np.ascontiguousarray(upright(_values(header), orientation))


def _decode(path: Path, header: ImageFile.ImageFile, stream: BinaryIO, encoding: MaskEncoding) -> None:
    message = _wrong_format(header, encoding)
    if not message:
        decode(header, stream)
        message = _wrong_mode(header, encoding)
    if message:
        raise DataError(f"{path}: {message}")


def _values(image: Image.Image) -> UInt8Array:
    """(H, W) uint8 values of a decoded image; of a colour image, whose channels are equal, or nearly, of all three."""
    grey = image if image.mode in _VALUE_MODES else image.convert("L")
    return np.asarray(grey).astype(np.uint8, copy=False)


def is_colored(path: Path, of_palettes: bool) -> bool:
    """Whether a mask is a colour image; or, if palettes count, has a palette. False if it cannot be read."""
    try:
        with open_image(path, "mask", header_only=True) as (header, _):
            return header.mode in _COLOR_MODES or (of_palettes and header.mode == "P")
    except DataError:
        return False


def colors_of_labels(path: Path | str, encoding: MaskEncoding, labels: Sequence[int]) -> dict[Rgb, int]:
    """The colours that the palette of a mask gives to the values of some labels → these, but for colours that several
    have. None of a mask without a palette, or where the values do not count."""
    if encoding.colors is not None or encoding.threshold is not None:
        return {}
    with open_image(Path(path), "mask") as (header, _):
        palette = (header.getpalette() if header.mode == "P" else None) or []
    values = [encoding.class_values[label] for label in labels]
    colors = [tuple(palette[3 * value :][:3]) for value in values]
    pairs = zip(colors, labels, strict=True)
    return {(c[0], c[1], c[2]): label for c, label in pairs if len(c) == 3 and colors.count(c) == 1}


def read_layer(path: Path | str, threshold: int | None) -> BoolArray:
    """Decode a mask image of one class to (H, W) bool, upright: where its value is not 0, or at least ``threshold``. A
    DataError as `read_mask` raises it, or if there are more than two values and no threshold."""
    path = Path(path)
    values = read_values(path)
    if threshold is None and len(found := np.flatnonzero(np.bincount(values.ravel(), minlength=256))) > 2:
        what = f"the mask of one class has the values {{{_first(found.tolist())}}}, expected 0 and another"
        raise DataError(f"{path}: {what}; are its edges soft? data.mask_threshold=128 reads it")
    return np.asarray(values >= (threshold or 1))


def _lossy(header: ImageFile.ImageFile) -> str:
    """The format, if it compresses with loss."""
    if (compression := header.info.get("compression")) in {"jpeg", "webp"}:
        return f"{header.format} with {compression} compression"
    return str(header.format) if header.format in {"JPEG", "MPO", "WEBP"} else ""


def _wrong_format(header: ImageFile.ImageFile, encoding: MaskEncoding) -> str:
    lossy, name = _lossy(header), header.format or ""
    if lossy and encoding.threshold is None:
        threshold = "; of two classes, data.mask_threshold=128 reads it" if len(encoding.classes) == 2 else ""
        return (
            f"the mask is {lossy}, which changes values at the edges; make it again from its source as "
            f"PNG, TIFF or BMP (a converted copy keeps the wrong values){threshold}"
        )
    if not lossy and name not in {"PNG", "TIFF", "BMP"} and (name != "GIF" or encoding.colors is None):
        # Programs that write GIF renumber its values, but keep the colours.
        return f"the mask is {name}, expected PNG, TIFF or BMP; convert it from its source to PNG"
    if (frames := getattr(header, "n_frames", 1)) != 1:
        return f"the mask has {frames} frames, expected one image; save the right one by itself"
    if header.mode == "F":
        return "the mask holds floats, expected whole values from 0 to 255; convert it to 8 bits"
    is_deep = any(";16" in str(tile[3]) for tile in header.tile)  # Pillow keeps 8 of the 16 bits of a colour image
    if is_deep or header.mode.startswith("I"):
        bits = 16 if is_deep or header.mode.startswith("I;16") else 32
        return f"the mask has {bits} bits per pixel, expected 8; convert it to 8 bits"
    return ""


def _wrong_mode(image: Image.Image, encoding: MaskEncoding) -> str:
    if image.mode in _VALUE_MODES:
        return ""
    transparent = int((np.asarray(image)[..., 3] != 255).sum()) if image.mode == "RGBA" else 0
    if transparent:
        return f"{transparent} pixels of the mask are transparent; save it without transparency"
    if encoding.colors is not None:
        return "" if image.mode in _COLOR_MODES else f"the mask is {image.mode}, expected RGB or a palette; convert it"
    what = f"the mask is {image.mode}, expected one value per pixel (a palette or grey image)"
    if image.mode not in _COLOR_MODES:
        return f"{what}; convert it, without transparency"
    colors: UInt8Array = np.asarray(image)[..., :3]
    if int(np.ptp(colors, axis=-1).max(initial=0)) <= (0 if encoding.threshold is None else _NEARLY_GREY):
        return ""
    found = _first([f"{color} ({count} px)" for color, count in _count_colors(colors.reshape(-1, 3))])
    fix = "name the colour of each class in data.mask_colors, or convert the masks"
    return f"{what}; its colours: {found}: {fix}"


def describe_unknown_colors(image: UInt8Array, known: BoolArray, encoding: MaskEncoding) -> str:
    """The colours of a mask, (H, W, 3) uint8 RGB, that are not listed, where (H, W) bool ``known`` is false; each with
    the nearest class, and the likely fix."""
    colors = _count_colors(image[~known])
    table = np.array(encoding.colors)
    found = []
    for color, count in colors:
        nearest = int(((table - color) ** 2).sum(axis=1).argmin())
        name = printable(encoding.classes.names[nearest])
        found.append(f"{color} ({count} px), nearest {name} {tuple(table[nearest].tolist())}")
    fix = "name them in data.mask_colors, or in data.ignore_colors if their pixels are to be ignored"
    if (image[..., :1] == image).all():
        fix = f"the mask is grey: if its values are the labels, leave out data.mask_colors; else {fix}"
    elif len(colors) > max(_MAX_SHOWN, len(encoding.classes)):
        fix = f"{_INTERPOLATED}; make it again, or {fix}"
    return f"{len(colors)} colour(s) that are not listed: {_first(found, '; ')}: {fix}"


def _describe_unknown_values(values: UInt8Array, encoding: MaskEncoding) -> str:
    found, counts = (column.tolist() for column in np.unique(values, return_counts=True))
    unknown = [value for value in found if value not in (*encoding.class_values, encoding.ignore_index)]
    ignored = "" if encoding.ignore_index is None else f", and {encoding.ignore_index} for pixels to ignore"
    num_others = sum(count for value, count in zip(found, counts, strict=True) if value in unknown)
    what = f"values {{{_first(found)}}} with {len(encoding.classes)} classes: {_fix_values(found, unknown, encoding)}"
    return f"{what} (expected: {_first(encoding.class_values)}{ignored}; {num_others} px have others)"


def _fix_values(found: Sequence[int], unknown: Sequence[int], encoding: MaskEncoding) -> str:
    num = len(encoding.classes)
    if num == 2 and len(unknown) > 2 and unknown[-1] >= 128:
        second = shown(encoding.classes.names[1])
        return (
            f"are the edges of two classes soft? data.mask_threshold=128 reads values from 128 on as {second}; or, if "
            "each value is a class, name every class in data.classes"
        )
    if num == 2 and len(found) == 2 and found[0] == 0:
        ignored = "" if encoding.ignore_index not in found else " data.ignore_index=null"
        return f"is {found[1]} the foreground? set data.mask_values=[0, {found[1]}]{ignored}"
    if len(unknown) > max(_MAX_SHOWN, num):
        return (
            f"{_INTERPOLATED}, or one of object numbers; make it again from its source; or, if each is a class, name "
            "every class in data.classes"
        )
    if encoding.values is None and unknown == [num]:
        names = f"is a class missing, a background, say? name all {num + 1} in data.classes; or "
        from_one = f"do the values count from 1? set data.mask_values=[{_first(range(1, num + 1))}]"
        is_void = f"is {num} void? set data.ignore_index={num}; or is 0 void, and {from_one} data.ignore_index=0"
        return from_one if 0 not in found else names + is_void
    if encoding.ignore_index is None and len(unknown) == 1:
        return f"is {unknown[0]} void? set data.ignore_index={unknown[0]}"
    if len(found) == num and len(unknown) == 1:
        return f"is {unknown[0]} a slip? correct this mask; or set data.mask_values={found}, if all masks have it"
    if len(found) == num:
        return f"are these the values of the classes? set data.mask_values={found}"
    return "name every class in data.classes, and in data.mask_values the value of each, if it is not 0, 1, 2, ..."


def _count_colors(pixels: UInt8Array) -> list[tuple[Rgb, int]]:
    """The colours of (N, 3) uint8 RGB pixels, the most frequent first, and how many pixels have each."""
    found: Any = Image.fromarray(pixels[None]).getcolors(len(pixels)) or []
    return [(color, count) for count, color in sorted(found, key=lambda pair: -pair[0])]


def _color_codes(colors: UInt8Array) -> IntArray:
    """(..., 3) uint8 RGB → (...) int64, 65536 R + 256 G + B."""
    codes: IntArray = colors.astype(np.int64) @ np.array([65536, 256, 1], dtype=np.int64)
    return codes


def _first(values: Sequence[object], separator: str = ", ") -> str:
    more = ["...", values[-1]] if len(values) > _MAX_SHOWN else []
    return separator.join(map(str, [*values[:_MAX_SHOWN], *more]))
