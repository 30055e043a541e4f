"""Pictures of single errors: a small one of the place, and the whole image with truth and prediction side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from detseg.draw.page import html_name, html_text, jpeg_address
from detseg.structures import FloatArray, InstanceMasks, UInt8Array

_SMALL_SIDE, _WIDEST = 220, 1100  # pixels
_GAP = 1 / 64  # between two pictures, of the width of one
_MOST_BYTES = 2_400_000  # of the JPEG files of all whole images; a third more in the page
_NARROWER = 0.85
_CONTEXT, _LEAST_CONTEXT = 2.4, 48  # of the sides of a box, and pixels
_TRUE, _FOUND = (0, 120, 230), (230, 120, 0)  # as in ``detseg.draw.ERROR_COLORS``


@dataclass(frozen=True)
class Exhibit:
    """An error to show.

    Attributes:
        image: position of the image in the data set.
        caption: what is wrong.
        true_box, found_box: of the label and of the prediction, xyxy, pixels; without both the whole image is shown.
        true_mask, found_mask: the mask of each, whose outline is drawn instead of the box.
        missed: boxes of labels that are outlined in the whole image.
    """

    image: int
    caption: str
    true_box: tuple[float, ...] | None = None
    found_box: tuple[float, ...] | None = None
    true_mask: InstanceMasks | None = None
    found_mask: InstanceMasks | None = None
    missed: Sequence[Sequence[float]] = ()


@dataclass
class Gallery:
    """Collects pictures for a page, each whole image once.

    Attributes:
        wholes: image → truth and prediction side by side, of ``side_by_side``.
    """

    wholes: dict[int, UInt8Array] = field(default_factory=dict)

    def figures(self, exhibits: Iterable[tuple[Exhibit, str, UInt8Array]]) -> str:
        """HTML of exhibits with the name and the pixels of their images; ``wholes`` must have these images."""
        parts = []
        for exhibit, name, image in exhibits:
            caption = f"{html_text(exhibit.caption)}<br>{html_name(name)}"
            small = jpeg_address(jpeg(place_of(image, exhibit)))
            boxes = html_text(json.dumps(list(_outlines(exhibit, (image.shape[0], image.shape[1])))))
            parts.append(
                f'<figure><a href="#image-{exhibit.image}" data-boxes="{boxes}"><img loading="lazy" '
                f'alt="{html_text(exhibit.caption)}" src="{small}"></a><figcaption>{caption}</figcaption></figure>'
            )
        return f'<div class="small pictures">{"".join(parts)}</div>'

    def whole_images(self, names: Sequence[str], shown: str) -> str:
        """HTML of the whole images, each hidden until a link leads to it; ``names`` by image, and what of the
        predictions is ``shown``. Where they would be too
        many bytes, all of them are narrower, and their captions say so."""
        width, files = _WIDEST, {number: jpeg(row) for number, row in self.wholes.items()}
        while sum(map(len, files.values())) > _MOST_BYTES:
            width = round(width * _NARROWER)
            files = {number: jpeg(_narrowed(row, width)) for number, row in self.wholes.items()}
        note = f"; {width} pixels wide at most, so that the page stays small" if width < _WIDEST else ""
        return "".join(
            f'<div class="whole" id="image-{number}" role="dialog"><a class="close" href="#errors" '
            'aria-label="close">×</a>'
            '<button class="previous" aria-label="previous">‹</button><button class="next" aria-label="next">›</button>'
            '<div class="picture"><img '
            f'loading="lazy" alt="truth and prediction" src="{jpeg_address(data)}"></div><div class="part"></div>'
            f"<span>{html_name(names[number])}: truth on the left, on the right {shown}{note}</span></div>"
            for number, data in files.items()
        )


def _outlines(exhibit: Exhibit, hw: tuple[int, int]) -> Iterator[tuple[str, float, float, float, float]]:
    """Where the boxes of an exhibit lie on the whole image, on both sides: what they are, left, top, width and height
    in percent of ``side_by_side``."""
    half = 100 / (2 + _GAP)
    for kind, box in (("true", exhibit.true_box), ("found", exhibit.found_box), *(("true", b) for b in exhibit.missed)):
        if box is not None:
            x1, y1, x2, y2 = (value / side for value, side in zip(box, hw[::-1] * 2, strict=True))
            for start in (0, 1 + _GAP):
                sides = (half * (start + x1), 100 * y1, half * (x2 - x1), 100 * (y2 - y1))
                left, top, width, height = (round(side, 2) for side in sides)
                yield kind, left, top, width, height


def place_of(image: UInt8Array, exhibit: Exhibit) -> UInt8Array:
    """The boxes or masks of an exhibit with some of the image around them."""
    hw = (image.shape[0], image.shape[1])
    boxes = [box for box in (exhibit.true_box, exhibit.found_box) if box is not None]
    left, top, right, bottom = _surroundings(np.array(boxes), hw) if boxes else (0, 0, *hw[::-1])
    part = image[top:bottom, left:right]
    scale = _SMALL_SIDE / max(part.shape[:2])
    size = max(round(part.shape[1] * scale), 1), max(round(part.shape[0] * scale), 1)
    shown = np.ascontiguousarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))
    sides = (exhibit.true_box, exhibit.true_mask, _TRUE), (exhibit.found_box, exhibit.found_mask, _FOUND)
    for box, mask, color in sides:
        if mask is not None:
            inside = mask.mask(0)[top:bottom, left:right].astype(np.float32)
            grown = cv2.resize(inside, size, interpolation=cv2.INTER_LINEAR) >= 0.5
            contours, _ = cv2.findContours(grown.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(shown, contours, -1, color, 2)
        elif box is not None:
            x1, y1, x2, y2 = (round((value - start) * scale) for value, start in zip(box, (left, top) * 2, strict=True))
            cv2.rectangle(shown, (x1, y1), (x2 - 1, y2 - 1), color, 2)
    return np.asarray(shown, dtype=np.uint8)


def _surroundings(boxes: FloatArray, hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """A square around (N, 4) boxes, within the image: left, top, right, bottom."""
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    side = max(float((high - low).max()) * _CONTEXT, _LEAST_CONTEXT)
    start = np.clip((low + high - side) / 2, 0, np.maximum(np.array(hw[::-1]) - side, 0)).round().astype(int).tolist()
    return start[0], start[1], min(start[0] + round(side), hw[1]), min(start[1] + round(side), hw[0])


def side_by_side(pictures: Sequence[UInt8Array]) -> UInt8Array:
    """Pictures of one size in a row, with a gap between them, no wider than a page. (H, W, 3) each."""
    height, width, _ = pictures[0].shape
    gap = np.full((height, round(width * _GAP), 3), 255, dtype=np.uint8)
    return _narrowed(np.concatenate([part for picture in pictures for part in (picture, gap)][:-1], axis=1), _WIDEST)


def _narrowed(row: UInt8Array, width: int) -> UInt8Array:
    scale = width / row.shape[1]
    if scale >= 1:
        return row
    size = width, max(round(row.shape[0] * scale), 1)
    return np.asarray(cv2.resize(row, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def jpeg(picture: UInt8Array) -> bytes:
    """A picture as a JPEG file."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 72])
    return data.tobytes()
