"""Images from files: upright 8-bit RGB, or an error that names the file.

Pillow reads the header: format, mode, declared size (before any memory is taken) and EXIF orientation; of the plainest
JPEGs ``jpeg_header`` does.  OpenCV decodes plain JPEG and PNG, to the same pixels as Pillow in a fraction of the time;
Pillow decodes the rest and says what is wrong with a damaged file.  What neither says, that bytes of a JPEG are lost,
``decoder_messages`` hears of libjpeg.

Letters for dimensions: H and W pixels.
"""

from __future__ import annotations

import os
import stat
import warnings
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from detseg.data.images.decoder_messages import lost_pixels
from detseg.data.images.jpeg_header import plain_jpeg_hw
from detseg.data.images.png_rows import is_plain_png, lacks_rows
from detseg.errors import DataError
from detseg.structures import UInt8Array

MAX_PIXELS = 178_956_970
"""Images that declare more pixels are refused as decompression bombs; Pillow's own limit (half a gigabyte as RGB)."""

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Suffixes, in lower case, by which images are recognised in a folder."""

_FAST_FORMATS = {"JPEG", "MPO", "PNG"}
_FAST_MODES = {"L", "RGB"}
# OpenCV 4.11 and later decode straight to RGB, a pass over the image less; but not at a fraction of the size.
_IN_RGB: int = getattr(cv2, "IMREAD_COLOR_RGB", 0)
_REDUCED = {
    1: _IN_RGB or cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_END_OF_JPEG = b"\xff\xd9"

# Of what Pillow warns without naming the file, the pixels are checked here, and metadata that cannot be read count as
# absent.  For the whole process, since setting warnings aside for a while is not safe beside threads; filters that the
# application has set come first.
for _kind in (UserWarning, Image.DecompressionBombWarning):
    warnings.filterwarnings("ignore", category=_kind, module=r"PIL\.", append=True)


def read_image(path: Path | str) -> UInt8Array:
    """Decode an image.

    Grey becomes RGB; palettes and CMYK are converted; transparency is dropped; of 16 bits the upper 8 are kept; of an
    animation the first frame is read.

    Args:
        path: the file.

    Returns:
        (H, W, 3) uint8 RGB, upright: the EXIF orientation is applied.

    Raises:
        DataError: the file is missing, not an image, cut short, damaged as far as the decoders notice, or declares more
            than ``MAX_PIXELS``.
    """
    return read_reduced(path, 1)[0]


def read_reduced(path: Path | str, divisor: int) -> tuple[UInt8Array, tuple[int, int]]:
    """Decode an image, a plain JPEG at a fraction of its size: what is to be shrunk need not be decoded in full.

    libjpeg leaves the highest frequencies of each block out, which takes two thirds of the time at a half.

    Args:
        path: the file.
        divisor: 1, 2, 4 or 8; pixel i of the result shows pixels [i · divisor, (i + 1) · divisor).

    Returns:
        (⌈H / divisor⌉, ⌈W / divisor⌉, 3) uint8 RGB, upright; (H, W, 3) of other formats, and of a turned image whose
        sides are no multiples of the divisor; and the whole H and W.

    Raises:
        DataError: as ``read_image``.
    """
    path = Path(path)
    data = picture_bytes(path)
    hw = plain_jpeg_hw(data)
    if hw is not None and hw[0] * hw[1] <= MAX_PIXELS:
        image = _decode_plain(data, path, _REDUCED[divisor])
        if image is not None:
            return image, hw
    with open_header(BytesIO(data), path) as header:
        orientation = exif_orientation(header)
        width, height = header.size
        # Of a turned image the last pixels, which show less than a whole divisor, would come first.
        shifts = orientation != 1 and (width % divisor or height % divisor)
        flags = _REDUCED[1 if shifts or header.format == "PNG" else divisor]
        image = _decode_plain(data, path, flags) if _is_plain(header, data) else None
        if image is None:
            image = _decode_any(header, path)
            refuse_missing_rows(header, data, path)
            height, width = image.shape[0], image.shape[1]  # Pillow turns TIFFs while it loads them
    return np.ascontiguousarray(upright(image, orientation)), (width, height) if orientation >= 5 else (height, width)


def read_image_hw(path: Path | str) -> tuple[int, int]:
    """The size that ``read_image`` would return, from the file's header alone.

    Args:
        path: the file.

    Returns:
        Height and width in pixels, upright.

    Raises:
        DataError: the file is missing, not an image, or declares more than ``MAX_PIXELS``.
    """
    path = Path(path)
    with open_picture(path) as stream, open_header(stream, path) as header:
        if header.format == "TIFF":
            _load(header, path)  # when and how a turned TIFF changes its size differs between versions of Pillow
        width, height = header.size
        turned = exif_orientation(header) >= 5
    return (width, height) if turned else (height, width)


def read_orientation(path: Path | str) -> int:
    """The EXIF orientation that a file states, from its header alone.

    Args:
        path: the file.

    Returns:
        1 to 8; 1 is upright, and so is what has no readable one.

    Raises:
        DataError: the file is missing, not an image, or declares more than ``MAX_PIXELS``.
    """
    path = Path(path)
    with open_picture(path) as stream, open_header(stream, path) as header:
        return _stated_orientation(header)


def pil_to_rgb(image: Image.Image) -> UInt8Array:
    """The pixels of a PIL image as ``read_image`` gives them, but for the orientation.

    Args:
        image: of any mode.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the pixels are floats.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floats, and their range is not known; convert it to 8 bits")
    if image.mode.startswith("I"):
        return _from_16_bits(np.asarray(image))
    return np.array(image.convert("RGB"), dtype=np.uint8)


