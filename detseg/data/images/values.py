"""Images of more than 8 bits a channel, or of floats → 8 bits: by the upper bits, by a range, or by percentiles.

Images of 8 bits never come here, nor do masks.
"""

from __future__ import annotations

import math
from typing import Any, BinaryIO, Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from detseg.structures import UInt8Array

ValueRange: TypeAlias = tuple[float, float] | Literal["percentiles"] | None
"""How pixels of more than 8 bits become 0..255: these two values and what lies between them; the 0.5 and 99.5
percentiles of each image and what lies between them; or None, the upper 8 of 16 bits. What lies beyond is 0 or 255."""

Extent: TypeAlias = tuple[float, float]
"""The lowest and the highest value of an image, in its own units, but for a few pixels: see `extent_of`."""

_PERCENTILES = (0.5, 99.5)
_HIGHEST = 65535  # of 16 bits, which None reads
_LOW_FRACTION = 1 / 8  # of the range that is read: an image that uses less is nearly black, white or grey
_FEW = (0.1, 99.9)  # percentiles of an image: beyond them are few pixels, ...
_STRETCHED = 1 / 4  # ... which do not count where less of the range lies between them
_FLOATS = "its pixels are floats, and their range is not known; set data.value_range, or convert it to 8 bits"


def is_deep(image: Image.Image) -> bool:
    """Whether an image, whose pixels need not be decoded yet, has more than 8 bits a channel, or floats."""
    if image.mode == "F" or image.mode.startswith("I"):
        return True
    tiles: list[Any] = getattr(image, "tile", [])  # Pillow keeps the upper 8 bits of several channels of 16
    return any(";16" in str(tile[3]) for tile in tiles)


def deep_values(image: ImageFile.ImageFile, stream: BinaryIO) -> npt.NDArray[Any]:
    """(H, W) or (H, W, 3) RGB values, in the image's own units, of a decoded image that ``is_deep``, upright where
    Pillow turns the format by itself; ``stream`` is the file's content. A ValueError if it cannot be decoded."""
    if image.mode == "F" or image.mode.startswith("I"):
        return np.asarray(image)
    stream.seek(0)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # not of each tag of a TIFF it does not know
    values = cv2.imdecode(np.frombuffer(stream.read(), dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        raise ValueError("its 16 bits a channel cannot be decoded; save it as 16-bit grey, or leave out value_range")
    return np.asarray(values[..., 2::-1] if values.ndim == 3 else values)


def to_bytes(values: npt.NDArray[Any], value_range: ValueRange) -> UInt8Array:
    """Values of any shape and number type → uint8 of the same shape; NaN becomes 0. A ValueError for floats without a
    range."""
    if value_range is None:
        if values.dtype.kind == "f":
            raise ValueError(_FLOATS)
        return np.asarray(values.astype(np.int64).clip(0, _HIGHEST) >> 8, dtype=np.uint8)
    if value_range != "percentiles":
        low, high = value_range
    else:
        finite = values[np.isfinite(values)]
        low, high = np.percentile(finite, _PERCENTILES).tolist() if finite.size else (0.0, 0.0)
        if low >= high and finite.size:  # a few bright spots
            low, high = float(finite.min()), float(finite.max())
    inside = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low).clip(low, high)
    scaled = (inside - low) * (255 / (high - low if high > low else 1.0))
    return np.asarray(scaled.round(), dtype=np.uint8)


def extent_of(values: npt.NDArray[Any]) -> Extent:
    """The lowest and the highest finite value; (0, 0) if there is none. Without a thousandth of the pixels at each end
    where these stretch it to more than four times its range, as dead and saturated pixels do."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 0.0
    low, high = float(finite.min()), float(finite.max())
    first, last = (float(value) for value in np.percentile(finite, _FEW, method="nearest"))
    return (first, last) if 0 < last - first < _STRETCHED * (high - low) else (low, high)


def describe_low_range(extent: Extent, value_range: ValueRange, several: bool = False) -> str | None:
    """What is wrong where images use less than an eighth of the range that is read, or None reads them cut off, and the
    setting to change; None if nothing is, or the images are of one value. Of the extent of ``several`` images, whose
    largest value tells their bits, less than half of 16 bits is wrong, too."""
    low, high = extent
    first, last = (
        (0.0, float(_HIGHEST)) if value_range is None else value_range if value_range != "percentiles" else extent
    )
    seen = min(high, last) - max(low, first)
    is_low = seen < _LOW_FRACTION * (last - first)
    few_bits = several and value_range is None and high < last / 2
    if low == high or not (is_low or few_bits or (value_range is None and high > last)):
        return None
    brightness = (min(max((low + high) / 2, first), last) - first) / (last - first)
    shade = "nearly black" if brightness < 0.25 else "nearly white" if brightness > 0.75 else "nearly of one grey"
    if few_bits and not is_low:
        shade = "dark"
    setting = f"data.value_range={propose_range(extent)}"
    if value_range is None and (high <= 1 or not (low.is_integer() and high.is_integer())):  # as floats have
        return f"values {low:g} to {high:g}, which are not those of 16 bits: set {setting}"
    of = f"of {last:g}" if value_range is None else f"where {first:g} to {last:g} is read,"
    return f"values {low:g} to {high:g} {of} and would be {shade}: set {setting}"


def propose_range(extent: Extent) -> str:
    """The `data.value_range` for images of an extent: that of their bits where it begins near 0, else their own."""
    low, high = extent
    proposed: tuple[float, float] = (low, high)
    if low >= 0 and low < high / 2 and low.is_integer() and high.is_integer() and high > 1:
        proposed = (0.0, float(2 ** math.ceil(math.log2(high + 1)) - 1))  # by bits
    return f"[{proposed[0]:.10g}, {proposed[1]:.10g}]"
