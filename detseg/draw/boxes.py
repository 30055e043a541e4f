"""Boxes with their classes and scores, and masks below them, on a picture.  N counts boxes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from detseg.draw.classes import ERROR_COLORS, Color, Strip, class_color, class_colors, told_apart
from detseg.draw.images import check_image, draw_legend, enlarged, greyed
from detseg.draw.masks import paint_instances
from detseg.structures import InstanceMasks, UInt8Array

_MOST_COVERED = 0.25
"""Fraction of a box that names may cover, those of others and its own together: a name that has no such place is left
out."""

_FEWEST_NAMED = 0.5
"""Fraction of the boxes; where fewer have a place for their name, no name is written, and a legend says more."""

Place = tuple[int, int, int, int]  # left, top, and the first pixels to the right and below


def draw_boxes(
    image: UInt8Array,
    boxes: npt.ArrayLike,
    labels: npt.ArrayLike,
    names: Sequence[str],
    scores: npt.ArrayLike | None = None,
    masks: InstanceMasks | None = None,
    scale: int | None = None,
    legend: bool = False,
    named: bool = True,
    ids: Sequence[int | None] | None = None,
) -> UInt8Array:
    """A copy of an image with boxes drawn on it, each with the name of its class and its score, over masks, if any.

    A name is left out if it would cover more than a quarter of a box, or another name, wherever it is put; all are
    where most would. Touching boxes of one class differ in shade; where there is one class only, in colour.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) xyxy in pixels of ``image``; what lies outside is cut off at its border.
        labels: (N,) integers.
        names: the name of each class, by label; empty: the labels' numbers are written.
        scores: (N,) in [0, 1], drawn from low to high so that the best lie on top; None: drawn in the order given.
        masks: N masks of the size of ``image``, which tint it below all boxes, see ``paint_instances``.
        scale: how many times as large the picture is, at least 1; None: small images are enlarged, others are not.
        legend: add one of classes and numbers of boxes below it, where the name of a class was left out everywhere.
        named, ids: whether names are written at all, and numbers after them: ``#3``; None: for none, or not for this.

    Returns:
        (scale * H, scale * W, 3) uint8 RGB; with a legend it may be higher and wider, see ``draw_legend``.

    Raises:
        ValueError: ``image`` is not (H, W, 3) uint8, a box is not finite, a label has no name, lengths differ, or the
            masks are of another size.
    """
    check_image(image)
    xyxy, numbers, values = _columns(boxes, labels, scores)
    texts, notes = [_name(label, names) for label in numbers], _notes(len(numbers), values, ids)
    table, one_class = class_colors(names), len(names) == 1
    colors = [table[label] if table else class_color(label) for label in numbers]
    own = told_apart(colors, xyxy, one_class)
    outlines = own if one_class else colors
    background = enlarged(image, scale) if masks is None else paint_instances(image, masks, outlines, scale, own)
    height, width, _ = background.shape
    xyxy = xyxy * (width // image.shape[1])
    picture = Image.fromarray(background)
    canvas = ImageDraw.Draw(picture)
    order = list(range(len(xyxy))) if values is None else np.argsort(values, kind="stable").tolist()
    # Thinner where masks show the objects already.
    line = max(1, round(math.sqrt(height * width) / (250 if masks is None else 640)))
    pixels = [_draw_rectangle(canvas, xyxy[i], own[i], line) for i in order]
    strips = [Strip.lay_out(texts[i], notes[i], (height, width)) for i in order] if named else []
    written = set()
    for i, strip, place in zip(order, strips, _places(strips, pixels, (height, width)), strict=named):
        if place is not None:  # after every rectangle, so that no line crosses a text
            strip.draw(canvas, place[0], place[1], own[i])
            written.add(texts[i])
    entries = _legend(texts, colors) if legend and written != set(texts) else []
    return draw_legend(np.array(picture), entries)


def draw_detection_errors(
    image: UInt8Array,
    right: npt.ArrayLike,
    false: npt.ArrayLike,
    missed: npt.ArrayLike,
    names: Sequence[str] = (),
    scale: int | None = None,
) -> UInt8Array:
    """A grey copy of an image with what a detector did on it: boxes that are right in light grey, false ones in orange
    and missed objects in blue (``ERROR_COLORS``).

    Args:
        image: (H, W, 3) uint8 RGB.
        right, false, missed: (N, 4) xyxy each, in pixels of ``image``.
        names: what is written beside the false ones, then beside the missed ones, where there is room; empty: nothing.
        scale: see ``draw_boxes``.

    Returns:
        (scale * H, scale * W, 3) uint8 RGB.

    Raises:
        ValueError: as of ``draw_boxes``.
    """
    check_image(image)
    kinds = {"right": right, "missed": missed, "false": false}  # the last ones lie on top
    picture = Image.fromarray(enlarged(greyed(image), scale))
    canvas, enlargement = ImageDraw.Draw(picture), picture.width // max(image.shape[1], 1)
    line = max(1, round(math.sqrt(picture.height * picture.width) / 250))
    drawn: list[tuple[Place, Color]] = []
    for kind, boxes in kinds.items():
        xyxy, _, _ = _columns(boxes, [0] * len(np.asarray(boxes).reshape(-1, 4)), None)
        width = line if kind != "right" else max(1, line // 2)
        color = ERROR_COLORS[kind]
        places = [_draw_rectangle(canvas, box, color, width) for box in xyxy * enlargement]
        drawn += [(place, color) for place in places] if kind != "right" else []
    if names:
        num_missed = len(np.asarray(missed).reshape(-1, 4))
        num_false = len(drawn) - num_missed
        texts = [*names[num_false:], *names[:num_false]]
        size = (picture.height, picture.width)
        strips = [Strip.lay_out(text, "", size) for text in texts]
        at = _places(strips, [place for place, _ in drawn], size)
        for strip, place, (_, color) in zip(strips, at, drawn, strict=True):
            if place is not None:
                strip.draw(canvas, place[0], place[1], color)
    return np.array(picture)


def _legend(texts: Sequence[str], colors: Sequence[Color]) -> list[tuple[str, str, Color]]:
    """Each class with the number of its boxes, the most frequent first."""
    return [(name, f" {number}", colors[texts.index(name)]) for name, number in Counter(texts).most_common()]


def _columns(
    boxes: npt.ArrayLike, labels: npt.ArrayLike, scores: npt.ArrayLike | None
) -> tuple[npt.NDArray[np.float64], list[int], npt.NDArray[np.float64] | None]:
    """(N, 4) boxes, N labels and (N,) scores, if any; a ValueError where they are wrong."""
    xyxy = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if not np.isfinite(xyxy).all():
        raise ValueError(f"boxes: expected finite numbers, got {xyxy[~np.isfinite(xyxy).all(axis=1)][0].tolist()}")
    numbers = [int(label) for label in np.asarray(labels).reshape(-1)]
    values = None if scores is None else np.asarray(scores, dtype=np.float64).reshape(-1)
    if len(numbers) != len(xyxy) or (values is not None and len(values) != len(xyxy)):
        raise ValueError(f"expected a label and a score for each of {len(xyxy)} boxes, got {len(numbers)} labels")
    return xyxy, numbers, values


def _name(label: int, names: Sequence[str]) -> str:
    if not names:
        return str(label)
    if not 0 <= label < len(names):
        raise ValueError(f"label {label} has no name: expected 0 to {len(names) - 1}")
    return names[label]


def _notes(num: int, scores: npt.NDArray[np.float64] | None, ids: Sequence[int | None] | None) -> list[str]:
    """What is written after the names of boxes."""
    numbers = ["" if one is None else f" #{one}" for one in ids or [None] * num]
    values = [""] * num if scores is None else [f" {score:.2f}" for score in scores]
    return [f"{number}{value}" for number, value in zip(numbers, values, strict=True)]


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
) -> list[Place | None]:
    """Where the strips of boxes (first and last pixels) lie, None for those that give way; the last ones, which are the
    best, choose first."""
    corners = np.array(boxes, dtype=np.int64).reshape(-1, 4) + np.array([0, 0, 1, 1])
    areas = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    covered, taken = np.zeros(len(corners)), np.zeros((0, 4), dtype=np.int64)  # of each box; strips
    places: list[Place | None] = [None] * len(strips)
    for i in reversed(range(len(strips))):
        for place in _around(strips[i], corners[i].tolist(), hw):
            more = _overlaps(place, corners) / areas
            if not _overlaps(place, taken).any() and (covered + more)[more > 0].max(initial=0) <= _MOST_COVERED:
                places[i], covered, taken = place, covered + more, np.append(taken, [place], axis=0)
                break
    enough = len(taken) >= _FEWEST_NAMED * len(places)
    return places if enough else [None] * len(places)


def _overlaps(place: Place, boxes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(N,) pixels that each of (N, 4) boxes has in common with a place."""
    sides = np.minimum(boxes[:, 2:], place[2:]) - np.maximum(boxes[:, :2], place[:2])
    overlaps: npt.NDArray[np.int64] = np.maximum(sides, 0).prod(axis=1)
    return overlaps


def _around(strip: Strip, box: Sequence[int], hw: tuple[int, int]) -> Iterator[Place]:
    """The places of a strip inside the picture, the preferred ones first: above its box, below, inside, beside."""
    left, top, right, bottom = box
    for x, y in (
        (left, top - strip.height),
        (right - strip.width, top - strip.height),
        (left, bottom),
        (right - strip.width, bottom),
        (left, top),
        (left, bottom - strip.height),
        (right, top),
        (left - strip.width, top),
    ):
        beside = x == right or x == left - strip.width
        if not 0 <= y <= hw[0] - strip.height or (beside and not 0 <= x <= hw[1] - strip.width):
            continue
        x = max(0, min(x, hw[1] - strip.width))
        yield x, y, x + strip.width, y + strip.height
    if strip.height > hw[0]:
        yield 0, 0, strip.width, strip.height
