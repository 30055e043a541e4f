"""Label maps from mask pictures: PNG, TIFF or BMP files with one value or one listed colour a pixel; GIF with colours.

A value is what the file stores: the index of a palette, the grey level, 0 or 1 in a picture of 1 bit.  (Grey pictures
of 2 and 4 bits are spread to 0 ... 255, as the PNG standard says.)  An EXIF orientation is applied as it is to images.

Letters for dimensions: H and W pixels.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from detseg.data.images.mask_encoding import MaskEncoding
from detseg.data.images.mask_hints import (
    describe_unknown_colors,
    describe_unknown_values,
    most_frequent_colors,
    value_histogram,
)
from detseg.data.images.read import (
    exif_orientation,
    open_header,
    picture_bytes,
    refuse_missing_rows,
    unreadable,
    upright,
)
from detseg.errors import DataError
from detseg.structures import UInt8Array

_READ = {"PNG", "TIFF", "BMP", "GIF"}
_LOSSY = {"JPEG", "MPO", "WEBP"}
_LOSSY_COMPRESSIONS = {"jpeg", "webp"}  # inside a TIFF
_VALUE_MODES = {"1", "L", "P"}
_COLOR_MODES = {"RGB", "RGBA", "RGBX"}


def read_mask(path: Path | str, encoding: MaskEncoding) -> UInt8Array:
    """Decode a mask picture.

    Args:
        path: the file.
        encoding: what its values or colours mean.  With colours, palette and grey pictures are taken by the colour that
            they show.

    Returns:
        (H, W) uint8 labels, ``IGNORE_LABEL`` where none counts; upright.

    Raises:
        DataError: the file is missing, damaged, compressed with loss, animated, of more than 8 bits, transparent, holds
            colours where values are expected, or values or colours that mean nothing.
    """
    path = Path(path)
    data = picture_bytes(path, "mask")
    with open_header(BytesIO(data), path, "mask") as header:
        _check_format(header, path, encoding)
        pixels = _load(header, path)
        refuse_missing_rows(header, data, path, "mask")
        orientation = exif_orientation(header)
        if encoding.colors is None:
            labels = _labels_of_values(pixels, header.mode, path, encoding)
        else:
            labels = _labels_of_colors(header, path, encoding)
    return np.ascontiguousarray(upright(labels, orientation))


def _check_format(header: Image.Image, path: Path, encoding: MaskEncoding) -> None:
    compression = str(header.info.get("compression", ""))
    inside = f" with {compression} compression" if compression in _LOSSY_COMPRESSIONS else ""
    if header.format in _LOSSY or inside:
        raise DataError(
            f"{path}: the mask is {header.format}{inside}, which changes values at the edges; make it anew from its "
            "source as PNG, TIFF or BMP (a converted copy keeps the wrong values)"
        )
    if header.format not in _READ:
        raise DataError(f"{path}: the mask is {header.format}, expected PNG, TIFF or BMP; convert it to PNG")
    if header.format == "GIF" and encoding.colors is None:
        raise DataError(
            f"{path}: the mask is GIF, whose writers number its values anew, so that they say nothing; convert it from "
            "its source to PNG, or with data.name=mask_folder name the colour of each class in data.mask_colors"
        )
    try:
        frames = int(getattr(header, "n_frames", 1))
    except Exception as error:  # what Pillow raises on hostile bytes is not a closed list
        raise unreadable(path, error, "mask") from None
    if frames != 1:
        raise DataError(f"{path}: the mask has {frames} frames, expected one picture; save the right one by itself")


def _load(header: ImageFile.ImageFile, path: Path) -> npt.NDArray[Any]:
    """The stored pixels: (H, W) or (H, W, channels); refuses more than 8 bits."""
    deep = any(";16" in str(tile[3]) for tile in header.tile)  # before decoding, which empties the list
    try:
        header.load()
        pixels = np.asarray(header)
    except MemoryError:
        raise
    except Exception as error:  # see _check_format
        raise unreadable(path, error, "mask") from None
    if header.mode == "F":
        raise DataError(f"{path}: the mask holds floats, expected whole values from 0 to 255; convert it to 8 bits")
    if deep or header.mode.startswith("I"):
        held = f" (found: {value_histogram(pixels)})" if pixels.ndim == 2 else ""
        bits = 16 if deep or header.mode.startswith("I;16") else 32
        raise DataError(f"{path}: the mask has {bits} bits a pixel, expected 8{held}; convert it to 8 bits")
    return pixels


def _labels_of_values(pixels: UInt8Array, mode: str, path: Path, encoding: MaskEncoding) -> UInt8Array:
    if mode not in _VALUE_MODES:
        raise DataError(f"{path}: {_describe_wrong_mode(pixels, mode)}")
    values = pixels.astype(np.uint8, copy=False)
    if encoding.unknown_values(values):
        raise DataError(f"{path}: {describe_unknown_values(values, encoding)}")
    return encoding.labels_of_values(values)


def _labels_of_colors(header: Image.Image, path: Path, encoding: MaskEncoding) -> UInt8Array:
    if header.mode not in _VALUE_MODES | _COLOR_MODES:
        raise DataError(f"{path}: the mask is {header.mode}, expected RGB or a palette; convert it")
    if header.mode == "RGBA":
        see_through = int((np.asarray(header.getchannel("A")) != 255).sum())
        if see_through:
            raise DataError(
                f"{path}: {see_through} pixels of the mask are transparent, so that their colour says nothing; "
                "save it without transparency"
            )
    image = np.asarray(header.convert("RGB"), dtype=np.uint8)
    labels, known = encoding.labels_of_colors(image)
    if not known.all():
        raise DataError(f"{path}: {describe_unknown_colors(image, known, encoding)}")
    return labels


def _describe_wrong_mode(pixels: UInt8Array, mode: str) -> str:
    """Why a picture that is neither grey nor of a palette is no mask of values."""
    what = f"the mask is {mode}, expected one value a pixel (a palette or grey picture)"
    if mode in {"LA", "La", "PA"}:
        return f"{what}; save it without transparency"
    if mode not in _COLOR_MODES:
        return f"{what}; convert it"
    image = pixels[..., :3]
    if (image[..., :1] == image).all():
        return (
            f"{what}; its three channels are equal: save one of them (found: {value_histogram(image[..., 0])}), "
            "or with data.name=mask_folder name the colours in data.mask_colors"
        )
    return (
        f"{what}; its colours: {most_frequent_colors(image)}: with data.name=mask_folder name the colour of each class "
        "in data.mask_colors, else convert the masks"
    )
