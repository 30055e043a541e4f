"""Images from files: upright 8-bit RGB, or an error that names the file.

Pillow reads the header: format, mode, declared size (before any memory is taken) and EXIF orientation. simplejpeg
(libjpeg-turbo) decodes JPEG, Pillow all else. A JPEG that lost bytes from its middle decodes to an image that is
shifted or grey from there on; OpenCV and Pillow return it as if it were whole, simplejpeg reports it.
"""

from __future__ import annotations

import logging
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError, features

from detseg.data.images.values import Extent, ValueRange, deep_values, extent_of, is_deep, to_bytes
from detseg.errors import DataError, ImageSizeError
from detseg.messages import printable
from detseg.structures import UInt8Array

# Images that declare more pixels may be decompression bombs: half a gigabyte as RGB. Others may be allowed.
MAX_PIXELS = 178_956_970
# Formats that are read where this Pillow, or the package pi-heif (libheif, decoding only), can.
_AVIF_SUFFIXES, _HEIF_SUFFIXES = frozenset({".avif"}), frozenset({".heic", ".heif"})
OPTIONAL_SUFFIXES = _AVIF_SUFFIXES | _HEIF_SUFFIXES
# By which images are recognised in a folder.
IMAGE_SUFFIXES = OPTIONAL_SUFFIXES | {
    *(".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
}
# Those of files that are images, too, and are not read.
OTHER_IMAGE_SUFFIXES = frozenset(
    {
        *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"),  # raw files of cameras
        *(".dcm", ".dicom", ".nii", ".nd2", ".czi", ".lif", ".svs", ".ndpi", ".mrxs", ".vsi", ".oib", ".oif"),
        *(".eps", ".exr", ".hdr", ".heics", ".ico", ".j2k", ".jp2", ".jpe", ".jpx", ".jxl", ".jxr", ".pbm", ".pcx"),
        *(".pfm", ".pnm", ".psd", ".qoi", ".sgi", ".svg", ".tga", ".xcf"),
    }
)
# The formats that are read, whatever a file's name. Others are not offered to Pillow: their readers may start programs
# (EPS: Ghostscript). JPEG includes MPO, PPM includes PGM.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", *(["AVIF"] if features.check("avif") else []))
_TIFF_BEGINS = (b"II*\0", b"MM\0*")
_HEIF_BRANDS = (b"mif1", b"msf1", b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis")
HEIC_INSTALL = 'pip install "detseg[heic]"'
# libjpeg's warnings (jerror.h) after which pixels are made up. Cameras write extraneous bytes: those are logged.
_LOST_PIXELS = ["premature end of data segment", "bad Huffman code", "bad arithmetic code", "instead of RST"]
_LOST_PIXELS += ["Inconsistent progression sequence"]


@dataclass(frozen=True)
class ImageBytes:
    """The content of an image's file, which came over a network or out of an archive; messages call it by its ``name``.

    Attributes:
        data: the bytes.
        max_pixels: if it declares more, nothing is decoded.
        suffix: of the file.
    """

    data: bytes
    name: str = "the image"
    max_pixels: int = MAX_PIXELS
    suffix: str = ""

    def __str__(self) -> str:
        return self.name

    def open(self, mode: str) -> BinaryIO:
        """A stream of the bytes, as of a file."""
        return BytesIO(self.data)


def read_image(
    path: Path | str | ImageBytes,
    value_range: ValueRange = None,
    said: list[str] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> UInt8Array:
    """Decode an image to (H, W, 3) uint8 RGB, upright: the EXIF orientation is applied.

    Grey, palettes and CMYK are converted; transparency is dropped; of 16 bits the upper 8 are kept, or as
    ``value_range`` says, without which floats are an error; of an animation the first frame. A DataError if the file is
    missing, not an image, cut short, or damaged as far as the decoders notice. ``said``: see `read_reduced`.
    ImageSizeError, which is a DataError: it declares more than ``max_pixels``, which of bytes is their own.
    """
    return read_reduced(path, 1, value_range, said, max_pixels)[0]


def read_reduced(
    path: Path | str | ImageBytes,
    divisor: int,
    value_range: ValueRange = None,
    said: list[str] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> tuple[UInt8Array, tuple[int, int]]:
    """Decode an image, a JPEG at a fraction of its size: libjpeg leaves out the highest frequencies of each block.

    Returns (⌈H / divisor⌉, ⌈W / divisor⌉, 3) uint8 RGB, upright, and the whole H and W; pixel i shows the pixels
    [i · divisor, (i + 1) · divisor). It is (H, W, 3) where the image is not a JPEG, is one that only Pillow decodes, or
    is turned and its sides are no multiples of the divisor, which is 1, 2, 4 or 8. ``said`` gets what the decoder says
    of bytes that may be damage; None: the log does.
    """
    path = path if isinstance(path, ImageBytes) else Path(path)
    with open_image(path, max_pixels=max_pixels) as (header, stream):
        orientation = pending_orientation(header)
        width, height = header.size
        image = None
        if header.format in {"JPEG", "MPO"}:
            # Of a turned image the last pixels, which show less than a whole divisor, would come first.
            if orientation != 1 and (width % divisor or height % divisor):
                divisor = 1
            stream.seek(0)
            image = _decode_jpeg(path, stream.read(), (height, width), divisor, said)
        if image is None or header.mode not in {"L", "RGB"}:  # CMYK: decoded above for the damage that Pillow misses
            scaled = value_range is not None and is_deep(header)  # what Pillow decodes may show it no longer
            decode(header, stream)
            image = _rgb(to_bytes(deep_values(header, stream), value_range)) if scaled else pil_to_rgb(header)
            height, width = image.shape[:2]  # Pillow turns a TIFF when it decodes it
    return np.ascontiguousarray(upright(image, orientation)), (width, height) if orientation >= 5 else (height, width)


def read_image_hw(path: Path | str) -> tuple[int, int]:
    """The size (H, W) in pixels that ``read_image`` would return, from the file's header alone."""
    with open_image(Path(path), header_only=True) as (header, _):
        if header.format == "TIFF":
            header.load()  # when a turned TIFF changes its size differs between versions of Pillow
        width, height = header.size
        return (width, height) if pending_orientation(header) >= 5 else (height, width)


@lru_cache(maxsize=1)
def readable_formats() -> tuple[str, ...]:
    """``FORMATS``, and that of the optional package where it is installed; Pillow then knows it in this process."""
    try:
        from pi_heif import register_heif_opener
    except ImportError:
        return FORMATS
    register_heif_opener()
    return (*FORMATS, "HEIF")


def why_unread(path: Path | ImageBytes) -> str | None:
    """Why an image of one of ``IMAGE_SUFFIXES`` cannot be read on this machine, and what to install; None if it can."""
    suffix = path.suffix.lower()
    if suffix in _HEIF_SUFFIXES and "HEIF" not in readable_formats():
        return f"are HEIF images, which need the package pi-heif: {HEIC_INSTALL}; or convert them to JPEG"
    if suffix in _AVIF_SUFFIXES and "AVIF" not in FORMATS:
        return "are AVIF images, which this version of Pillow cannot read; install a newer one, or convert them to JPEG"
    return None


def _suffix_of_content(path: Path | ImageBytes) -> str:
    """The suffix of HEIF or AVIF, where a file begins as they do (ISO/IEC 23008-12: a box ``ftyp`` with brands)."""
    with path.open("rb") as file:
        begin = file.read(64)
    if begin[4:8] != b"ftyp":
        return ""
    return ".avif" if b"avif" in begin else ".heic" if any(brand in begin for brand in _HEIF_BRANDS) else ""


def read_extent(path: Path | str | ImageBytes, max_pixels: int = MAX_PIXELS) -> Extent | None:
    """The lowest and the highest value of an image of more than 8 bits a channel, or of floats; None for one of 8 bits,
    of which the header alone is read."""
    path = path if isinstance(path, ImageBytes) else Path(path)
    with open_image(path, header_only=True, max_pixels=max_pixels) as (header, _):
        if not is_deep(header):
            return None
    with open_image(path, max_pixels=max_pixels) as (header, stream):
        decode(header, stream)
        return extent_of(deep_values(header, stream))


def pil_to_rgb(image: Image.Image, value_range: ValueRange = None) -> UInt8Array:
    """The pixels of a PIL image as ``read_image`` gives them, (H, W, 3) uint8 RGB, but not turned. A ValueError for
    floats without a range."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _rgb(to_bytes(np.asarray(image), value_range))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)


def _rgb(pixels: UInt8Array) -> UInt8Array:
    """(H, W) or (H, W, 3) → (H, W, 3)."""
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


@contextmanager
def open_image(
    path: Path | ImageBytes, kind: str = "image", header_only: bool = False, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[ImageFile.ImageFile, BinaryIO]]:
    """A Pillow image whose header is read and whose pixels are not, and a stream of the file's content.

    A DataError if the file, which messages call a ``kind``, is missing or no file, is not an image of one of the
    ``FORMATS``, or declares more than ``max_pixels``; or if Pillow raises something within the block. With
    ``header_only`` the pixels are not read from the disk.
    """
    limit = path.max_pixels if isinstance(path, ImageBytes) else max_pixels
    try:
        if isinstance(path, Path) and not stat.S_ISREG(
            path.stat().st_mode
        ):  # a pipe would wait for somebody to write into it
            raise ValueError("it is not a file, but a folder, a pipe or a device")
        with (
            path.open("rb") as file,
            file if header_only else BytesIO(file.read()) as stream,
            _read_header(stream) as header,
        ):
            if header.width * header.height > limit:
                raise ImageSizeError(
                    f"{path}: the file declares {header.width} x {header.height} pixels, more than the {limit} "
                    "that are read; if it is no decompression bomb, make it smaller or cut it into tiles"
                )
            yield header, stream
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError:  # Pillow's own limit is ``MAX_PIXELS``; its TIFF and WebP readers look at it
        what = "the file declares more pixels than Pillow reads in this format (PIL.Image.MAX_IMAGE_PIXELS)"
        raise ImageSizeError(f"{path}: {what}; make it smaller or cut it into tiles") from None
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such {kind}") from None
    except UnidentifiedImageError:
        if (reason := why_unread(path)) is not None:
            raise DataError(f"{path}: such files {reason}") from None
        if (reason := why_unread(Path(f"image{_suffix_of_content(path)}"))) is not None:
            raise DataError(f"{path}: its content is not what its suffix says: such files {reason}") from None
        with path.open("rb") as file:
            if file.read(4) in _TIFF_BEGINS:
                what = "a TIFF that is damaged, or of a kind that is not read (several channels of floats, 64 bits)"
                fix = "convert it to 8 or 16 bits, or to one channel of 32-bit floats"
                raise DataError(f"{path}: {what}; {fix}") from None
        what = f"not an image, or damaged beyond recognition; read are {', '.join(readable_formats())}"
        raise DataError(f"{path}: {what}; replace the file or take it off the list") from None
    except Exception as error:  # what Pillow raises on hostile bytes is not a closed list
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{path}: cannot read the {kind}: {reason}; replace the file or take it off the list") from None


def _read_header(stream: BinaryIO) -> ImageFile.ImageFile:
    """What `PIL.Image.open` does, without its limit on pixels, which is one for the whole process; ``open_image`` has
    its own. UnidentifiedImageError: no image of a format that is read."""
    begin = stream.read(16)
    for name in readable_formats():
        if name not in Image.OPEN:
            Image.init()
        factory, accept = Image.OPEN[name]
        accepted = accept is None or accept(begin)
        if not accepted or isinstance(accepted, str):  # text says why not
            continue
        stream.seek(0)
        with suppress(SyntaxError, IndexError, TypeError, struct.error):  # another format may have the same beginning
            return factory(stream, "")
    raise UnidentifiedImageError


def decode(header: ImageFile.ImageFile, stream: BinaryIO) -> None:
    """Have Pillow decode the pixels of an image, in the block of ``open_image``, which names damaged files."""
    if header.format == "PNG" and any(tile[1] != (0, 0, *header.size) for tile in header.tile):
        raise ValueError("its first frame is only a part of the image")
    header.load()
    if header.format == "PNG":
        _check_png(header, stream)


def _decode_jpeg(
    path: Path | ImageBytes, data: bytes, hw: tuple[int, int], divisor: int, said: list[str] | None
) -> UInt8Array | None:
    """See ``read_reduced``; the image as stored, None where simplejpeg cannot decode it."""
    try:  # at the smallest of libjpeg's 16 sizes that is large enough, which is the one asked for
        image = simplejpeg.decode_jpeg(data, min_height=-(-hw[0] // divisor), min_width=-(-hw[1] // divisor))
    except ValueError as error:
        if any(words in str(error) for words in _LOST_PIXELS):
            raise DataError(
                f"{path}: the image is damaged, a part of its pixels is lost (the decoder says: {error}); replace the "
                "file or take it off the list; if it looks whole, save it again"
            ) from None
        if "extraneous bytes" in str(error) and said is not None:
            said.append(str(error))
        elif "extraneous bytes" in str(error):
            logging.getLogger("detseg").warning("%s: %s", printable(str(path)), error)
        return None
    return np.asarray(image, dtype=np.uint8)


def upright(image: UInt8Array, orientation: int) -> UInt8Array:
    """Undo an EXIF orientation (CIPA DC-008, tag 274)."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    return image[:: -1 if orientation in {3, 4, 7, 8} else 1, :: -1 if orientation in {2, 3, 6, 7} else 1]


def pending_orientation(header: Image.Image) -> int:
    """The EXIF orientation that is still to be applied, 1 to 8; 1 if none can be read."""
    if header.format == "TIFF":
        return 1  # Pillow turns TIFFs itself
    try:
        # The base class's method: that of PNG decodes the whole image first.
        value = Image.Image.getexif(header).get(ExifTags.Base.Orientation)
    except Exception:  # a damaged EXIF block, of which there are many kinds, does not make the image unreadable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _check_png(image: Image.Image, stream: BinaryIO) -> None:  # Pillow does not look at the checksum of its pixels
    stream.seek(0)
    data = stream.read()
    pixels, place = bytearray(), 8
    while place + 12 <= len(data):  # chunks: length, kind, content, checksum
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"IDAT":
            if zlib.crc32(data[place + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
                raise ValueError("its pixels are damaged")
            pixels += data[place + 8 : end - 4]
        place = end
    if "interlace" in image.info or image.crop((0, image.height - 1, *image.size)).getbbox() is None:
        # The last row may be one of those that Pillow fills up with zeros.
        width, height, depth, color = struct.unpack_from(">IIBB", data, 16)
        bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
        expected = height * (1 + (width * bits + 7) // 8)  # a filter byte per row; interlaced images have a few more
        if len(zlib.decompressobj().decompress(pixels, expected)) < expected:
            raise ValueError("its pixels end before the last row")
