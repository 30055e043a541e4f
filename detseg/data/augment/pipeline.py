"""The random changes of training images, and the only file that imports albumentations.

Albumentations blurs, disturbs and covers pixels; what moves boxes and labels is in `geometry` (which says why),
`motion` and `elastic`, and what changes colours in `colors`.  Order: crop, letterbox, flips, scale jitter, affine map,
elastic deformation, colour, blur, noise, JPEG, cutout.  Scale jitter, elastic deformation and colour draw random
numbers only where they are switched on.
"""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask a server for its newest version on import
import albumentations as A

from detseg.config.schema.data import AugmentationConfig
from detseg.data.augment.affine import AffineMatrix, chained, random_affine_matrix, random_zoom_matrix
from detseg.data.augment.color import changed_colors
from detseg.data.augment.elastic import random_displacements
from detseg.data.augment.geometry import AugmentItem, keep_visible, random_crop
from detseg.data.augment.motion import Motion, moved
from detseg.ops.letterbox import PAD_VALUE
from detseg.structures import UInt8Array

BLUR_SIGMA = (0.3, 1.2)
"""Standard deviation of the blur, pixels: what a slightly missed focus does."""

NOISE_STD = (0.01, 0.05)
"""Standard deviation of the noise as a share of the full brightness."""


class TrainTransform:
    """Augments one training image with its objects or semantic map; every choice comes from the call's generator.

    A box is dropped when less than `min_visibility` of its transformed area lies in the picture, or when a side of what
    is left is shorter than `min_box_size` pixels of the network input.  Objects with masks go by the area of the mask,
    and their boxes are its bounds.

    Args:
        config: what to do and how often.
    """

    def __init__(self, config: AugmentationConfig) -> None:
        self.config = config
        changes = pixel_changes(config)
        self._pixels = A.Compose(changes, strict=True) if changes else None

    def __call__(self, item: AugmentItem, input_hw: tuple[int, int], rng: np.random.Generator) -> AugmentItem:
        """Bring an image of any size to `input_hw` and augment it.

        Args:
            item: image, objects and semantic map in pixels of the image.
            input_hw: height and width of the network input, pixels.
            rng: source of all choices.

        Returns:
            image and semantic map of `input_hw` and what is left of the objects, in its pixels; `0 <= x1 < x2 <= W`.

        Raises:
            ValueError: an elastic deformation of boxes without masks, which cannot follow it.
        """
        return self.augment(self.cropped(item, rng), input_hw, rng)

    def cropped(self, item: AugmentItem, rng: np.random.Generator) -> AugmentItem:
        """The random crop, on an image of any size."""
        return random_crop(item, rng) if rng.random() < self.config.crop else item

    def augment(self, item: AugmentItem, input_hw: tuple[int, int], rng: np.random.Generator) -> AugmentItem:
        """Everything from the letterbox on, on an image of any size."""
        return self.finished(moved(item, self.motion(input_hw, rng), input_hw), rng)

    def motion(self, input_hw: tuple[int, int], rng: np.random.Generator) -> Motion:
        """Draw flips, scale jitter, affine map and elastic deformation; the image need not be there yet."""
        config = self.config
        across, down = rng.random() < config.horizontal_flip, rng.random() < config.vertical_flip
        matrix = self._random_matrix(input_hw, rng)
        elastic = config.elastic.probability > 0 and rng.random() < config.elastic.probability
        displacements = random_displacements(config.elastic, input_hw, rng) if elastic else None
        return Motion(bool(across), bool(down), matrix, displacements)

    def finished(self, item: AugmentItem, rng: np.random.Generator) -> AugmentItem:
        """The last part: the drop rule, then colour and detail."""
        item = keep_visible(item, self.config.min_visibility, self.config.min_box_size)
        return item._replace(image=self._change_pixels(item.image, rng))

    def _random_matrix(self, hw: tuple[int, int], rng: np.random.Generator) -> AffineMatrix | None:
        """The (2, 3) map of scale jitter and then the affine map; None where neither happens."""
        config = self.config
        matrix = None
        if config.scale_jitter is not None:
            matrix = random_zoom_matrix(config.scale_jitter, hw, rng)
        if rng.random() < config.affine.probability:
            affine = random_affine_matrix(config.affine, hw, rng)
            matrix = affine if matrix is None else chained(matrix, then=affine)
        return matrix

    def _change_pixels(self, image: UInt8Array, rng: np.random.Generator) -> UInt8Array:
        color = self.config.color
        if color.probability > 0 and rng.random() < color.probability:
            image = changed_colors(image, color, rng)
        if self._pixels is None:
            return image
        # set_random_seed would give every transform the same stream, so that those with one probability would happen
        # together or not at all; set_random_state lets them all draw from one stream, in turn.
        self._pixels.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        changed: UInt8Array = self._pixels(image=image)["image"]
        return changed


def pixel_changes(config: AugmentationConfig) -> list[Any]:
    """The albumentations transforms that change detail but move nothing, in order.

    Milliseconds at 320 × 320 on one core: blur 0.2, noise 1.1, JPEG 0.5, cutout 0.1.
    """
    changes: list[Any] = []
    jpeg, cutout = config.jpeg, config.cutout
    if config.blur > 0:
        changes.append(A.GaussianBlur(blur_limit=0, sigma_limit=BLUR_SIGMA, p=config.blur))
    if config.noise > 0:
        # One value for the three channels: luminance is what sensors disturb most, and it costs a third.
        changes.append(A.GaussNoise(std_range=NOISE_STD, per_channel=False, p=config.noise))
    if jpeg.probability > 0:
        changes.append(A.ImageCompression(compression_type="jpeg", quality_range=jpeg.quality, p=jpeg.probability))
    if cutout.probability > 0 and cutout.max_size > 0:
        longest = min(cutout.max_size, 0.999)  # it would take 1.0 for one pixel
        sides = (longest / 4, longest)
        changes.append(
            A.CoarseDropout(
                num_holes_range=(1, cutout.max_holes),
                hole_height_range=sides,
                hole_width_range=sides,
                fill=PAD_VALUE,
                p=cutout.probability,
            )
        )
    return changes