def open_header(stream: BinaryIO, path: Path, kind: str = "image") -> ImageFile.ImageFile:
    """A Pillow image whose header is read and whose pixels are not.

    Args:
        stream: the file's bytes.
        path: the file, and ``kind``: what it is meant to be; for messages.

    Raises:
        DataError: it is not an image of one of the ``FORMATS``, or declares more than ``MAX_PIXELS``.
    """
    try:
        header = Image.open(stream, formats=FORMATS)
    except MemoryError:
        raise
    except Exception as error:  # what Pillow raises on hostile bytes is not a closed list
        raise unreadable(path, error, kind) from None
    width, height = header.size
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{path}: the file declares {width} x {height} pixels, more than the {MAX_PIXELS} that are read; "
            "if it is no decompression bomb, make it smaller or cut it into tiles"
        )
    return header


def refuse_missing_rows(header: Image.Image, data: bytes, path: Path, kind: str = "image") -> None:
    """Refuse a PNG that Pillow has filled up with black.

    Args:
        header: the image, decoded by Pillow.
        data: its file's content.
        path: the file, and ``kind``: what it is meant to be; for messages.

    Raises:
        DataError: rows are missing.
    """
    if header.format == "PNG" and lacks_rows(data):
        raise unreadable(path, ValueError("its pixels end before the last row"), kind)


