"""Label maps from mask images: PNG, TIFF or BMP files with one value or one listed colour per pixel; GIF with colours.

A value is what the file stores: the index of a palette, the grey level, 0 or 1 in an image of 1 bit. (Grey images of 2
and 4 bits are spread to 0 ... 255, as the PNG standard says.) An EXIF orientation is applied as it is to images.

Letters for dimensions: H and W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from detseg.data.images.mask_encoding import MaskEncoding
from detseg.data.images.mask_hints import (
    color_histogram,
    describe_unknown_colors,
    describe_unknown_values,
    value_histogram,
)
from detseg.data.images.read import decode, open_image, pending_orientation, upright
from detseg.errors import DataError
from detseg.structures import UInt8Array

_LOSSLESS = {"PNG", "TIFF", "BMP", "GIF"}
_LOSSY = {"JPEG", "MPO", "WEBP"}
_LOSSY_IN_TIFF = {"jpeg", "webp"}
_VALUE_MODES = {"1", "L", "P"}
_COLOR_MODES = {"RGB", "RGBA", "RGBX"}


def read_mask(path: Path | str, encoding: MaskEncoding) -> UInt8Array:
    """Decode a mask image.

    Args:
        path: the file.
        encoding: what its values or colours mean. With colours, palette and grey images are taken by the colour that
            they show.

    Returns:
        (H, W) uint8 labels, ``IGNORE_LABEL`` where none counts; upright.

    Raises:
        DataError: the file is missing, damaged, compressed with loss, animated, of more than 8 bits, transparent, holds
            colours where values are expected, or values or colours that are not listed.
    """
    path = Path(path)
    with open_image(path, "mask") as (header, stream):
        orientation = pending_orientation(header)
        message = _wrong_format(header, encoding)
        deep = any(";16" in str(tile[3]) for tile in header.tile)  # decoding empties the list
        if not message:
            decode(header, stream)
            message = _wrong_depth(header, deep) or _wrong_mode(header, encoding)
        if message:
            raise DataError(f"{path}: {message}")
        if encoding.colors is None:
            values = np.asarray(header).astype(np.uint8, copy=False)
            labels, known = encoding.labels_of_values(values)
            if not known.all():
                raise DataError(f"{path}: {describe_unknown_values(values, encoding)}")
        else:
            colors = np.asarray(header.convert("RGB"))
            labels, known = encoding.labels_of_colors(colors)
            if not known.all():
                raise DataError(f"{path}: {describe_unknown_colors(colors, known, encoding)}")
        return np.ascontiguousarray(upright(labels, orientation))


def _wrong_format(header: Image.Image, encoding: MaskEncoding) -> str:
    """Why a file of this format cannot be a mask; empty where it can."""
    compression = str(header.info.get("compression", ""))
    inside = f" with {compression} compression" if compression in _LOSSY_IN_TIFF else ""
    if header.format in _LOSSY or inside:
        return (
            f"the mask is {header.format}{inside}, which changes values at the edges; make it again from its source as "
            "PNG, TIFF or BMP (a converted copy keeps the wrong values)"
        )
    if header.format not in _LOSSLESS:
        return f"the mask is {header.format}, expected PNG, TIFF or BMP; convert it to PNG"
    if header.format == "GIF" and encoding.colors is None:
        return (
            "the mask is GIF, and programs that write GIF renumber its values, so that they say nothing; convert it "
            "from its source to PNG, or with data.name=mask_folder name the colour of each class in data.mask_colors"
        )
    frames = int(getattr(header, "n_frames", 1))
    return f"the mask has {frames} frames, expected one image; save the right one by itself" if frames != 1 else ""


def _wrong_depth(image: Image.Image, deep: bool) -> str:
    """What is wrong with the bits per pixel; ``deep``: the file holds 16 bits of which Pillow keeps 8."""
    if image.mode == "F":
        return "the mask holds floats, expected whole values from 0 to 255; convert it to 8 bits"
    if not deep and not image.mode.startswith("I"):
        return ""
    pixels: npt.NDArray[Any] = np.asarray(image)
    found = f" (found: {value_histogram(pixels)})" if pixels.ndim == 2 else ""
    bits = 16 if deep or image.mode.startswith("I;16") else 32
    return f"the mask has {bits} bits per pixel, expected 8{found}; convert it to 8 bits"


def _wrong_mode(image: Image.Image, encoding: MaskEncoding) -> str:
    """Why an image has not the one value, or with colours the one colour, per pixel that is expected."""
    if image.mode in _VALUE_MODES:
        return ""
    if encoding.colors is not None:
        if image.mode not in _COLOR_MODES:
            return f"the mask is {image.mode}, expected RGB or a palette; convert it"
        transparent = int((np.asarray(image)[..., 3] != 255).sum()) if image.mode == "RGBA" else 0
        return f"{transparent} pixels of the mask are transparent; save it without transparency" if transparent else ""
    what = f"the mask is {image.mode}, expected one value per pixel (a palette or grey image)"
    if image.mode in {"LA", "La", "PA"}:
        return f"{what}; save it without transparency"
    if image.mode not in _COLOR_MODES:
        return f"{what}; convert it"
    colors: UInt8Array = np.asarray(image)[..., :3]
    if (colors[..., :1] == colors).all():
        return f"{what}; its three channels are equal: save one of them (found: {value_histogram(colors[..., 0])})"
    return (
        f"{what}; its colours: {color_histogram(colors)}: with data.name=mask_folder name the colour of each class in "
        "data.mask_colors, else convert the masks"
    )
