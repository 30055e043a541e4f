"""Text on filled strips: letters that grow with the picture, in whichever font has them."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from PIL import ImageDraw, ImageFont

from detseg.draw.colors import Color

# Pillow's own font holds little more than ASCII; beyond it, the first of these that is installed and has every letter.
_WIDE_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc")


@dataclass(frozen=True)
class Strip:
    """A text laid out on a filled strip.

    Attributes:
        text: what is written.
        font: in which font.
        pad: pixels between the text and the strip's edges.
        width, height: of the strip, pixels.
    """

    text: str
    font: ImageFont.FreeTypeFont
    pad: int
    width: int
    height: int

    @classmethod
    def lay_out(cls, name: str, note: str, picture_hw: tuple[int, int]) -> Strip:
        """The strip of a name and a note after it, in letters that fit a picture of ``picture_hw`` pixels.

        A name too long for the picture's width is first written smaller, then cut; the note is kept.
        """
        height, width = picture_hw
        size = max(12, round(math.sqrt(width * height) / 36))
        font, text = _fit(name, note, size, width)
        pad = max(1, round(font.size / 5))
        top, bottom = (font.getbbox("Ag")[i] for i in (1, 3))
        strip_w = math.ceil(font.getlength(text)) + 2 * pad
        return cls(text, font, pad, strip_w, math.ceil(bottom - top) + 2 * pad)

    def draw(self, canvas: ImageDraw.ImageDraw, left: int, top: int, color: Color) -> None:
        """Fill the strip with ``color``, its top left pixel at ``left`` and ``top``, and write on it."""
        canvas.rectangle((left, top, left + self.width - 1, top + self.height - 1), fill=color)
        brightness = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
        ascent = self.font.getbbox("Ag")[1]
        at = (left + self.pad, top + self.pad - ascent)
        canvas.text(at, self.text, font=self.font, fill="black" if brightness > 140 else "white")


def _fit(name: str, note: str, size: int, width: int) -> tuple[ImageFont.FreeTypeFont, str]:
    """The font and the text that fit a picture of ``width`` pixels: first the letters shrink, then the name is cut."""
    written, font = _written(" ".join(name.split()), size)
    while font.getlength(written + note) > width - size and size > 8:
        size -= 1
        written, font = _written(written, size)
    text = written + note
    while font.getlength(text) > width - 4 and written:
        written = written[:-1]
        text = f"{written}...{note}"
    return font, text


def _written(text: str, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """What can be written of a text, and in which font; a letter that no font has becomes its code, as ``\\u4e2d``."""
    own = _own_font(size)
    if text.isascii() and text.isprintable():  # nearly always, and looking glyphs up is slow
        return text, own
    for font in (own, *(_installed_font(name, size) for name in _WIDE_FONTS)):
        if font is not None and not _missing(text, font):
            return text, font
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    missing = _missing(plain, own)
    return "".join(c.encode("unicode_escape").decode() if c in missing else c for c in plain), own


@lru_cache(maxsize=64)
def _own_font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType; install the published wheel of pillow")
    return font


@lru_cache(maxsize=64)
def _installed_font(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:  # not on this machine
        return None


def _missing(text: str, font: ImageFont.FreeTypeFont) -> set[str]:
    """The characters that the font draws as its box for unknown ones (that of a code that is no character)."""
    unknown = bytes(font.getmask("\uffff"))
    return {c for c in set(text) if not c.isspace() and bytes(font.getmask(c)) == unknown}
