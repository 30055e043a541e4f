"""Label maps from mask images: PNG, TIFF or BMP files with one value or one listed colour per pixel; GIF with colours.

A value is what the file stores: the index of a palette, the grey level, 0 or 1 in an image of 1 bit. (Grey images of 2
and 4 bits are spread to 0 ... 255, as the PNG standard says.) An EXIF orientation is applied as it is to images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from detseg.data.images.mask_encoding import MaskEncoding
from detseg.data.images.mask_hints import color_histogram, describe_unknown_colors, describe_unknown_values
from detseg.data.images.read import decode, open_image, pending_orientation, upright
from detseg.errors import DataError
from detseg.structures import UInt8Array

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
        if not message:
            decode(header, stream)
            message = _wrong_mode(header, encoding)
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


def _wrong_format(header: ImageFile.ImageFile, encoding: MaskEncoding) -> str:
    """Why a file with this header cannot be a mask; empty where it can."""
    name = header.format or ""
    if (compression := header.info.get("compression")) in {"jpeg", "webp"}:
        name = f"{name} with {compression} compression"
    if name in {"JPEG", "MPO", "WEBP"} or name != header.format:
        return (
            f"the mask is {name}, which changes values at the edges; make it again from its source as "
            "PNG, TIFF or BMP (a converted copy keeps the wrong values)"
        )
    if name not in {"PNG", "TIFF", "BMP", "GIF"}:
        return f"the mask is {name}, expected PNG, TIFF or BMP; convert it to PNG"
    if name == "GIF" and encoding.colors is None:
        return (
            "the mask is GIF, and programs that write GIF renumber its values, so that they say nothing; convert it "
            "from its source to PNG, or with data.name=mask_folder name the colour of each class in data.mask_colors"
        )
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
    """Why an image has not the one value, or with colours the one colour, per pixel that is expected."""
    if image.mode in _VALUE_MODES:
        return ""
    if encoding.colors is not None:
        if image.mode not in _COLOR_MODES:
            return f"the mask is {image.mode}, expected RGB or a palette; convert it"
        transparent = int((np.asarray(image)[..., 3] != 255).sum()) if image.mode == "RGBA" else 0
        return f"{transparent} pixels of the mask are transparent; save it without transparency" if transparent else ""
    what = f"the mask is {image.mode}, expected one value per pixel (a palette or grey image)"
    if image.mode not in _COLOR_MODES:
        return f"{what}; convert it, without transparency"
    colors: UInt8Array = np.asarray(image)[..., :3]
    if (colors[..., :1] == colors).all():
        return f"{what}; its three channels are equal: save one of them"
    return (
        f"{what}; its colours: {color_histogram(colors)}: with data.name=mask_folder name the colour of each class in "
        "data.mask_colors, else convert the masks"
    )
