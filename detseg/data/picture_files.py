"""Picture files on the disk: opened, or an error that names the file."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from PIL import UnidentifiedImageError

from detseg.errors import DataError

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
