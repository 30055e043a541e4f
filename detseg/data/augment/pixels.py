"""Changes of pixels that move nothing: blur, noise, JPEG artefacts and cutout, by albumentations.

This is the only file that imports albumentations.
"""

from __future__ import annotations

import copy
import os
import random
import threading
from typing import Any

import numpy as np

from detseg.config.schema.data import AugmentationConfig
from detseg.ops.letterbox import PAD_VALUE
from detseg.structures import UInt8Array

BLUR_SIGMA = (0.3, 1.2)
"""Standard deviation of the blur, pixels: that of a slightly missed focus."""

NOISE_STD = (0.01, 0.05)
"""Standard deviation of the noise as a fraction of the full brightness."""


def import_albumentations() -> Any:
    """albumentations, which on import asks a server for its newest version unless the environment forbids it."""
    key = "NO_ALBUMENTATIONS_UPDATE"
    before = os.environ.get(key)
    os.environ[key] = "1"
    try:
        import albumentations
    finally:
        if before is None:
            del os.environ[key]
        else:
            os.environ[key] = before
    return albumentations


A = import_albumentations()


class PixelChanges:
    """The pixel changes that the settings ask for, in order."""

    def __init__(self, config: AugmentationConfig) -> None:
        self._changes = SeededPipeline(A.Compose(_pixel_changes(config), strict=True))

    def __call__(self, image: UInt8Array, rng: np.random.Generator) -> UInt8Array:
        """(H, W, 3) uint8 RGB → the same, changed."""
        changed: UInt8Array = self._changes(rng, image=image)["image"]
        return changed


class SeededPipeline:
    """A pipeline of albumentations whose random choices all come from the generator of a call.

    It keeps the generator, so each thread has a copy of its own.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._of_thread: dict[int, Any] = {}

    def __call__(self, rng: np.random.Generator, **targets: Any) -> dict[str, Any]:
        """What the pipeline returns for an image and its targets."""
        thread = threading.get_ident()
        if thread not in self._of_thread:
            self._of_thread[thread] = copy.deepcopy(self._pipeline)
        pipeline = self._of_thread[thread]
        # By set_random_seed every transform would have the same stream: those of one probability all happen, or none.
        pipeline.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        return dict(pipeline(**targets))


def _pixel_changes(config: AugmentationConfig) -> list[Any]:
    jpeg, cutout = config.jpeg, config.cutout
    longest = min(cutout.max_size, 0.999)  # it would take 1.0 for one pixel
    sides = (longest / 4, longest)
    changes = [
        A.GaussianBlur(blur_limit=0, sigma_limit=BLUR_SIGMA, p=config.blur),
        # One value for the three channels: luminance is what sensors disturb most, and it is faster.
        A.GaussNoise(std_range=NOISE_STD, per_channel=False, p=config.noise),
        A.ImageCompression(compression_type="jpeg", quality_range=jpeg.quality, p=jpeg.probability),
        A.CoarseDropout((1, cutout.max_holes), sides, sides, PAD_VALUE, p=cutout.probability if longest else 0),
    ]
    return [change for change in changes if change.p > 0]