def exif_orientation(header: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 is upright, and so is what has no readable one."""
    if header.format == "TIFF":
        return 1  # Pillow turns TIFFs itself
    return _stated_orientation(header)


def _stated_orientation(header: Image.Image) -> int:
    try:
        # The base class's method: that of PNG decodes the whole image first.
        value = Image.Image.getexif(header).get(ExifTags.Base.Orientation)
    except Exception:  # a damaged EXIF block, of which there are many kinds, does not make the image unreadable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _is_plain(header: Image.Image, data: bytes) -> bool:
    if header.format not in _FAST_FORMATS or header.mode not in _FAST_MODES:
        return False
    if header.format == "PNG":
        return is_plain_png(data)
    # OpenCV may pad a JPEG that was cut short with grey; Pillow refuses it.  A whole one ends with this marker.
    return data.endswith(_END_OF_JPEG)


def _decode_plain(data: bytes, path: Path, flags: int) -> UInt8Array | None:
    flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image, lost = lost_pixels(lambda: cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags), str(path))
    except cv2.error:
        return None
    if image is None:
        return None
    if lost:
        raise DataError(
            f"{path}: the image is damaged, a part of its pixels is lost (the decoder says: {lost}); replace the file "
            "or take it off the list; if it looks whole, save it anew"
        )
    return np.asarray(image if flags & _IN_RGB else cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _decode_any(header: Image.Image, path: Path) -> UInt8Array:
    _load(header, path)
    try:
        return pil_to_rgb(header)
    except MemoryError:
        raise
    except Exception as error:  # see open_header
        raise unreadable(path, error) from None


def _load(header: Image.Image, path: Path) -> None:
    try:
        header.load()
    except MemoryError:
        raise
    except Exception as error:  # see open_header
        raise unreadable(path, error) from None


def _from_16_bits(grey: npt.NDArray[np.generic]) -> UInt8Array:
    """(H, W) unsigned 16-bit grey, in 16 or 32 bits → (H, W, 3) uint8."""
    upper = (np.clip(grey.astype(np.int64), 0, 65535) >> 8).astype(np.uint8)
    return np.repeat(upper[..., None], 3, axis=2)


def upright(image: UInt8Array, orientation: int) -> UInt8Array:
    """Undo an EXIF orientation (CIPA DC-008, tag 274): what the 0th row and column of the stored image show."""
    match orientation:
        case 2:
            return image[:, ::-1]
        case 3:
            return image[::-1, ::-1]
        case 4:
            return image[::-1]
        case 5:
            return image.swapaxes(0, 1)
        case 6:
            return np.rot90(image, -1)
        case 7:
            return image[::-1, ::-1].swapaxes(0, 1)
        case 8:
            return np.rot90(image)
        case _:
            return image


FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""What Pillow may take a file for, whatever its name: no formats whose readers start programs (EPS: Ghostscript) or
that nobody asked for.  JPEG includes MPO, PPM the grey PGM."""

_PIECE = 1 << 20

# A named pipe is then open at once, where it would wait for somebody to write into it.  Windows has none, but lines.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_picture(path: Path, kind: str = "image") -> BinaryIO:
    """Open a file to read from.

    Args:
        path: the file, and ``kind``: what it is meant to be; for messages.

    Raises:
        DataError: it is missing, may not be read, or is no file: a folder, a named pipe, a device.
    """
    return os.fdopen(_descriptor(path, kind)[0], "rb")


def picture_bytes(path: Path, kind: str = "image") -> bytes:
    """The content of a file.

    Args:
        path: the file, and ``kind``: what it is meant to be; for messages.

    Raises:
        DataError: as ``open_picture``, or the disk fails.
    """
    descriptor, size = _descriptor(path, kind)
    try:  # without a file object, which would take three times as long: as a rule this is one read
        parts = [os.read(descriptor, size + 1)]
        while len(parts[-1]) > 0 and sum(map(len, parts)) != size:
            parts.append(os.read(descriptor, _PIECE))
    except OSError as error:
        raise unreadable(path, error, kind) from None
    finally:
        os.close(descriptor)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _descriptor(path: Path, kind: str) -> tuple[int, int]:
    """An open file that is one, and its size in bytes."""
    try:
        descriptor = os.open(path, _FLAGS)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise unreadable(path, error, kind) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise unreadable(path, ValueError("it is no file, but a folder, a pipe or a device"), kind)
    return descriptor, status.st_size


def unreadable(path: Path, error: Exception, kind: str = "image") -> DataError:
    """The error of a file that cannot be read as what it is meant to be."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: there is no such {kind}")
    if isinstance(error, UnidentifiedImageError):
        return DataError(
            f"{path}: not an image, or damaged beyond recognition; read are {', '.join(FORMATS)}; replace the file or "
            "take it off the list"
        )
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return DataError(f"{path}: cannot read the {kind}: {reason}; replace the file or take it off the list")
