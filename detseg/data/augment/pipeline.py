"""The random changes of training images.

Order: crop, letterbox, flips, scale jitter, affine map, elastic deformation, the rule that drops objects, the user's
own pipeline of albumentations, colour, CLAHE, blur, noise, JPEG artefacts, cutout. Scale jitter, elastic deformation,
the user's pipeline and pixel changes draw random numbers only where they are switched on.

Colour is one linear map, a (3, 4) matrix, instead of four passes. Two things differ from torchvision and
albumentations: clipping comes last, and hue is a rotation of the colours about the grey axis, not a shift of HSV's
hexagon. Both are the same for greys, and for a third of the circle (red becomes green).
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from detseg.config.schema.data import AugmentationConfig, ColorConfig
from detseg.data.augment import geometry
from detseg.data.augment.geometry import AffineMatrix, AugmentItem, Motion, chained
from detseg.structures import UInt8Array

if TYPE_CHECKING:
    from detseg.data.augment.albumentations_steps import SeededPipeline, UserPipeline
    from detseg.data.augment.audit import AugmentationAudit

_GREY = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue in the luminance (ITU-R BT.601)
PIXEL_STEPS = {
    "CLAHE": "clahe",
    "GaussianBlur": "blur",
    "GaussNoise": "noise",
    "SaltAndPepper": "salt_and_pepper",
    "ImageCompression": "jpeg",
    "CoarseDropout": "cutout",
}
"""What albumentations calls the pixel changes → their settings."""
ColorMatrix = npt.NDArray[np.float64]  # (3, 4): (red, green, blue, 1) in 0..255 → red, green, blue


class TrainTransform:
    """Augments one training image with its objects or semantic map; objects are dropped as `keep_visible` says.

    ``albumentations``: a pipeline (``A.Compose`` or a single transform) to run on every image, a ConfigError if it
    cannot be used; None: that of ``config.albumentations``, if any. ``pipeline_content`` is what tells it from others.
    """

    def __init__(self, config: AugmentationConfig, albumentations: Any = None) -> None:
        self.config = config
        self.audit: AugmentationAudit | None = None
        # albumentations is slow to import, so only what needs it does.
        self._pixels: SeededPipeline | None = None
        sections = config.clahe, config.salt_and_pepper, config.jpeg, config.cutout
        if max(config.blur, config.noise, *(section.probability for section in sections)) > 0:
            from detseg.data.augment.albumentations_steps import pixel_changes

            self._pixels = pixel_changes(config)
        self._pipeline: UserPipeline | None = None
        self.pipeline_content = b""
        source = config.albumentations if albumentations is None else albumentations
        if source is not None:
            from detseg.data.augment.albumentations_steps import UserPipeline, load_pipeline

            self._pipeline = UserPipeline(load_pipeline(source) if isinstance(source, Path) else source, config)
            self.pipeline_content = self._pipeline.content

    def __call__(self, item: AugmentItem, input_hw: tuple[int, int], rng: np.random.Generator) -> AugmentItem:
        """Bring an image of any size to height and width `input_hw`, pixels, and augment it; choices come from `rng`.

        The boxes of the result lie inside it: `0 <= x1 < x2 <= W`. A DataError if the user's pipeline failed. Training
        calls the parts itself (`loading/examples.py`): an image is read there once its motion is drawn, or is a mosaic.
        """
        item = self.cropped(item, rng)
        return self.finished(geometry.moved(item, self.motion(input_hw, rng), input_hw), rng)

    def cropped(self, item: AugmentItem, rng: np.random.Generator) -> AugmentItem:
        """The random crop, on an image of any size."""
        if rng.random() >= self.config.crop:
            return item
        if self.audit is not None:
            self.audit.applied("crop")
        return geometry.random_crop(item, rng)

    def motion(self, input_hw: tuple[int, int], rng: np.random.Generator) -> Motion:
        """Draw flips, scale jitter, affine map and elastic deformation; the image need not be there yet."""
        config = self.config
        across, down = rng.random() < config.horizontal_flip, rng.random() < config.vertical_flip
        steps: list[tuple[str, AffineMatrix]] = []
        if across:
            steps.append(("horizontal_flip", geometry.flip_matrix(input_hw, horizontal=True, vertical=False)))
        if down:
            steps.append(("vertical_flip", geometry.flip_matrix(input_hw, horizontal=False, vertical=True)))
        if config.scale_jitter is not None:
            steps.append(("scale_jitter", geometry.random_zoom_matrix(config.scale_jitter, input_hw, rng)))
        if rng.random() < config.affine.probability:
            steps.append(("affine", geometry.random_affine_matrix(config.affine, input_hw, rng)))
        elastic = config.elastic.probability > 0 and rng.random() < config.elastic.probability
        displacements = geometry.random_displacements(config.elastic, input_hw, rng) if elastic else None
        matrix = geometry.IDENTITY
        for _, step in steps:
            matrix = chained(matrix, then=step)
        return Motion(matrix, displacements, tuple(steps))

    def finished(self, item: AugmentItem, rng: np.random.Generator) -> AugmentItem:
        """The last part, on an image of the network input's size: the drop rule, the user's pipeline, pixel changes."""
        config = self.config
        item = geometry.keep_visible(item, config.min_visibility, config.min_box_size)
        if self._pipeline is not None:
            num_before = len(item.boxes)
            item = self._pipeline(item, rng)
            if self.audit is not None:
                self.audit.dropped("albumentations", num_before, item.num_dropped)
        if config.color.probability > 0 and rng.random() < config.color.probability:
            item = replace(item, image=changed_colors(item.image, config.color, rng))
            if self.audit is not None:
                self.audit.applied("color")
        if self._pixels is not None:
            item = replace(item, image=self._pixels(rng, image=item.image)["image"])
        if self.audit is not None:
            self.audit.finished(item)
        return item

    def observe(self, audit: AugmentationAudit) -> None:
        """Tell an audit of every step from now on, in this process."""
        self.audit = audit
        if self._pipeline is not None:
            self._pipeline.observe(audit)
        if self._pixels is not None:
            self._pixels.observe(audit, PIXEL_STEPS)


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
    """A colour matrix, then a change of contrast about the mean luminance of an image whose mean was (3,) ``mean``."""
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
