"""How a picture names a class: in its colour, and by its name on a filled strip, in letters that grow with the picture.

A class has the same colour in detection, in segmentation and in every picture; a name is written in whichever font has
its letters.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import ImageDraw, ImageFont

Color = tuple[int, int, int]  # RGB in 0..255

# Ten that are told apart at a glance; each of the others lies as far as can be (CIE Lab) from all before it, among
# those that show on a photo.
_PALETTE = bytes.fromhex(
    """
    e03b3b 2f7df6 2aa35c f79a1c 9b4fe0 14bdd3 f7d630 f06bc0 93cc2b a0683f d2c3ff 4b5a87 d2e1a5 5a6900 1e695a ffa5b4
    963c5a 00f078 ff0078 00f0d2 2da5f0 c3a54b a578d2 f05a00 009600 ff9669 a50f96 96f096 69b496 a53c00 b40069 ff78ff
    ff6987 f000a5 78875a b478a5 f0c396 007896 0f690f 78a53c a56900 96d2ff 873c87 a5a500 d2e169 2d4bd2 c30f4b ffa5ff
    0ff0a5 c35a4b a56969 96a5ff d2e10f 7896c3 4b5ab4 87f069 69f0f0 695a2d 00784b 8778ff c39600 ffc35a 3cc35a 3c9696
    d287ff 8778b4 d26987 96c378 784bb4 d2690f c30000 c35ac3 ff1e5a 784b78 2dc396 3c78c3 b44b87 b49669 87691e ffc3f0
    """
)
_BACKGROUND: Color = (0, 0, 0)  # as in the masks of VOC

ERROR_COLORS: dict[str, Color] = {"right": (190, 190, 190), "false": (230, 120, 0), "missed": (0, 120, 230)}
"""Of what is right, of what is found and not there, and of what is there and not found: apart for the colour-blind."""

# Pillow's own font holds little more than ASCII; beyond it, the first of these that is installed and has every letter.
_WIDE_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc")


def class_colors(names: Sequence[str]) -> list[Color]:
    """The colours of classes: black for ``background``, ``class_color`` of its number among the
    others for any other, so that a background, which detectors have not, changes no colour."""
    others = [name for name in names if name != "background"]
    return [_BACKGROUND if name == "background" else class_color(others.index(name)) for name in names]


def class_color(number: int) -> Color:
    """The colour of the class of a number, background not counted, RGB in 0..255; they repeat after 80 classes."""
    start = 3 * number % len(_PALETTE)
    return _PALETTE[start], _PALETTE[start + 1], _PALETTE[start + 2]


def class_legend(names: Sequence[str], labels: Collection[int]) -> list[tuple[str, str, Color]]:
    """The entries for ``draw_legend`` of those classes, ``background`` aside, whose label is among ``labels``."""
    rows = enumerate(zip(names, class_colors(names), strict=True))
    return [(name, "", color) for label, (name, color) in rows if label in labels and name != "background"]


def told_apart(
    colors: Sequence[Color], boxes: npt.NDArray[np.floating] | npt.NDArray[np.integer], one_class: bool = False
) -> list[Color]:
    """The colours of N objects, so that touching ones of one class differ: the class's own, a lighter, a darker one...

    Args:
        colors: of the class of each; equal colours are of one class.
        boxes: (N, 4) xyxy of each.
        one_class: there is no other class, so that other colours mistake none.

    Returns:
        N colours; an object that touches none of its class has the class's own.
    """
    classes = np.array([list(dict.fromkeys(colors)).index(color) for color in colors], dtype=np.int64)
    variants = np.full(len(colors), -1)
    for i, box in enumerate(boxes):
        near = (boxes[:i, :2] <= box[2:]).all(axis=1) & (boxes[:i, 2:] >= box[:2]).all(axis=1)
        used = set(variants[:i][near & (classes[:i] == classes[i])].tolist())
        variants[i] = next(number for number in range(i + 1) if number not in used)
    if one_class:
        start = next((k for k in range(_NUM_TOLD_APART) if colors and class_color(k) == colors[0]), 0)
        return [class_color(start + k % _NUM_TOLD_APART) for k in variants.tolist()]
    return [_shade(color, _SHADES[k % len(_SHADES)]) for color, k in zip(colors, variants.tolist(), strict=True)]


_NUM_TOLD_APART = 8  # colours of the objects of the only class
_SHADES = (0.0, 0.5, -0.45, 0.75, -0.25, 0.25)  # towards white (1) or black (-1)


def _shade(color: Color, amount: float) -> Color:
    towards = 255 if amount > 0 else 0
    red, green, blue = (round(value + abs(amount) * (towards - value)) for value in color)
    return red, green, blue


@dataclass(frozen=True)
class Strip:
    """A text laid out on a filled strip."""

    text: str
    font: ImageFont.FreeTypeFont
    pad: int  # pixels between the text and the strip's edges
    width: int  # of the strip, pixels
    height: int  # pixels

    @classmethod
    def lay_out(cls, name: str, note: str, picture_hw: tuple[int, int]) -> Strip:
        """The strip of a name and a note after it, in letters that fit a picture of ``picture_hw`` pixels.

        A name too long for the picture's width is first written smaller, then cut; the note is kept.
        """
        height, width = picture_hw
        font, text = _fit(name, note, max(12, round(math.sqrt(width * height) / 36)), width)
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
