"""Random brightness, contrast, saturation and hue as one linear map of colours.

Each pixel goes through one (3, 4) matrix instead of four passes. Two things differ from torchvision and albumentations:

- clipping comes last: values that one change takes out of [0, 255] and the next one brings back are not lost;
- hue is a rotation of the colours about the grey axis, not a shift of HSV's hexagon. Both are the same for a third of
  the circle or two (red becomes green), and for greys; at the default of 0.015 pure colours differ by up to 13 levels.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from detseg.config.schema.data import ColorConfig
from detseg.structures import UInt8Array

_GREY = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in the luminance (ITU-R BT.601)."""

ColorMatrix = npt.NDArray[np.float64]
"""(3, 4): (red, green, blue, 1) in 0..255 → red, green, blue."""


def changed_colors(image: UInt8Array, config: ColorConfig, rng: np.random.Generator) -> UInt8Array:
    """Change the colours of an (H, W, 3) uint8 RGB image by factors from 1 - range to 1 + range, in random order."""
    ranges = np.array([config.brightness, config.contrast, config.saturation, config.hue])
    brightness, contrast, saturation, turn = ((2 * rng.random(4) - 1) * ranges).tolist()
    mean = np.array(cv2.mean(image[::4])[:3])  # every fourth row is exact enough, and faster
    matrix: ColorMatrix = np.eye(3, 4)
    for change in rng.permutation(4).tolist():
        if change == 0:
            matrix = (1 + brightness) * matrix
        elif change == 1:
            matrix = with_contrast(matrix, 1 + contrast, mean)
        elif change == 2:
            matrix = saturation_matrix(1 + saturation) @ matrix
        else:
            matrix = hue_matrix(turn) @ matrix
    return np.asarray(cv2.transform(image, matrix), dtype=np.uint8)


def with_contrast(matrix: ColorMatrix, factor: float, mean: npt.NDArray[np.float64]) -> ColorMatrix:
    """A colour matrix followed by a change of contrast about the mean luminance of the image that it gives.

    ``mean``: (3,), the mean colour of the image before the matrix.
    """
    changed = factor * matrix
    changed[:, 3] += (1 - factor) * (_GREY @ (matrix[:, :3] @ mean + matrix[:, 3]))
    return changed


def saturation_matrix(factor: float) -> npt.NDArray[np.float64]:
    """(3, 3): moves colours away from the grey of the same luminance, or towards it; 0: grey."""
    return factor * np.eye(3) + (1 - factor) * _GREY


def hue_matrix(turn: float) -> npt.NDArray[np.float64]:
    """(3, 3): turns colours about the grey axis; ``turn``: fraction of the circle, from red to green to blue."""
    cosine, sine = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    same, next_one = (1 + 2 * cosine) / 3, (1 - cosine + math.sqrt(3) * sine) / 3
    other = 1 - same - next_one
    return np.array([[same, other, next_one], [next_one, same, other], [other, next_one, same]])
