"""Colours of classes: the same for a label in every picture."""

from __future__ import annotations

from detseg.structures import ClassTable

Color = tuple[int, int, int]
"""RGB in 0..255."""

# Each colour lies as far as can be (CIE Lab) from all before it, among those light and vivid enough to show on a photo.
_PALETTE = bytes.fromhex(
    """
    f01e1e 00ff00 2d4bff 2dc3d2 ffd200 ff87d2 2d7800 c3875a 1e96ff ff00ff 0fffa5 e1f096 96d200 d2005a ff8700 963cb4
    00785a ff00b4 8769a5 968700 b45a69 87f0c3 b44b0f 00c32d 9600ff 87c3ff f0c3ff 7878ff 87a569 ff78ff ff7869 0069a5
    2db469 ffc369 96f078 b42d87 ffa5b4 d296ff b45aff 78692d 96b43c c300c3 00ffff e1f05a 96ff00 c31e2d d29600 ff6996
    00b496 a5690f ff965a 00ff69 0096c3 c378a5 ff5a00 ff004b c3b469 f0f000 5a69c3 5aa500 a5a5f0 b44b3c d2c34b f00087
    ffb496 00ffd2 87ff5a 78872d a5e196 c369c3 4b783c 69a54b c31ef0 694be1 1ed269 f05ac3 9669d2 4bd2ff 964b87 0f96e1
    """
)


_BACKGROUND: Color = (0, 0, 0)  # as in the masks of VOC


def class_colors(classes: ClassTable) -> list[Color]:
    """The colour of each class in masks and their legends: ``class_color``, and black for a background."""
    return [_BACKGROUND if label == classes.background else class_color(label) for label in range(len(classes))]


def class_color(label: int) -> Color:
    """The colour of a class, RGB in 0..255: the same for a label in every picture; they repeat after 80 classes."""
    start = 3 * label % len(_PALETTE)
    return _PALETTE[start], _PALETTE[start + 1], _PALETTE[start + 2]
