"""The random changes of training images.

Order: crop, letterbox, flips, scale jitter, affine map, elastic deformation, the rule that drops objects, the user's
own pipeline of albumentations, colour, blur, noise, JPEG artefacts, cutout. Scale jitter, elastic deformation, the
user's pipeline and pixel changes draw random numbers only where they are switched on.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detseg.config.schema.data import AugmentationConfig
from detseg.data.augment.affine import (
    chained,
    flip_matrix,
    random_affine_matrix,
    random_displacements,
    random_zoom_matrix,
)
from detseg.data.augment.color import changed_colors
from detseg.data.augment.geometry import Motion, keep_visible, moved, random_crop
from detseg.data.augment.item import AugmentItem

if TYPE_CHECKING:
    from detseg.data.augment.pixels import PixelChanges
    from detseg.data.augment.user_pipeline import UserPipeline


class TrainTransform:
    """Augments one training image with its objects or semantic map; objects are dropped as `keep_visible` says.

    ``albumentations``: a pipeline (``A.Compose`` or a single transform) to run on every image; None: that of
    ``config.albumentations``, if there is one. The attribute ``pipeline_content`` is what albumentations writes of it.

    Raises:
        ConfigError: a pipeline that cannot be loaded or used.
    """

    def __init__(self, config: AugmentationConfig, albumentations: Any = None) -> None:
        self.config = config
        # albumentations is slow to import, so only what needs it does.
        self._pixels: PixelChanges | None = None
        if max(config.blur, config.noise, config.jpeg.probability, config.cutout.probability) > 0:
            from detseg.data.augment.pixels import PixelChanges

            self._pixels = PixelChanges(config)
        self._pipeline: UserPipeline | None = None
        self.pipeline_content = b""
        source = config.albumentations if albumentations is None else albumentations
        if source is not None:
            from detseg.data.augment.user_pipeline import UserPipeline, load_pipeline

            self._pipeline = UserPipeline(load_pipeline(source) if isinstance(source, Path) else source, config)
            self.pipeline_content = self._pipeline.content

    def __call__(self, item: AugmentItem, input_hw: tuple[int, int], rng: np.random.Generator) -> AugmentItem:
        """Bring an image of any size to height and width `input_hw`, in pixels, and augment it.

        Every choice comes from `rng`. The boxes of the result lie inside it: `0 <= x1 < x2 <= W`.

        Raises:
            ValueError: an elastic deformation of boxes without masks.
            DataError: the user's pipeline failed.
        """
        item = self.cropped(item, rng)
        return self.finished(moved(item, self.motion(input_hw, rng), input_hw), rng)

    def cropped(self, item: AugmentItem, rng: np.random.Generator) -> AugmentItem:
        """The random crop, on an image of any size."""
        return random_crop(item, rng) if rng.random() < self.config.crop else item

    def motion(self, input_hw: tuple[int, int], rng: np.random.Generator) -> Motion:
        """Draw flips, scale jitter, affine map and elastic deformation; the image need not be there yet."""
        config = self.config
        across, down = rng.random() < config.horizontal_flip, rng.random() < config.vertical_flip
        matrix = flip_matrix(input_hw, horizontal=bool(across), vertical=bool(down))
        if config.scale_jitter is not None:
            matrix = chained(matrix, then=random_zoom_matrix(config.scale_jitter, input_hw, rng))
        if rng.random() < config.affine.probability:
            matrix = chained(matrix, then=random_affine_matrix(config.affine, input_hw, rng))
        elastic = config.elastic.probability > 0 and rng.random() < config.elastic.probability
        return Motion(matrix, random_displacements(config.elastic, input_hw, rng) if elastic else None)

    def finished(self, item: AugmentItem, rng: np.random.Generator) -> AugmentItem:
        """The last part, on an image of the network input's size: the drop rule, the user's pipeline, pixel changes."""
        config = self.config
        item = keep_visible(item, config.min_visibility, config.min_box_size)
        if self._pipeline is not None:
            item = self._pipeline(item, rng)
        if config.color.probability > 0 and rng.random() < config.color.probability:
            item = replace(item, image=changed_colors(item.image, config.color, rng))
        if self._pixels is not None:
            item = replace(item, image=self._pixels(item.image, rng))
        return item
