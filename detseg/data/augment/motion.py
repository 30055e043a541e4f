"""How one training image is moved: flips, zoom and affine map, elastic deformation, drawn before there is an image.

H and W pixels of the network input.  Coordinates are those of edges: pixel i covers [i, i + 1).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detseg.data.augment.affine import MAX_SIDE, AffineMatrix, chained, flip_matrix
from detseg.data.augment.elastic import deformed
from detseg.data.augment.geometry import AugmentItem, flipped, letterboxed, warped
from detseg.data.augment.placement import Place, Span, boxes_on_canvas
from detseg.ops.letterbox import PAD_VALUE, Letterbox
from detseg.structures import IGNORE_LABEL


class Motion(NamedTuple):
    """What happens to a letterboxed image or a mosaic of the input's size, in this order.

    Attributes:
        horizontal, vertical: whether it is mirrored left to right, top to bottom.
        matrix: (2, 3), scale jitter and affine map in edge coordinates of the input; None where neither happens.
        displacements: (H, W, 2) float32 pixels of the elastic deformation; None where there is none.
    """

    horizontal: bool = False
    vertical: bool = False
    matrix: AffineMatrix | None = None
    displacements: npt.NDArray[np.float32] | None = None

    def affine(self, hw: tuple[int, int]) -> AffineMatrix:
        """(2, 3): flips and matrix as one map of an input of height and width ``hw``."""
        flips = flip_matrix(hw, horizontal=self.horizontal, vertical=self.vertical)
        return flips if self.matrix is None else chained(flips, then=self.matrix)

    @property
    def is_upright(self) -> bool:
        """Whether it turns and shears nothing, so that upright rectangles stay such."""
        turned = self.matrix is not None and bool(self.matrix[0, 1] or self.matrix[1, 0])
        return not turned and self.displacements is None


def moved(item: AugmentItem, motion: Motion, hw: tuple[int, int]) -> AugmentItem:
    """Letterbox an image of any size to height and width ``hw`` and move it; with a matrix, in one interpolation.

    Raises:
        ValueError: an elastic deformation of boxes without masks, which cannot follow it.
    """
    if motion.matrix is not None and motion.displacements is None:
        matrix = chained(Letterbox.fit(item.hw, hw).matrix, then=motion.affine(hw))
        if motion.is_upright:
            return placed(item, matrix, hw)
        if max(item.hw) <= MAX_SIDE:
            return warped(item, matrix, hw)
    item = flipped(letterboxed(item, hw), horizontal=motion.horizontal, vertical=motion.vertical)
    if motion.displacements is not None:
        return deformed(item, motion.displacements, motion.matrix)
    return item if motion.matrix is None else warped(item, motion.matrix)


def placed(item: AugmentItem, matrix: AffineMatrix, hw: tuple[int, int]) -> AugmentItem:
    """Map image, objects and semantic map by a (2, 3) affine matrix in edge coordinates that turns and shears nothing.

    As ``warped``, but the image's edges come to lie on whole pixels, so that it can be resized, in a third of the time.

    Args:
        item: of any size.
        matrix: from the image to the result.
        hw: height and width of the result, pixels.
    """
    height, width = item.hw
    whole = Span(0, width, 0, width), Span(0, height, 0, height)
    place = Place.mapped(whole, matrix, hw)
    canvas = np.full((*hw, 3), PAD_VALUE, dtype=np.uint8)
    labels = None if item.semantic is None else np.full(hw, IGNORE_LABEL, dtype=np.uint8)
    if place.is_seen:
        canvas[place.window] = place.pixels(item.image)
        if labels is not None and item.semantic is not None:
            labels[place.window] = place.labels(item.semantic)
        scales_and_offsets = np.array(place.scales_and_offsets)
        boxes = boxes_on_canvas(item.boxes, scales_and_offsets[:4], scales_and_offsets[4:])
        changed = item._replace(image=canvas, boxes=boxes, semantic=labels)
        return changed if item.masks is None else changed.of_masks(place.masks(item.masks, hw))
    masks = None if item.masks is None else item.masks.placed(hw, 0, 0)
    return item._replace(image=canvas, semantic=labels, masks=masks).picked(np.zeros(len(item.boxes), dtype=bool))
