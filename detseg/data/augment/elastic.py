"""Elastic deformation of an image with its semantic map or masks (Ronneberger, Fischer, Brox 2015, section 3.1).

"We generate smooth deformations using random displacement vectors on a coarse 3 by 3 grid.  The displacements are
sampled from a Gaussian distribution with 10 pixels standard deviation.  Per-pixel displacements are then computed using
bicubic interpolation."  Here the standard deviation is a share of the image's side, so that it fits any size.

H and W pixels, G control points along each side.  Coordinates are those of edges: pixel i covers [i, i + 1).
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from detseg.config.schema.data import ElasticConfig
from detseg.data.augment.affine import AffineMatrix, between_centers, mapped_boxes
from detseg.data.augment.geometry import AugmentItem
from detseg.ops.letterbox import PAD_VALUE
from detseg.structures import IGNORE_LABEL, UInt8Array


def random_displacements(
    config: ElasticConfig, hw: tuple[int, int], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Draw for each pixel how far away, along x and y, its content comes from.

    The control points are the middles of G × G equal fields that cover the image; from the outermost ones to the border
    the displacements level off.

    Args:
        config: number of control points, and standard deviation as a share of the shorter side.
        hw: height and width, pixels.
        rng: source of the displacements.

    Returns:
        (H, W, 2) float32, pixels.
    """
    control = rng.normal(0.0, config.strength * min(hw), size=(config.grid, config.grid, 2)).astype(np.float32)
    displacements = cv2.resize(control, (hw[1], hw[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(displacements, dtype=np.float32)


def deformed(
    item: AugmentItem, displacements: npt.NDArray[np.float32], matrix: AffineMatrix | None = None
) -> AugmentItem:
    """Map image, semantic map and masks by an affine map, then by displacements, in one interpolation.

    The image is interpolated bilinearly between pixels and grey outside, the map takes the nearest label, and
    ``IGNORE_LABEL`` outside; masks take the nearest pixel, and boxes become their bounds.

    Args:
        item: an image with a semantic map and no boxes, or with masks.
        displacements: (H, W, 2) float32, pixels; the result's pixel p shows what lies at p + displacement.
        matrix: (2, 3) affine map in edge coordinates that comes first; None: there is none.

    Raises:
        ValueError: there are boxes without masks, or neither a semantic map nor masks.
    """
    if item.masks is None and (item.semantic is None or len(item.boxes)):
        raise ValueError(
            "an elastic deformation is for semantic maps and masks, boxes cannot follow it; "
            "set data.augmentation.elastic.probability to 0"
        )
    height, width = item.hw
    places = displacements.copy()  # H W 2, counted from the centre of the first pixel, as OpenCV does
    places[..., 0] += np.arange(width, dtype=np.float32)
    places[..., 1] += np.arange(height, dtype=np.float32)[:, None]
    if matrix is not None:
        places = np.asarray(cv2.transform(places, cv2.invertAffineTransform(between_centers(matrix))), dtype=np.float32)
    x, y = cv2.split(places)  # H W each

    def nearest(labels: UInt8Array, outside: int = 0) -> UInt8Array:
        mapped = cv2.remap(labels, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=outside)
        return np.asarray(mapped, dtype=np.uint8)

    image = cv2.remap(item.image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(PAD_VALUE,) * 3)
    changed = item._replace(
        image=np.asarray(image, dtype=np.uint8),
        semantic=None if item.semantic is None else nearest(item.semantic, IGNORE_LABEL),
    )
    if item.masks is None:
        return changed
    boxes, scale = item.boxes.astype(np.float64), 1.0
    if matrix is not None:
        boxes, scale = mapped_boxes(item.boxes, matrix), abs(float(np.linalg.det(matrix[:, :2])))
    dx, dy = cv2.split(displacements)  # H W each; numpy takes long for the extremes of interleaved values
    farthest = np.array([dx.max(), dy.max(), dx.min(), dy.min()])  # pixel p shows what was at p + displacement
    return changed.of_masks(item.masks.resampled(nearest, boxes - farthest, scale, item.hw))
