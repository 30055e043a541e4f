"""Boxes with their classes and scores, and masks below them, on a picture.  N counts boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from detseg.draw.classes import Color, Strip, class_color, class_colors
from detseg.draw.images import check_image, enlarged
from detseg.draw.masks import paint_instances
from detseg.structures import InstanceMasks, UInt8Array

_MOST_COVERED = 0.25
"""Names that would cover more of a picture are left out where there are masks: hundreds of nuclei would vanish below
them, and their colours tell the classes, too."""


def draw_boxes(
    image: UInt8Array,
    boxes: npt.ArrayLike,
    labels: npt.ArrayLike,
    names: Sequence[str],
    scores: npt.ArrayLike | None = None,
    masks: InstanceMasks | None = None,
    scale: int | None = None,
) -> UInt8Array:
    """A copy of an image with boxes drawn on it, each with the name of its class and its score, over masks, if any.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) xyxy in pixels of ``image``; what lies outside is cut off at its border.
        labels: (N,) integers.
        names: the name of each class, by label; empty: the labels' numbers are written.
        scores: (N,) in [0, 1], drawn from low to high so that the best lie on top; None: drawn in the order given.
        masks: N masks of the size of ``image``, which tint it below all boxes, see ``paint_instances``; names then
            are left out if they would cover more than a quarter of the picture.
        scale: how many times as large the picture is, at least 1; None: small images are enlarged, others are not.

    Returns:
        (scale * H, scale * W, 3) uint8 RGB.

    Raises:
        ValueError: ``image`` is not (H, W, 3) uint8, a box is not finite, a label has no name, lengths differ, or the
            masks are of another size.
    """
    check_image(image)
    xyxy = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if not np.isfinite(xyxy).all():
        raise ValueError(f"boxes: expected finite numbers, got {xyxy[~np.isfinite(xyxy).all(axis=1)][0].tolist()}")
    numbers = [int(label) for label in np.asarray(labels).reshape(-1)]
    values = None if scores is None else np.asarray(scores, dtype=np.float64).reshape(-1)
    if len(numbers) != len(xyxy) or (values is not None and len(values) != len(xyxy)):
        raise ValueError(f"expected a label and a score for each of {len(xyxy)} boxes, got {len(numbers)} labels")
    texts = [_name(label, names) for label in numbers]
    notes = [""] * len(texts) if values is None else [f" {value:.2f}" for value in values]
    table = class_colors(names)
    colors = [table[label] if table else class_color(label) for label in numbers]

    background = enlarged(image, scale) if masks is None else paint_instances(image, masks, colors, scale)
    height, width, _ = background.shape
    xyxy = xyxy * (width // image.shape[1])
    picture = Image.fromarray(background)
    canvas = ImageDraw.Draw(picture)
    order = list(range(len(xyxy))) if values is None else np.argsort(values, kind="stable").tolist()
    # Thinner where masks show the objects already.
    line = max(1, round(math.sqrt(height * width) / (250 if masks is None else 640)))
    pixels = [_draw_rectangle(canvas, xyxy[i], colors[i], line) for i in order]
    strips = [Strip.lay_out(texts[i], notes[i], (height, width)) for i in order]
    covered = sum(strip.width * strip.height for strip in strips) / (height * width)
    if masks is None or covered <= _MOST_COVERED:
        # After every rectangle, so that no line crosses a text.
        for i, strip, (left, top, _, _) in zip(order, strips, _places(strips, pixels, (height, width)), strict=True):
            strip.draw(canvas, left, top, colors[i])
    return np.array(picture)


def _name(label: int, names: Sequence[str]) -> str:
    if not names:
        return str(label)
    if not 0 <= label < len(names):
        raise ValueError(f"label {label} has no name: expected 0 to {len(names) - 1}")
    return names[label]


def _draw_rectangle(
    canvas: ImageDraw.ImageDraw, xyxy: npt.NDArray[np.float64], color: Color, line: int
) -> tuple[int, int, int, int]:
    """Draw the outline inside the box's own pixels; returns its left, top, right and bottom ones."""
    width, height = canvas.im.size
    left, top = (min(max(round(float(v)), 0), side - 1) for v, side in zip(xyxy[:2], (width, height), strict=True))
    # Half-open corners: the last pixel of a box is the one before x2, y2.
    right = min(max(round(float(xyxy[2])) - 1, left), width - 1)
    bottom = min(max(round(float(xyxy[3])) - 1, top), height - 1)
    canvas.rectangle((left, top, right, bottom), outline=color, width=line)
    return left, top, right, bottom


def _places(
    strips: Sequence[Strip], boxes: Sequence[tuple[int, int, int, int]], hw: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """Where the strips of boxes lie; the last ones, which are the best, choose first."""
    places: list[tuple[int, int, int, int]] = []
    for strip, box in zip(reversed(strips), reversed(boxes), strict=True):
        places.append(_place(strip, box, hw, places))
    return places[::-1]


def _place(
    strip: Strip, box: tuple[int, int, int, int], hw: tuple[int, int], taken: list[tuple[int, int, int, int]]
) -> tuple[int, int, int, int]:
    """Where the strip of a box lies, inside the picture at any rate: above the box, or the next place that covers no
    other strip, if there is one; left, top, and the first pixels to the right and below."""
    left, top, right, bottom = box
    places = []
    for x, y in (
        (left, top - strip.height),
        (right + 1 - strip.width, top - strip.height),
        (left, bottom + 1),
        (left, top),
        (left, bottom + 1 - strip.height),
    ):
        if not 0 <= y <= hw[0] - strip.height:
            continue
        x = max(0, min(x, hw[1] - strip.width))
        place = (x, y, x + strip.width, y + strip.height)
        if all(x >= other[2] or other[0] >= place[2] or y >= other[3] or other[1] >= place[3] for other in taken):
            return place
        places.append(place)
    return places[0] if places else (0, 0, strip.width, strip.height)
