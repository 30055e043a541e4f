"""Elastic deformation (Ronneberger, Fischer, Brox 2015, section 3.1).

"We generate smooth deformations using random displacement vectors on a coarse 3 by 3 grid. The displacements are
sampled from a Gaussian distribution with 10 pixels standard deviation. Per-pixel displacements are then computed using
bicubic interpolation." Here the standard deviation is a fraction of the image's side, so that it fits any size.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from detseg.config.schema.data import ElasticConfig


def random_displacements(
    config: ElasticConfig, hw: tuple[int, int], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Draw for each pixel how far away, along x and y, its content comes from.

    The G x G control points are the centres of equal fields that cover the image; between the outermost ones and the
    border the displacements level off.

    Args:
        config: number of control points, and standard deviation as a fraction of the shorter side.
        hw: height and width, pixels.
        rng: source of the displacements.

    Returns:
        (H, W, 2) float32, pixels.
    """
    control = rng.normal(0.0, config.strength * min(hw), size=(config.grid, config.grid, 2)).astype(np.float32)
    displacements = cv2.resize(control, (hw[1], hw[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(displacements, dtype=np.float32)
