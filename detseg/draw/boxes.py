"""Boxes with their classes and scores, and masks below them, on a picture.

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
from detseg.draw.images import check_picture
from detseg.draw.instances import paint_instances
from detseg.draw.text import Strip
from detseg.structures import DetectorOutput, InstanceMasks, UInt8Array

_MOST_COVERED = 0.25
"""Names that would cover more of a picture are left out where there are masks: hundreds of nuclei would vanish below
them, and their colours tell the classes, too."""


def draw_detections(image: UInt8Array, detections: DetectorOutput) -> UInt8Array:
    """A copy of an image with detections drawn on it, the best on top.

    Args:
        image: (H, W, 3) uint8 RGB.
        detections: N boxes in pixels of ``image``, and their masks, if any; without a class table the labels' numbers
            are written.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: ``image`` is not (H, W, 3) uint8, a box is not finite, or the masks are of another size.
    """
    found = detections.cpu()
    labels, scores = found.labels.tolist(), found.scores.tolist()
    return draw_boxes(image, found.boxes.numpy(), labels, found.classes.names, scores, found.masks)


def draw_boxes(
    image: UInt8Array,
    boxes: npt.ArrayLike,
    labels: npt.ArrayLike,
    names: Sequence[str],
    scores: npt.ArrayLike | None = None,
    masks: InstanceMasks | None = None,
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

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: ``image`` is not (H, W, 3) uint8, a box is not finite, a label has no name, lengths differ, or the
            masks are of another size.
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

    picture = Image.fromarray(image if masks is None else paint_instances(image, masks, numbers))
    canvas = ImageDraw.Draw(picture)
    order = list(range(len(xyxy))) if values is None else np.argsort(values, kind="stable").tolist()
    # Thinner where masks show the objects already.
    line = max(1, round(math.sqrt(image.shape[0] * image.shape[1]) / (320 if masks is None else 640)))
    corners = [_draw_rectangle(canvas, xyxy[i], class_color(numbers[i]), line) for i in order]
    strips = [Strip.lay_out(texts[i], notes[i], image.shape[:2]) for i in order]
    covered = sum(strip.width * strip.height for strip in strips) / (image.shape[0] * image.shape[1])
    if masks is None or covered <= _MOST_COVERED:
        # After every rectangle, so that no line crosses a text.
        for i, strip, corner in zip(order, strips, corners, strict=True):
            _draw_label(canvas, strip, corner, class_color(numbers[i]))
    return np.array(picture)


def _name(label: int, names: Sequence[str]) -> str:
    if not names:
        return str(label)
    if not 0 <= label < len(names):
        raise ValueError(f"label {label} has no name: expected 0 to {len(names) - 1}")
    return names[label]


def _draw_rectangle(
    canvas: ImageDraw.ImageDraw, xyxy: npt.NDArray[np.float64], color: Color, line: int
) -> tuple[int, int]:
    """Draw the outline inside the box's own pixels; returns its top left pixel."""
    width, height = canvas.im.size
    left, top = (min(max(round(float(v)), 0), side - 1) for v, side in zip(xyxy[:2], (width, height), strict=True))
    # Half-open corners: the last pixel of a box is the one before x2, y2.
    right = min(max(round(float(xyxy[2])) - 1, left), width - 1)
    bottom = min(max(round(float(xyxy[3])) - 1, top), height - 1)
    canvas.rectangle((left, top, right, bottom), outline=color, width=line)
    return left, top


def _draw_label(canvas: ImageDraw.ImageDraw, strip: Strip, corner: tuple[int, int], color: Color) -> None:
    """Draw the strip of a name and a note above the box's top left corner; inside the picture at any rate."""
    width, height = canvas.im.size
    left = max(0, min(corner[0], width - strip.width))
    above = corner[1] - strip.height
    top = above if above >= 0 else max(0, min(corner[1], height - strip.height))
    strip.draw(canvas, left, top, color)
