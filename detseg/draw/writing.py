"""Writes pictures, whatever the names of their files: OpenCV only encodes, as names that are no UTF-8 crash it."""

from __future__ import annotations

from pathlib import Path

import cv2

from detseg.errors import DataError
from detseg.structures import UInt8Array


def can_be_written(path: Path) -> bool:
    """Whether the suffix of a file is that of a format that ``write_picture`` knows."""
    return path.suffix.isascii() and bool(cv2.haveImageWriter(f"picture{path.suffix}"))


def write_picture(path: Path, picture: UInt8Array) -> None:
    """Write a picture, and its folder where there is none.

    Args:
        path: the file; an existing one is replaced.  Its suffix is that of a format that ``can_be_written``.
        picture: (H, W, 3) uint8 RGB.

    Raises:
        DataError: it could not be written.
        OSError: nor could its folder be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        encoded, data = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        if not encoded:
            raise OSError("it could not be encoded")
        path.write_bytes(data.tobytes())
    except (OSError, cv2.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(
            f"{path}: the picture could not be written ({' '.join(reason.split())}); is there space, and the right to "
            "write?"
        ) from None
