"""Images made of several: mosaic (Bochkovskiy, Wang, Liao 2020, section 3.4) and mixup (Zhang et al. 2018).

N objects.  A mosaic is drawn at the size of the network input at once: each image is cut at the border of its
quadrant and scaled once, so that no canvas of twice the size has to be filled, cropped and resized.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from detseg.data.cropped_masks import CroppedMasks
from detseg.data.geometry import AnnotatedImage, BoxArray, visible_boxes, visible_masks
from detseg.ops.letterbox import PAD_VALUE, Letterbox, resize, resize_labels
from detseg.structures import IGNORE_LABEL, UInt8Array

CENTER_RANGE = (0.3, 0.7)
"""Where the four images of a mosaic meet, as shares of the sides."""

MIXUP_CONCENTRATION = 32.0
"""Both parameters of mixup's Beta distribution: ratios near one half, so that the boxes of both images can be seen."""


def mosaic(
    tiles: Sequence[AnnotatedImage],
    input_hw: tuple[int, int],
    scale_range: tuple[float, float],
    min_visibility: float,
    rng: np.random.Generator,
) -> AnnotatedImage:
    """Put four images around a random point of a grey canvas.

    Each image is scaled to its letterboxed size times a random factor and fills its quadrant from that point outwards;
    what is larger than the quadrant is cut to a random part.  Of a box or mask only what lies in its quadrant counts as
    visible.  Semantic maps are put together in the same way, where every image has one.

    Args:
        tiles: the images for top left, top right, bottom left, bottom right; of any size.
        input_hw: height and width of the result, pixels.
        scale_range: range of the factors, drawn on a logarithmic scale.
        min_visibility: least visible share of a box that stays.
        rng: source of all choices.

    Returns:
        the mosaic; boxes clipped to their quadrants.

    Raises:
        ValueError: not four images, or some of them with a semantic map, or with masks, and some without.
    """
    if len(tiles) != 4:
        raise ValueError(f"a mosaic is made of 4 images, got {len(tiles)}")
    canvas_labels = _canvas_labels(tiles, input_hw)
    height, width = input_hw
    center_x, center_y = round(width * rng.uniform(*CENTER_RANGE)), round(height * rng.uniform(*CENTER_RANGE))
    canvas = np.full((height, width, 3), PAD_VALUE, dtype=np.uint8)
    shown = []
    for position, tile in enumerate(tiles):
        zoom = math.exp(rng.uniform(*np.log(scale_range)))
        fitted_height, fitted_width = Letterbox.fit(tile.hw, input_hw).resized_hw
        x = _Span.draw(tile.hw[1], fitted_width * zoom, center_x, width, after=position % 2 == 1, rng=rng)
        y = _Span.draw(tile.hw[0], fitted_height * zoom, center_y, height, after=position >= 2, rng=rng)
        part = tile.image[y.first : y.first + y.taken, x.first : x.first + x.taken]
        shown_hw = (y.end - y.start, x.end - x.start)
        canvas[y.start : y.end, x.start : x.end] = resize(part, shown_hw)
        if canvas_labels is not None and tile.semantic is not None:
            part = tile.semantic[y.first : y.first + y.taken, x.first : x.first + x.taken]
            canvas_labels[y.start : y.end, x.start : x.end] = resize_labels(part, shown_hw)
        shown.append(_objects_shown(tile, x, y, input_hw, min_visibility))
    return _with_all_objects(canvas, shown)._replace(semantic=canvas_labels)


def _with_all_objects(image: UInt8Array, several: Sequence[AnnotatedImage]) -> AnnotatedImage:
    """An image with the objects of several others, one after the other."""
    masks = [item.masks for item in several if item.masks is not None]
    if len(masks) not in (0, len(several)):
        raise ValueError(f"images are put together with masks all or none, got {len(masks)} of {len(several)} with")
    return AnnotatedImage(
        image,
        np.concatenate([item.boxes for item in several]),
        np.concatenate([item.labels for item in several]),
        np.concatenate([item.ignore for item in several]),
        masks=CroppedMasks.joined(masks) if masks else None,
    )


