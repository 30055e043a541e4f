"""Where an image, or one of a mosaic's, lies on the canvas when nothing is turned, and what of it is to be seen.

N objects.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from detseg.data.augment.affine import AffineMatrix
from detseg.data.augment.instance_layers import CroppedMasks
from detseg.ops.letterbox import resize_labels
from detseg.structures import UInt8Array


class Span(NamedTuple):
    """Along one axis: which pixels of an image show (`taken` from `first` on), and from where to where on the canvas.

    What shows is cut out before it is scaled; pixels that no one sees cost nothing.
    """

    first: int
    taken: int
    start: int
    end: int
    mirrored: bool = False

    @classmethod
    def draw(
        cls, side: int, length: float, center: int, canvas_side: int, *, after: bool, rng: np.random.Generator
    ) -> Span:
        """Place an image of `side` pixels, scaled to about `length`, before or after the center."""
        room = canvas_side - center if after else center
        shown = min(max(round(length), 1), room)
        taken = min(max(round(side * room / length), 1), side)  # the whole side where there is room for it
        first = int(rng.integers(0, side - taken, endpoint=True))
        return cls(first, taken, center, center + shown) if after else cls(first, taken, center - shown, center)

    def moved(self, factor: float, offset: float, canvas_side: int) -> Span:
        """What is seen when the canvas is mapped by x → factor · x + offset; nothing of it: of no length.

        Ends are rounded to whole pixels, those of two spans that meet to the same one.
        """
        ends = factor * self.start + offset, factor * self.end + offset
        low, high = min(ends), max(ends)
        start, end = max(round(low), 0), min(round(high), canvas_side)
        if start >= end:
            return Span(self.first, 0, 0, 0)
        scale = self.taken / (high - low)
        near, far = (start - low) * scale, (end - low) * scale  # in pixels of the part that showed
        if factor < 0:
            near, far = self.taken - far, self.taken - near
        skipped = min(max(round(near), 0), self.taken - 1)
        taken = max(min(round(far), self.taken), skipped + 1) - skipped
        return Span(self.first + skipped, taken, start, end, factor < 0)

    @property
    def scale_and_offset(self) -> tuple[float, float]:
        """Of the map from positions in the image to positions on the canvas."""
        scale = (self.end - self.start) / max(self.taken, 1)
        return (-scale, self.end + self.first * scale) if self.mirrored else (scale, self.start - self.first * scale)


class Place(NamedTuple):
    """An image's part of the canvas.

    Attributes:
        quadrant: along x and y, which part may show: that in the image's quadrant of a mosaic, or all of it.
        seen: and what of it the finished canvas shows, where it lies there.
    """

    quadrant: tuple[Span, Span]
    seen: tuple[Span, Span]

    @classmethod
    def mapped(cls, quadrant: tuple[Span, Span], matrix: AffineMatrix, hw: tuple[int, int]) -> Place:
        """What is seen, on a canvas of height and width ``hw``, after a (2, 3) map that turns and shears nothing."""
        x, y = quadrant
        (factor_x, _, offset_x), (_, factor_y, offset_y) = matrix.tolist()
        return cls(quadrant, (x.moved(factor_x, offset_x, hw[1]), y.moved(factor_y, offset_y, hw[0])))

    @property
    def is_seen(self) -> bool:
        """Whether there is a pixel of it."""
        return self.seen[0].taken > 0 and self.seen[1].taken > 0

    @property
    def window(self) -> tuple[slice, slice]:
        """Its rows and columns on the canvas."""
        x, y = self.seen
        return slice(y.start, y.end), slice(x.start, x.end)

    @property
    def shown_window(self) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 of the part of the image that may show, pixels."""
        x, y = self.quadrant
        return x.first, y.first, x.first + x.taken, y.first + y.taken

    @property
    def scales_and_offsets(self) -> tuple[float, ...]:
        """What ``boxes_on_canvas`` asks for: four scales, then four offsets."""
        (scale_x, offset_x), (scale_y, offset_y) = (span.scale_and_offset for span in self.seen)
        return scale_x, scale_y, scale_x, scale_y, offset_x, offset_y, offset_x, offset_y

    def pixels(self, image: UInt8Array) -> UInt8Array:
        """What is seen of the image, as it is seen."""
        x, y = self.seen
        return self._mirrored(resize_smoothly(_cut(image, x, y), (y.end - y.start, x.end - x.start)))

    def labels(self, semantic: UInt8Array) -> UInt8Array:
        """What is seen of its semantic map."""
        x, y = self.seen
        return self._mirrored(resize_labels(_cut(semantic, x, y), (y.end - y.start, x.end - x.start)))

    def masks(self, shown: CroppedMasks, hw: tuple[int, int]) -> CroppedMasks:
        """What is seen, on a canvas of height and width ``hw``, of masks that are cut to the part that may show."""
        (quadrant_x, quadrant_y), (x, y) = self.quadrant, self.seen
        left, top = x.first - quadrant_x.first, y.first - quadrant_y.first
        part = shown.cropped((left, top, left + x.taken, top + y.taken))
        resized = part.resized((y.end - y.start, x.end - x.start))
        return resized.flipped(horizontal=x.mirrored, vertical=y.mirrored).placed(hw, y.start, x.start)

    def _mirrored(self, pixels: UInt8Array) -> UInt8Array:
        across, down = (span.mirrored for span in self.seen)
        if not across and not down:
            return pixels
        return np.asarray(cv2.flip(pixels, (-1 if down else 1) if across else 0), dtype=np.uint8)


def boxes_on_canvas(
    boxes: npt.NDArray[np.float32], scales: npt.NDArray[np.float64], offsets: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """(N, 4) xyxy in pixels of images → (N, 4) float32 xyxy on the canvas.

    Args:
        boxes: of one image or several.
        scales, offsets: (4,), or (N, 4) one row a box; negative scales mirror.
    """
    ends = boxes * scales + offsets
    corners = np.minimum(ends[:, :2], ends[:, 2:]), np.maximum(ends[:, :2], ends[:, 2:])
    result: npt.NDArray[np.float32] = np.concatenate(corners, axis=1).astype(np.float32)
    return result


def _cut(pixels: UInt8Array, x: Span, y: Span) -> UInt8Array:
    return pixels[y.first : y.first + y.taken, x.first : x.first + x.taken]


def resize_smoothly(image: UInt8Array, hw: tuple[int, int]) -> UInt8Array:
    """Resize an (H, W, 3) uint8 image: halved as often as its sides allow, then interpolated between four pixels.

    By area it would take 1 to 2 ms for 640 × 480 pixels, here 0.1 to 0.4; a letterbox of evaluation is not at stake.
    """
    height, width = image.shape[:2]
    while height % 2 == width % 2 == 0 and height >= 2 * hw[0] and width >= 2 * hw[1]:
        height, width = height // 2, width // 2
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return np.asarray(cv2.resize(image, (hw[1], hw[0]), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
