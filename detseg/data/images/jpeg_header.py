"""What the header of a plain JPEG says, without a decoder (ITU-T T.81, annex B): most images are such.

Pillow takes 0.08 ms to open one in the middle of other work, a tenth of what loading an image at 320 pixels takes; this
takes 0.01 ms.  Whatever is not as plain as a photograph from the web is left to Pillow.
"""

from __future__ import annotations

_START, _END = b"\xff\xd8", b"\xff\xd9"
_FRAMES = {0xC0, 0xC1, 0xC2}
"""Baseline, extended and progressive Huffman coding: what libjpeg decodes the same way everywhere."""

_TABLES_AND_TEXTS = {0xDB, 0xC4, 0xDD, 0xFE, 0xE0, 0xE2, 0xED, 0xEE}
"""Quantisation and Huffman tables, restart interval, comment; JFIF, colour profile, Photoshop and Adobe segments."""

_SCAN, _SEVERAL_IMAGES = 0xDA, b"MPF\0"


def plain_jpeg_hw(data: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG in grey or three colours of 8 bits, that ends with its end marker.

    Args:
        data: a file's content.

    Returns:
        pixels, as stored; None for anything else, and where there is more to be asked: an EXIF block, several images.
    """
    if not data.startswith(_START) or not data.endswith(_END):
        return None
    place, hw = 2, None
    while place + 10 <= len(data) and data[place] == 0xFF:
        kind = data[place + 1]
        if kind == _SCAN:
            return hw
        if kind in _FRAMES and hw is None:
            bits, channels = data[place + 4], data[place + 9]
            hw = int.from_bytes(data[place + 5 : place + 7], "big"), int.from_bytes(data[place + 7 : place + 9], "big")
            if bits != 8 or channels not in (1, 3) or not all(hw):
                return None
        elif kind not in _TABLES_AND_TEXTS or data.startswith(_SEVERAL_IMAGES, place + 4):
            return None
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None
