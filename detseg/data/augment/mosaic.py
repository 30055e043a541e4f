"""Images made of several: mosaic (Bochkovskiy, Wang, Liao 2020, section 3.4) and mixup (Zhang et al. 2018).

N objects.  A mosaic is drawn at the size of the network input at once: each image is cut at the border of its
quadrant and scaled once, so that no canvas of twice the size has to be filled, cropped and resized.  Flips, zoom and
shift of the whole mosaic are part of that scaling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from detseg.data.augment.affine import AffineMatrix
from detseg.data.augment.geometry import AugmentItem, visible_boxes, visible_masks
from detseg.data.augment.instance_layers import CroppedMasks
from detseg.data.augment.placement import Place, Span, boxes_on_canvas
from detseg.ops.letterbox import PAD_VALUE, Letterbox
from detseg.structures import IGNORE_LABEL, UInt8Array

CENTER_RANGE = (0.3, 0.7)
"""Where the four images of a mosaic meet, as shares of the sides."""

STILL: AffineMatrix = np.eye(2, 3)
"""The map that moves nothing."""

MIXUP_CONCENTRATION = 32.0
"""Both parameters of mixup's Beta distribution: ratios near one half, so that the boxes of both images can be seen."""


def mosaic(
    tiles: Sequence[AugmentItem],
    input_hw: tuple[int, int],
    scale_range: tuple[float, float],
    min_visibility: float,
    rng: np.random.Generator,
    matrix: AffineMatrix = STILL,
) -> AugmentItem:
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
        matrix: (2, 3) map of the whole mosaic in edge coordinates, which turns and shears nothing.

    Returns:
        the mosaic; boxes clipped to their quadrants, of which a map may have moved parts out of sight.

    Raises:
        ValueError: not four images, or some of them with a semantic map, or with masks, and some without.
    """
    if len(tiles) != 4:
        raise ValueError(f"a mosaic is made of 4 images, got {len(tiles)}")
    canvas_labels = _canvas_labels(tiles, input_hw)
    height, width = input_hw
    center_x, center_y = round(width * rng.uniform(*CENTER_RANGE)), round(height * rng.uniform(*CENTER_RANGE))
    canvas = np.full((height, width, 3), PAD_VALUE, dtype=np.uint8)
    places = []
    for position, tile in enumerate(tiles):
        zoom = math.exp(rng.uniform(math.log(scale_range[0]), math.log(scale_range[1])))
        fitted_height, fitted_width = Letterbox.fit(tile.hw, input_hw).resized_hw
        x = Span.draw(tile.hw[1], fitted_width * zoom, center_x, width, after=position % 2 == 1, rng=rng)
        y = Span.draw(tile.hw[0], fitted_height * zoom, center_y, height, after=position >= 2, rng=rng)
        place = Place.mapped((x, y), matrix, input_hw)
        places.append(place)
        if place.is_seen:
            canvas[place.window] = place.pixels(tile.image)
            if canvas_labels is not None and tile.semantic is not None:
                canvas_labels[place.window] = place.labels(tile.semantic)
    return _objects_seen(tiles, places, min_visibility, canvas)._replace(semantic=canvas_labels)


def _with_all_objects(image: UInt8Array, several: Sequence[AugmentItem]) -> AugmentItem:
    """An image with the objects of several others, one after the other."""
    masks = [item.masks for item in several if item.masks is not None]
    if len(masks) not in (0, len(several)):
        raise ValueError(f"images are put together with masks all or none, got {len(masks)} of {len(several)} with")
    return AugmentItem(
        image,
        np.concatenate([item.boxes for item in several]),
        np.concatenate([item.labels for item in several]),
        np.concatenate([item.ignore for item in several]),
        masks=CroppedMasks.joined(masks) if masks else None,
    )


def _canvas_labels(tiles: Sequence[AugmentItem], hw: tuple[int, int]) -> UInt8Array | None:
    """An (H, W) semantic map without labels, or None where the images have none."""
    having = sum(tile.semantic is not None for tile in tiles)
    if having not in (0, len(tiles)):
        raise ValueError(f"a mosaic needs semantic maps of all its images or of none, got {having} of {len(tiles)}")
    return np.full(hw, IGNORE_LABEL, dtype=np.uint8) if having else None


def _objects_seen(
    tiles: Sequence[AugmentItem], places: Sequence[Place], min_visibility: float, canvas: UInt8Array
) -> AugmentItem:
    """The canvas with the objects that it shows, as it shows them.

    Too small ones are dropped at the end of the augmentation, which may still zoom.
    """
    if any(tile.masks is not None for tile in tiles):
        hw = (canvas.shape[0], canvas.shape[1])
        shown = [_masks_seen(tile, place, min_visibility, hw) for tile, place in zip(tiles, places, strict=True)]
        return _with_all_objects(canvas, shown)
    item = _with_all_objects(canvas, tiles)
    table = [(*place.shown_window, *place.scales_and_offsets, place.is_seen) for place in places]
    of_box = np.repeat(np.array(table), [len(tile.boxes) for tile in tiles], axis=0)  # (N, 13)
    clipped, keep = visible_boxes(item.boxes, of_box[:, :4], min_visibility, 0)  # in pixels of the tiles
    boxes = boxes_on_canvas(clipped, of_box[:, 4:8], of_box[:, 8:12])
    keep &= (of_box[:, 12] > 0) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)  # thin ones may round to nothing
    return item._replace(boxes=boxes).picked(keep)


def _masks_seen(tile: AugmentItem, place: Place, min_visibility: float, hw: tuple[int, int]) -> AugmentItem:
    """A tile with the objects that the canvas of height and width ``hw`` shows, as it shows them."""
    if tile.masks is None:
        return tile
    part = tile.masks.cropped(place.shown_window)
    if not place.is_seen:
        return tile.of_masks(part.placed(hw, 0, 0)).picked(np.zeros(len(part), dtype=bool))
    seen = place.masks(part.uncut(), hw)
    return tile.of_masks(seen).picked(visible_masks(part, min_visibility) & (seen.areas > 0))


def mixup(a: AugmentItem, b: AugmentItem, rng: np.random.Generator) -> AugmentItem:
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
