"""The first step of a prediction: images as applications hold them → the input of the network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from torch import Tensor

from detseg.data.images.read import pil_to_rgb, read_image
from detseg.ops.letterbox import Letterbox, stack_images
from detseg.structures import UInt8Array

ImageLike: TypeAlias = str | Path | npt.NDArray[np.uint8] | Image.Image
"""A path, an (H, W, 3) or (H, W) uint8 RGB or grey array, or a PIL image."""


def to_array(image: ImageLike) -> UInt8Array:
    """Any image as (H, W, 3) uint8 RGB, upright.

    Raises:
        DataError: a file is missing or no image.
        TypeError: not an image.
        ValueError: an array is no uint8 image.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        return pil_to_rgb(ImageOps.exif_transpose(image))
    if not isinstance(image, np.ndarray):
        raise not_an_image(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(
            f"image: expected uint8 of shape (H, W, 3) in RGB order or (H, W) grey, got {image.dtype} of {image.shape}"
        )
    return np.stack([image] * 3, axis=2) if image.ndim == 2 else image


def not_an_image(given: object) -> TypeError:
    """The error for what is neither an image nor a list of images."""
    return TypeError(
        "image: expected a path (str or Path), a uint8 array of shape (H, W, 3) or (H, W), a PIL image, or a list of "
        f"these, got {type(given).__name__}"
    )


def preprocess(images: Sequence[UInt8Array], input_hw: tuple[int, int]) -> tuple[Tensor, list[Letterbox]]:
    """Put B images (H, W, 3) of any size into letterboxes, as evaluation does.

    Returns:
        (B, 3, *input_hw) uint8, and the B letterboxes, which lead back to the images.

    Raises:
        ValueError: an image has no pixels.
    """
    letterboxes = [Letterbox.fit((image.shape[0], image.shape[1]), input_hw) for image in images]
    return stack_images([box.apply(image) for box, image in zip(letterboxes, images, strict=True)]), letterboxes
