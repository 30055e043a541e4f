"""What predictors of every task share: forms of images, batches, the letterbox, the device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from detseg.models.compile import compile_networks
from detseg.models.fuse import fuse
from detseg.ops.letterbox import Letterbox, stack_images, to_float
from detseg.predict.images import ImageLike, not_an_image, to_array
from detseg.structures import ClassTable, UInt8Array

Result = TypeVar("Result")


class ImagePredictor(ABC, Generic[Result]):
    """Predicts for images as they come; one ``Result`` an image.

    Args:
        model: the network; it stays as it is, a fused copy of it predicts (``detseg.models.fuse``).
        classes: names of its labels.
        input_hw: height and width of the network input, pixels.
        device: where to compute.
        compile: have the networks in the model compiled by torch.compile when they are first called, which takes
            seconds to minutes; results then differ from evaluation's by rounding.  On a CPU it needs a C++ compiler.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: ClassTable,
        input_hw: tuple[int, int],
        device: torch.device | str = "cpu",
        *,
        compile: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self.model = fuse(model, self.device)
        if compile:
            compile_networks(self.model)
        self.classes = classes
        self.input_hw = input_hw

    @overload
    def __call__(self, images: ImageLike, batch_size: int = 1) -> Result: ...

    @overload
    def __call__(self, images: list[ImageLike], batch_size: int = 1) -> list[Result]: ...

    def __call__(self, images: ImageLike | list[ImageLike], batch_size: int = 1) -> Result | list[Result]:
        """Predict for one image, or for each of a list.

        Args:
            images: a path, array or PIL image, or a list of these.
            batch_size: how many images of a list the network sees at a time.

        Returns:
            The result in pixels of the original image (EXIF orientation applied); a list for a list.

        Raises:
            DataError: a file is missing or no image.
            TypeError: not an image, nor a list of images.
            ValueError: an array is no uint8 image.
        """
        return self._call(images, batch_size, self._predict)

    def stream(self, images: list[ImageLike], batch_size: int = 1) -> Iterator[Result]:
        """As calling with a list, but one result after the other, so that memory does not grow with the list."""
        return self._stream(images, batch_size, self._predict)

    @abstractmethod
    def _predict(self, images: list[UInt8Array]) -> list[Result]:
        """The results of a batch of images."""

    def _call(
        self,
        images: ImageLike | list[ImageLike],
        batch_size: int,
        predict: Callable[[list[UInt8Array]], list[Result]],
    ) -> Result | list[Result]:
        if isinstance(images, str | Path | np.ndarray | Image.Image):
            return next(self._stream([images], 1, predict))
        return list(self._stream(images, batch_size, predict))

    def _stream(
        self, images: list[ImageLike], batch_size: int, predict: Callable[[list[UInt8Array]], list[Result]]
    ) -> Iterator[Result]:
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        if not isinstance(images, list | tuple):
            raise not_an_image(images)
        for start in range(0, len(images), batch_size):
            yield from predict([to_array(image) for image in images[start : start + batch_size]])

    def _at_input_size(self, images: list[UInt8Array]) -> Iterator[tuple[Any, Letterbox]]:
        """What the model predicts for each image in a letterbox, and the letterbox, which leads back."""
        letterboxes = [Letterbox.fit((image.shape[0], image.shape[1]), self.input_hw) for image in images]
        inputs = [letterbox.apply(image) for letterbox, image in zip(letterboxes, images, strict=True)]
        return zip(self._network(inputs), letterboxes, strict=True)

    @torch.no_grad()
    def _network(self, inputs: list[UInt8Array]) -> Any:
        """What the model predicts for arrays of one size: for each, one entry along the first dimension."""
        return self._found(to_float(stack_images(inputs).to(self.device)))

    def _found(self, images: Tensor) -> Any:
        """What the model predicts for (B, 3, H, W) float32 images in [0, 1]."""
        model: Any = self.model  # an nn.Module that satisfies the task's contract
        return model.predict(images)
