"""Pictures of single errors: a small one of the place, and the whole image with truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from detseg.draw.page import html_text, jpeg_address
from detseg.structures import FloatArray, InstanceMasks, UInt8Array

_SMALL_SIDE, _WIDEST = 220, 1100  # pixels
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
    """

    image: int
    caption: str
    true_box: tuple[float, ...] | None = None
    found_box: tuple[float, ...] | None = None
    true_mask: InstanceMasks | None = None
    found_mask: InstanceMasks | None = None


@dataclass
class Gallery:
    """Collects pictures for a page, each whole image once.

    Attributes:
        wholes: image → JPEG of truth and prediction side by side.
    """

    wholes: dict[int, bytes] = field(default_factory=dict)

    def figures(self, exhibits: Iterable[tuple[Exhibit, str, UInt8Array]]) -> str:
        """HTML of exhibits with the name and the pixels of their images; ``wholes`` must have these images."""
        parts = []
        for exhibit, name, image in exhibits:
            caption = f"{html_text(exhibit.caption)}<br>{html_text(name)}"
            small = jpeg_address(jpeg(place_of(image, exhibit)))
            parts.append(
                f'<figure><a href="#image-{exhibit.image}"><img loading="lazy" alt="{html_text(exhibit.caption)}" '
                f'src="{small}"></a><figcaption>{caption}</figcaption></figure>'
            )
        return f'<div class="small pictures">{"".join(parts)}</div>'

    def whole_images(self, names: Sequence[str]) -> str:
        """HTML of the whole images, each hidden until a link leads to it; ``names`` by image."""
        return "".join(
            f'<a class="whole" id="image-{number}" href="#errors" aria-label="close"><img loading="lazy" '
            f'alt="truth and prediction" src="{jpeg_address(data)}"><span>{html_text(names[number])}: truth on the '
            "left, prediction on the right</span></a>"
            for number, data in self.wholes.items()
        )


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
    """Pictures of one size in a row, with a gap between them, no wider than a page."""
    gap = np.full((pictures[0].shape[0], 8, 3), 255, dtype=np.uint8)
    row = np.concatenate([part for picture in pictures for part in (picture, gap)][:-1], axis=1)
    scale = _WIDEST / row.shape[1]
    if scale >= 1:
        return row
    size = _WIDEST, max(round(row.shape[0] * scale), 1)
    return np.asarray(cv2.resize(row, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def jpeg(picture: UInt8Array, quality: int = 72) -> bytes:
    """A picture as a JPEG file."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()
