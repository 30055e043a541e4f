"""Trained models in applications: image in, detections in the original's pixels out.

Nothing here imports lightning, albumentations or pycocotools.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import nn

from detseg.data.images import pil_to_rgb, read_image
from detseg.errors import ConfigError
from detseg.factory import load_detector
from detseg.ops.devices import resolve_device
from detseg.ops.images import stack_images, to_float
from detseg.ops.letterbox import Letterbox
from detseg.structures import ClassTable, Detections, UInt8Array

ImageLike: TypeAlias = str | Path | npt.NDArray[np.uint8] | Image.Image
"""A path, an (H, W, 3) or (H, W) uint8 RGB or grey array, or a PIL image."""


class Predictor:
    """Finds objects in images as they come.

    An image gets exactly the detections that evaluation computed for it: the same letterbox, the same float32, the
    same threshold, unless ``score_threshold`` asks for fewer.

    Args:
        model: the detector.
        classes: names of its labels.
        input_hw: height and width of the network input, pixels.
        device: where to compute.
        score_threshold: detections below it are left out.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: ClassTable,
        input_hw: tuple[int, int],
        device: torch.device | str = "cpu",
        score_threshold: float = 0.0,
    ) -> None:
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold: expected a number from 0 to 1, got {score_threshold}")
        self.device = torch.device(device)
        self.model = model.eval().to(self.device).to(memory_format=torch.channels_last)
        self.classes = classes
        self.input_hw = input_hw
        self.score_threshold = score_threshold

    @overload
    def __call__(self, images: ImageLike, batch_size: int = 1) -> Detections: ...

    @overload
    def __call__(self, images: list[ImageLike], batch_size: int = 1) -> list[Detections]: ...

    def __call__(self, images: ImageLike | list[ImageLike], batch_size: int = 1) -> Detections | list[Detections]:
        """Detect in one image, or in each of a list.

        Args:
            images: a path, array or PIL image, or a list of these.
            batch_size: how many images of a list the network sees at a time.

        Returns:
            ``Detections`` in pixels of the original image (EXIF orientation applied), best first; a list for a list.

        Raises:
            DataError: a file is missing or no image.
            TypeError: not an image, nor a list of images.
            ValueError: an array is no uint8 image.
        """
        if isinstance(images, str | Path | np.ndarray | Image.Image):
            return next(self.stream([images]))
        return list(self.stream(images, batch_size))

    def stream(self, images: list[ImageLike], batch_size: int = 1) -> Iterator[Detections]:
        """As calling with a list, but one result after the other, so that memory does not grow with the list."""
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        if not isinstance(images, list | tuple):
            raise _wrong_type(images)
        for start in range(0, len(images), batch_size):
            yield from self._predict([to_array(image) for image in images[start : start + batch_size]])

    @torch.no_grad()
    def _predict(self, images: list[UInt8Array]) -> list[Detections]:
        letterboxes = [Letterbox.fit((image.shape[0], image.shape[1]), self.input_hw) for image in images]
        inputs = [letterbox.apply(image) for letterbox, image in zip(letterboxes, images, strict=True)]
        model: Any = self.model  # an nn.Module that satisfies the Detector contract
        results = []
        for found, letterbox in zip(
            model.predict(to_float(stack_images(inputs).to(self.device))), letterboxes, strict=True
        ):
            found = found[found.scores >= self.score_threshold].cpu()
            results.append(replace(found, boxes=letterbox.boxes_to_original(found.boxes), classes=self.classes))
        return results


def load_predictor(checkpoint: str | Path, device: str = "auto", score_threshold: float = 0.0) -> Predictor:
    """Load a trained model for prediction.

    Args:
        checkpoint: a ``.ckpt`` file of a run; its averaged weights are used where it has them.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        score_threshold: detections below it are left out; 0 keeps all that evaluation counts (scores above the
            model's own, very low threshold). 0.25 to 0.5 suits most applications.

    Raises:
        CheckpointError: the file is missing, damaged, or not a detseg checkpoint.
        ConfigError: this machine has no such device.
    """
    target = find_device(device)  # first, since it is quick to say
    model, config, contents = load_detector(Path(checkpoint))
    return Predictor(model, contents.classes, config.data.input_hw, target, score_threshold)


def find_device(device: str) -> torch.device:
    """The device that a user names; tools print the error.

    Raises:
        ConfigError: this machine has no such device.
    """
    try:
        return resolve_device(device)
    except ValueError as error:
        raise ConfigError(str(error)) from error


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
        raise _wrong_type(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(
            f"image: expected uint8 of shape (H, W, 3) in RGB order or (H, W) grey, got {image.dtype} of {image.shape}"
        )
    return np.stack([image] * 3, axis=2) if image.ndim == 2 else image


def _wrong_type(given: object) -> TypeError:
    return TypeError(
        "image: expected a path (str or Path), a uint8 array of shape (H, W, 3) or (H, W), a PIL image, or a list of "
        f"these, got {type(given).__name__}"
    )
