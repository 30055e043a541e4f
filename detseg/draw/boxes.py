"""Boxes with their classes and scores on a picture.

Lines and letters grow with the picture, so that a drawing reads alike at 160 and at 4000 pixels.  Pictures are
(H, W, 3) uint8 RGB arrays; what is passed in is never changed.  N counts boxes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from detseg.draw.colors import Color, class_color
from detseg.draw.lettering import Strip
from detseg.draw.pictures import check_picture
from detseg.structures import Detections, UInt8Array


def draw_detections(image: UInt8Array, detections: Detections) -> UInt8Array:
    """A copy of an image with detections drawn on it, the best on top.

    Args:
        image: (H, W, 3) uint8 RGB.
        detections: N boxes in pixels of ``image``; without a class table the labels' numbers are written.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: ``image`` is not (H, W, 3) uint8, or a box is not finite.
    """
    found = detections.cpu()
    return draw_boxes(image, found.boxes.numpy(), found.labels.tolist(), found.classes.names, found.scores.tolist())


def draw_boxes(
    image: UInt8Array,
    boxes: npt.ArrayLike,
    labels: npt.ArrayLike,
    names: Sequence[str],
    scores: npt.ArrayLike | None = None,
) -> UInt8Array:
    """A copy of an image with boxes drawn on it, each with the name of its class and its score.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) xyxy in pixels of ``image``; what lies outside is cut off at its border.
        labels: (N,) integers.
        names: the name of each class, by label; empty: the labels' numbers are written.
        scores: (N,) in [0, 1], drawn from low to high so that the best lie on top; None: drawn in the order given.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: ``image`` is not (H, W, 3) uint8, a box is not finite, a label has no name, or lengths differ.
    """
    check_picture(image)
    xyxy = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if not np.isfinite(xyxy).all():
        raise ValueError(f"boxes: expected finite numbers, got {xyxy[~np.isfinite(xyxy).all(axis=1)][0].tolist()}")
    numbers = [int(label) for label in np.asarray(labels).reshape(-1)]
    values = None if scores is None else np.asarray(scores, dtype=np.float64).reshape(-1)
    if len(numbers) != len(xyxy) or (values is not None and len(values) != len(xyxy)):
        raise ValueError(f"expected a label and a score for each of {len(xyxy)} boxes, got {len(numbers)} labels")
    texts = [_name(label, names) for label in numbers]
    notes = [""] * len(texts) if values is None else [f" {value:.2f}" for value in values]

    picture = Image.fromarray(image)
    canvas = ImageDraw.Draw(picture)
    order = list(range(len(xyxy))) if values is None else np.argsort(values, kind="stable").tolist()
    corners = [_draw_rectangle(canvas, xyxy[i], class_color(numbers[i])) for i in order]
    for i, corner in zip(order, corners, strict=True):  # after every rectangle, so that no line crosses a text
        _draw_label(canvas, texts[i], notes[i], corner, class_color(numbers[i]))
    return np.array(picture)


def _name(label: int, names: Sequence[str]) -> str:
    if not names:
        return str(label)
    if not 0 <= label < len(names):
        raise ValueError(f"label {label} has no name: expected 0 to {len(names) - 1}")
    return names[label]


def _draw_rectangle(canvas: ImageDraw.ImageDraw, xyxy: npt.NDArray[np.float64], color: Color) -> tuple[int, int]:
    """Draw the outline inside the box's own pixels; returns its top left pixel."""
    width, height = canvas.im.size
    left, top = (min(max(round(float(v)), 0), side - 1) for v, side in zip(xyxy[:2], (width, height), strict=True))
    # Half-open corners: the last pixel of a box is the one before x2, y2.
    right = min(max(round(float(xyxy[2])) - 1, left), width - 1)
    bottom = min(max(round(float(xyxy[3])) - 1, top), height - 1)
    line = max(1, round(math.sqrt(width * height) / 320))
    canvas.rectangle((left, top, right, bottom), outline=color, width=line)
    return left, top


def _draw_label(canvas: ImageDraw.ImageDraw, name: str, note: str, corner: tuple[int, int], color: Color) -> None:
    """Write name and note on a filled strip above the box's top left corner; inside the picture at any rate."""
    width, height = canvas.im.size
    strip = Strip.lay_out(name, note, (height, width))
    left = max(0, min(corner[0], width - strip.width))
    above = corner[1] - strip.height
    top = above if above >= 0 else max(0, min(corner[1], height - strip.height))
    strip.draw(canvas, left, top, color)
