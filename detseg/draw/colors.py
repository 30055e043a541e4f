"""Colours of classes: the same for a class in detection, in segmentation and in every picture."""

from __future__ import annotations

from collections.abc import Sequence

Color = tuple[int, int, int]
"""RGB in 0..255."""

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


def class_colors(names: Sequence[str]) -> list[Color]:
    """The colours of classes: black for ``background``, ``class_color`` of its number among the
    others for any other, so that a background, which detectors have not, changes no colour."""
    others = [name for name in names if name != "background"]
    return [_BACKGROUND if name == "background" else class_color(others.index(name)) for name in names]


def class_color(number: int) -> Color:
    """The colour of the class of a number, background not counted, RGB in 0..255; they repeat after 80 classes."""
    start = 3 * number % len(_PALETTE)
    return _PALETTE[start], _PALETTE[start + 1], _PALETTE[start + 2]
