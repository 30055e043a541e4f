"""JPEG decoding by simplejpeg (libjpeg-turbo), which reports lost bytes, in any thread.

A JPEG that lost bytes from its middle decodes to an image that is shifted or grey from there on. OpenCV and Pillow
return it as if it were whole. Bytes that happen to be valid codes are noticed by no decoder.
"""

from __future__ import annotations

import logging

import numpy as np
import simplejpeg

from detseg.errors import DataError
from detseg.messages import printable
from detseg.structures import UInt8Array

_LOST_PIXELS = (
    "premature end of data segment",
    "bad Huffman code",
    "bad arithmetic code",
    "instead of RST",
    "Inconsistent progression sequence",
)
"""libjpeg's warnings (jerror.h) after which pixels are made up. Cameras write extraneous bytes: those are logged."""


def decode_jpeg(data: bytes, hw: tuple[int, int], divisor: int, name: str) -> UInt8Array | None:
    """Decode a JPEG, in full (``divisor`` 1) or at 1/2, 1/4 or 1/8 of its size.

    Args:
        data: the content of a file; ``name``: the file, for messages.
        hw: height H and width W that its header states.

    Returns (⌈H / divisor⌉, ⌈W / divisor⌉, 3) uint8 RGB, as stored; None where simplejpeg cannot decode the file.

    Raises:
        DataError: pixels are lost.
    """
    try:  # at the smallest of libjpeg's 16 sizes that is large enough, which is the one asked for
        image = simplejpeg.decode_jpeg(data, min_height=-(-hw[0] // divisor), min_width=-(-hw[1] // divisor))
    except ValueError as error:
        if any(words in str(error) for words in _LOST_PIXELS):
            raise DataError(
                f"{name}: the image is damaged, a part of its pixels is lost (the decoder says: {error}); replace the "
                "file or take it off the list; if it looks whole, save it again"
            ) from None
        if "extraneous bytes" in str(error):
            logging.getLogger("detseg").warning("%s: %s", printable(name), error)
        return None
    return np.asarray(image, dtype=np.uint8)