def _canvas_labels(tiles: Sequence[AnnotatedImage], hw: tuple[int, int]) -> UInt8Array | None:
    """An (H, W) semantic map without labels, or None where the images have none."""
    having = sum(tile.semantic is not None for tile in tiles)
    if having not in (0, len(tiles)):
        raise ValueError(f"a mosaic needs semantic maps of all its images or of none, got {having} of {len(tiles)}")
    return np.full(hw, IGNORE_LABEL, dtype=np.uint8) if having else None


class _Span(NamedTuple):
    """Along one axis: which pixels of an image show (`taken` from `first` on), and from where to where on the canvas.

    What shows is cut out before it is scaled; pixels that no one sees cost nothing.
    """

    first: int
    taken: int
    start: int
    end: int

    @classmethod
    def draw(
        cls, side: int, length: float, center: int, canvas_side: int, *, after: bool, rng: np.random.Generator
    ) -> _Span:
        """Place an image of `side` pixels, scaled to about `length`, before or after the center."""
        room = canvas_side - center if after else center
        shown = min(max(round(length), 1), room)
        taken = min(max(round(side * room / length), 1), side)  # the whole side where there is room for it
        first = int(rng.integers(0, side - taken, endpoint=True))
        return cls(first, taken, center, center + shown) if after else cls(first, taken, center - shown, center)

    def to_canvas(self, positions: BoxArray) -> npt.NDArray[np.float64]:
        """Positions in the image → positions on the canvas."""
        scale = (self.end - self.start) / self.taken
        return (positions.astype(np.float64) - self.first) * scale + self.start


def _objects_shown(
    tile: AnnotatedImage, x: _Span, y: _Span, hw: tuple[int, int], min_visibility: float
) -> AnnotatedImage:
    """A tile whose objects are those that the canvas of height and width ``hw`` shows, as it shows them.

    Too small ones are dropped at the end of the augmentation, which may still zoom.
    """
    if tile.masks is None:
        moved = np.stack([span.to_canvas(tile.boxes[:, k]) for k, span in enumerate((x, y, x, y))], axis=1)
        clipped, keep = visible_boxes(moved, (x.start, y.start, x.end, y.end), min_visibility, 0)
        return tile._replace(boxes=clipped).picked(keep)
    part = tile.masks.cropped((x.first, y.first, x.first + x.taken, y.first + y.taken))
    resized = part.resized((y.end - y.start, x.end - x.start))
    keep = visible_masks(part, min_visibility) & (resized.areas > 0)
    return tile.of_masks(resized.uncut().placed(hw, y.start, x.start)).picked(keep)


def mixup(a: AnnotatedImage, b: AnnotatedImage, rng: np.random.Generator) -> AnnotatedImage:
    """Blend two images of one size at a random ratio; the objects of both count in full.

    Args:
        a: the first image with its objects.
        b: the second, of the same height and width.
        rng: source of the ratio.

    Returns:
        the blend with the objects of `a`, then those of `b`.

    Raises:
        ValueError: images of different size, with semantic maps (a pixel has one label, not two), or one with masks and
            one without.
    """
    if a.semantic is not None or b.semantic is not None:
        raise ValueError("mixup is for boxes: semantic maps cannot be blended; set data.augmentation.mixup to 0")
    if a.hw != b.hw:
        raise ValueError(f"mixup blends images of one size, got {a.hw} and {b.hw}")
    ratio = rng.beta(MIXUP_CONCENTRATION, MIXUP_CONCENTRATION)
    image = cv2.addWeighted(a.image, ratio, b.image, 1 - ratio, 0)
    return _with_all_objects(np.asarray(image, dtype=np.uint8), (a, b))
