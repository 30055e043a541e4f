"""The class of every pixel, in images as they come.

Letters for dimensions: C classes, H and W pixels of the original image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor

from detseg.errors import ConfigError, DetsegError
from detseg.ops.letterbox import label_map, logits_at_original_size
from detseg.predict.images import ImageLike
from detseg.predict.predictor import ImagePredictor
from detseg.predict.tiles import Tiling, label_tiles
from detseg.structures import SegmentationMap, UInt8Array


class SegmentationPredictor(ImagePredictor[SegmentationMap]):
    """Labels the pixels of images as they come: a ``SegmentationMap`` in the size of the original image.

    An image gets exactly the labels that evaluation computed for it: the same letterbox to ``input_hw``, the same
    float32.  With tiles it is not scaled: what the network was trained to see at ``input_hw`` it then sees at the
    image's own scale.

    Args:
        model: the segmenter.
        classes: names of its labels.
        input_hw: height and width of the network input, pixels.
        device: where to compute.
    """

    @overload
    def __call__(
        self,
        images: ImageLike,
        batch_size: int = 1,
        tile: tuple[int, int] | None = None,
        overlap: int | None = None,
        probabilities: bool = False,
    ) -> SegmentationMap: ...

    @overload
    def __call__(
        self,
        images: list[ImageLike],
        batch_size: int = 1,
        tile: tuple[int, int] | None = None,
        overlap: int | None = None,
        probabilities: bool = False,
    ) -> list[SegmentationMap]: ...

    def __call__(
        self,
        images: ImageLike | list[ImageLike],
        batch_size: int = 1,
        tile: tuple[int, int] | None = None,
        overlap: int | None = None,
        probabilities: bool = False,
    ) -> SegmentationMap | list[SegmentationMap]:
        """Label the pixels of one image, or of each of a list.

        Args:
            images: a path, array or PIL image, or a list of these.
            batch_size: how many images of a list, or tiles of an image, the network sees at a time.
            tile: height and width of tiles, pixels, multiples of the model's coarsest stride; None: the whole image is
                scaled to ``input_hw``.  An image that fits into one tile is seen whole, at its own scale.
            overlap: pixels that neighbouring tiles share at least; None: half of the tile's sides.
            probabilities: also return them, (C, H, W) float32: 4 C times the memory of the labels.

        Returns:
            A ``SegmentationMap`` in the size of the original image (EXIF orientation applied); a list for a list.

        Raises:
            DataError: a file is missing or no image.
            TypeError: not an image, nor a list of images.
            ValueError: an array is no uint8 image.
            ConfigError: ``tile`` or ``overlap`` does not suit the model.
            DetsegError: the model's logits are NaN or infinite, which is looked for in every image.
        """
        return self._call(images, batch_size, self._way(batch_size, tile, overlap, probabilities))

    def stream(
        self,
        images: list[ImageLike],
        batch_size: int = 1,
        tile: tuple[int, int] | None = None,
        overlap: int | None = None,
        probabilities: bool = False,
    ) -> Iterator[SegmentationMap]:
        """As calling with a list, but one result after the other, so that memory does not grow with the list."""
        return self._stream(images, batch_size, self._way(batch_size, tile, overlap, probabilities))

    def _way(
        self, batch_size: int, tile: tuple[int, int] | None, overlap: int | None, probabilities: bool
    ) -> Callable[[list[UInt8Array]], list[SegmentationMap]]:
        if tile is None:
            if overlap is not None:
                raise ConfigError("overlap: belongs to tiles; give tile=(height, width) too, or leave it out")
            return partial(self._predict, probabilities=probabilities)
        model: Any = self.model  # an nn.Module that satisfies the Segmenter contract
        tiling = Tiling.of(tile, overlap, model.stride)
        return partial(self._predict_tiled, tiling=tiling, batch_size=batch_size, probabilities=probabilities)

    def _network(self, inputs: list[UInt8Array]) -> Tensor:
        """The logits for arrays of one size.

        Raises:
            DetsegError: some are NaN or infinite; the highest of them would be class 0, whatever the image.
        """
        logits: Tensor = super()._network(inputs)
        if logits.numel() and not torch.isfinite(torch.stack(torch.aminmax(logits))).all():
            raise DetsegError(
                "the model's logits are NaN or infinite, so there are no labels; take another checkpoint of its run, "
                "or train again with a lower optimizer.lr"
            )
        return logits

    @torch.no_grad()
    def _predict(self, images: list[UInt8Array], probabilities: bool = False) -> list[SegmentationMap]:
        results = []
        for logits, letterbox in self._at_input_size(images):
            labels = label_map(logits, letterbox).cpu().numpy()
            scores = None
            if probabilities:
                scores = logits_at_original_size(logits, letterbox).softmax(dim=0).cpu().numpy()
            results.append(SegmentationMap(labels, self.classes, scores))
        return results

    @torch.no_grad()
    def _predict_tiled(
        self, images: list[UInt8Array], tiling: Tiling, batch_size: int, probabilities: bool
    ) -> list[SegmentationMap]:
        results = []
        for image in images:
            labels, scores = label_tiles(image, tiling, self._network, len(self.classes), batch_size, probabilities)
            results.append(SegmentationMap(labels, self.classes, scores))
        return results
