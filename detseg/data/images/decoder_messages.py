"""What decoders have to say about a damaged file.

A JPEG with bytes lost from its middle decodes to a picture that is shifted, discoloured or grey from there on.  libjpeg
often notices, yet OpenCV and Pillow return the picture as if it were whole: OpenCV lets libjpeg print its warning to
standard error, without the file's name; Pillow drops it.  So standard error is caught while OpenCV decodes; this costs
microseconds an image.  Only in the main thread, where loaders and tools decode: standard error belongs to the whole
process, and the threads of an application must neither wait for each other nor lose what they print.

Measured on 30 photographs of COCO, two places in each: of blocks of 512 and 4096 bytes that were cut out all are
errors; of such blocks overwritten with zeros, as disks leave them, 7 and 9 of 10, the rest for the most part a line
with the file's name; of 50 lost bytes 2 of 3, of a single one 1 of 10.  What is not noticed at all: bytes that happen
to be valid codes, too; damage in JPEGs that Pillow decodes (CMYK).
"""

from __future__ import annotations

import io
import os
import tempfile
import threading
from collections.abc import Callable
from typing import TypeVar

from detseg.messages import printable

_STDERR = 2

_LOST_PIXELS = (
    "premature end of data segment",
    "Premature end of JPEG file",
    "bad Huffman code",
    "instead of RST",
    "Inconsistent progression sequence",
)
"""The warnings of libjpeg (jerror.h) after which pixels are made up.  Not "extraneous bytes before marker": cameras and
programs put such bytes into files whose pictures are whole."""

_WARNING = "Corrupt JPEG data"

_GIVEN_UP = ("grfmt_", "libpng error")
"""Marks of what OpenCV and libpng print of a file that they give up."""

Result = TypeVar("Result")


class _Catcher:
    """Holds the file that takes the place of standard error; one a process, as forked ones would share its position."""

    def __init__(self) -> None:
        self.begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.begin)

    def begin(self) -> None:
        """Forget what a parent process had."""
        self._file: io.FileIO | None = None

    def caught(self, call: Callable[[], Result]) -> tuple[Result, bytes]:
        """What a call returns, and what was printed to standard error meanwhile."""
        try:
            stderr = os.dup(_STDERR)
        except OSError:  # a process without one, as services are
            return call(), b""
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - open as long as the process
        try:
            os.dup2(self._file.fileno(), _STDERR)
            result = call()
        finally:
            os.dup2(stderr, _STDERR)
            os.close(stderr)
            text = _taken(self._file)
        return result, text


def _taken(file: io.FileIO) -> bytes:
    if not file.tell():
        return b""
    file.seek(0)
    text = file.read()
    file.seek(0)
    file.truncate()
    return text


_catcher = _Catcher()


def lost_pixels(decode: Callable[[], Result], name: str) -> tuple[Result, str]:
    """Decode an image, and listen.

    Args:
        decode: calls OpenCV.
        name: of the file; put before lesser warnings of libjpeg, which go on to standard error.

    Returns:
        what it returns, and libjpeg's words if it had to make up pixels, else an empty text, as in any thread but the
        main one.  All else that was printed meanwhile, by whichever thread, goes to standard error as it would have;
        but for what is said of a file that was given up, without its name: whoever tries next says it better.
    """
    if threading.current_thread() is not threading.main_thread():
        return decode(), ""
    result, text = _catcher.caught(decode)
    if not text:
        return result, ""
    words = text.decode(errors="replace")
    damage = next((line.strip() for line in words.splitlines() if any(part in line for part in _LOST_PIXELS)), "")
    others = [line for line in words.splitlines(keepends=True) if line.strip() != damage]
    if result is None:
        others = [line for line in others if not any(mark in line for mark in _GIVEN_UP)]
    if others:
        named = "".join(f"{printable(name)}: {line}" if line.startswith(_WARNING) else line for line in others)
        os.write(_STDERR, named.encode(errors="replace"))
    return result, damage
