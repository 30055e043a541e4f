"""What must be known of a PNG before and after it is decoded: whether OpenCV may, and whether it holds all its rows.

Pillow fills up with black, in silence, where the compressed pixels end early.

W3C, "Portable Network Graphics (PNG) Specification", third edition: rows with a filter byte, Adam7, animations.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of each colour type."""

_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and steps along both, of the pixels of each pass."""

_PIECE = 1 << 20

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ANIMATION = b"acTL"
_COMPRESSED_TEXTS = (b"zTXt", b"iTXt")


def is_plain_png(png: bytes) -> bool:
    """Whether OpenCV takes no more of a PNG than Pillow would.

    Of a damaged animation it gives what it has; texts behind the pixels, which Pillow's header has not come to, it
    expands whatever their size.
    """
    place, behind = len(_SIGNATURE), False
    while place + 8 <= len(png):
        kind = png[place + 4 : place + 8]
        if kind == _ANIMATION or (behind and kind in _COMPRESSED_TEXTS):
            return False
        behind = behind or kind == b"IDAT"
        place += 12 + int.from_bytes(png[place : place + 4], "big")  # length, kind and checksum take four bytes each
    return True


def lacks_rows(data: bytes) -> bool:
    """Whether the compressed pixels of a PNG end before its last row; animations are judged by their first picture."""
    chunks = list(_chunks(data))
    header = next((content for name, content in chunks if name == b"IHDR"), b"")
    if len(header) != 13:
        return True
    if any(frame[4:20] != header[:8] + bytes(8) for frame in _frames_of_first_picture(chunks)):
        return True
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    bits = depth * _CHANNELS.get(color, 0)
    wanted = 0
    for left, top, across, down in passes:
        columns, rows = (width - left + across - 1) // across, (height - top + down - 1) // down
        wanted += rows * (1 + (columns * bits + 7) // 8) if columns > 0 else 0
    return _inflated(b"".join(content for name, content in chunks if name == b"IDAT"), wanted) < wanted


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        yield data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        place += 12 + length


def _frames_of_first_picture(chunks: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """What an animation says of the place of its first picture; it must be all of the image, or Pillow omits rows."""
    for name, content in chunks:
        if name == b"IDAT":
            return
        if name == b"fcTL":
            yield content


def _inflated(pixels: bytes, most: int) -> int:
    """Bytes that compressed ones stand for, counted up to ``most``, a piece at a time."""
    inflate, found = zlib.decompressobj(), 0
    try:
        while found < most and not inflate.eof:
            piece = inflate.decompress(pixels, _PIECE)
            pixels = inflate.unconsumed_tail
            if not piece and not pixels:
                break
            found += len(piece)
    except zlib.error:
        pass  # what came before counts
    return found
