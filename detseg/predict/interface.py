"""What all predictors share, whatever computes their network: images as applications hold them → results in pixels of
these images. Torch is not imported here.

One prediction is three steps, which every kind of predictor shares: ``preprocess``, the network, a postprocess.

Letters for dimensions: B images, C classes, H and W pixels of an image, h and w pixels of the network input.
"""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from inspect import Parameter, signature
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeAlias, TypedDict, TypeVar, Unpack, get_args, overload

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from detseg.data.images.read import MAX_PIXELS, ImageBytes, pil_to_rgb, read_extent, read_image
from detseg.data.images.values import ValueRange, describe_low_range, extent_of
from detseg.errors import ConfigError, DataError, DetsegError
from detseg.messages import did_you_mean, listed, printable, shown
from detseg.ops.letterbox import Letterbox
from detseg.predict.results import Detections, SegmentationMap
from detseg.predict.tiles.cuts import Tiling
from detseg.predict.tiles.maps import label_tiles
from detseg.predict.tiles.objects import DEFAULT_OVERLAP, Merge, find_in_tiles
from detseg.structures import SCORE_THRESHOLD, ClassTable, Float32Array, UInt8Array

logger = logging.getLogger("detseg")

_MOST = (0.1, 99.9)  # percentiles: a few pixels may be anything
_LOW_LEVELS = 32
"""Levels of 256: what uses less of its range may be nearly black."""

ImageLike: TypeAlias = str | Path | npt.NDArray[np.uint8] | Image.Image | ImageBytes
"""A path, an (H, W, 3) or (H, W) uint8 RGB or grey array, a PIL image, or the content of an image's file."""

OnError: TypeAlias = Literal["raise", "skip", "return"]
"""What becomes of an image that cannot be read."""

Result = TypeVar("Result", Detections, SegmentationMap)

_ONE_IMAGE = (str, Path, np.ndarray, Image.Image, ImageBytes)


def to_array(image: ImageLike, value_range: ValueRange = None, max_pixels: int = MAX_PIXELS) -> UInt8Array:
    """Any image as (H, W, 3) uint8 RGB, upright; ``value_range``: how one of more than 8 bits is read. DataError: a
    file is missing or no image, or declares more than ``max_pixels``; TypeError: not an image; ValueError: an array is
    no uint8 image."""
    if isinstance(image, str | Path | ImageBytes):
        return read_image(image, value_range, max_pixels=max_pixels)
    if isinstance(image, Image.Image):
        return pil_to_rgb(ImageOps.exif_transpose(image), value_range)
    if not isinstance(image, np.ndarray):
        raise _not_an_image(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(
            f"image: expected uint8 of shape (H, W, 3) in RGB order or (H, W) grey, got {image.dtype} of {image.shape}"
        )
    return np.stack([image] * 3, axis=2) if image.ndim == 2 else image


def _not_an_image(given: object) -> TypeError:
    return TypeError(
        "image: expected a path (str or Path), a uint8 array of shape (H, W, 3) or (H, W), a PIL image, or a list of "
        f"these, got {type(given).__name__}"
    )


def preprocess(images: Sequence[UInt8Array], input_hw: tuple[int, int]) -> tuple[UInt8Array, list[Letterbox]]:
    """Put B images (H, W, 3) of any size into letterboxes, as evaluation does.

    Returns:
        (B, *input_hw, 3) uint8, and the B letterboxes, which lead back to the images.

    Raises:
        ValueError: an image has no pixels.
    """
    letterboxes = [Letterbox.fit((image.shape[0], image.shape[1]), input_hw) for image in images]
    return np.stack([box.apply(image) for box, image in zip(letterboxes, images, strict=True)]), letterboxes


class ImagePredictor(ABC, Generic[Result]):
    """Predicts for images as they come; one ``Result`` an image, which knows its image and its path.

    Args:
        classes: names of the network's labels.
        input_hw: height and width of the network input, pixels.
        value_range: how images of more than 8 bits are read, as ``data.value_range`` was in the training; it may be
            changed later.
        network, place: what computes where, for the ``repr``.

    Attributes:
        max_pixels: files of images that declare more are not read; it may be changed.
    """

    def __init__(
        self, classes: ClassTable, input_hw: tuple[int, int], value_range: ValueRange, network: str, place: str
    ) -> None:
        self._network, self._place = network, place
        self.classes = classes
        self.input_hw = input_hw
        self.value_range: ValueRange = value_range
        self.max_pixels = MAX_PIXELS
        self._has_warned = False

    def __repr__(self) -> str:
        names = ", ".join([*self.classes.names[:10], *(["…"] if len(self.classes) > 10 else [])])
        classes = f"{len(self.classes)} {'class' if len(self.classes) == 1 else 'classes'} ({names})"
        height, width = self.input_hw
        return f"{type(self).__name__}({self._network}, {classes}, input {height} x {width}, {self._place})"

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
        return self._call(images, batch_size)

    @overload
    def stream(
        self,
        images: Iterable[ImageLike],
        batch_size: int = 1,
        on_error: Literal["raise", "skip"] = "raise",
        **options: Any,
    ) -> Iterator[Result]: ...

    @overload
    def stream(
        self, images: Iterable[ImageLike], batch_size: int = 1, *, on_error: Literal["return"], **options: Any
    ) -> Iterator[Result | DataError]: ...

    def stream(
        self, images: Iterable[ImageLike], batch_size: int = 1, on_error: OnError = "raise", **options: Any
    ) -> Iterator[Result | DataError]:
        """As calling with a list, but one result after the other, in the order of the images.

        Args:
            images: paths, arrays or PIL images: a list, a generator, any iterable. They are taken a batch at a time,
                with tiles one at a time, so that memory does not grow with their number. An error that the iterable
                raises follows the results of what came before.
            batch_size: how many images, or tiles of an image, the network sees at a time.
            on_error: of an image that cannot be read the DataError is raised, after the results of those before; or
                it is skipped, with a warning; or the error is returned in the place of the result.
            options: those of calling, such as ``tile``.

        Raises, besides what calling does:
            ConfigError: ``batch_size`` or ``on_error`` is wrong, or there is no such option.
            TypeError: ``images`` is one image, or nothing that holds images.
        """
        if isinstance(images, _ONE_IMAGE):
            raise TypeError(f"stream: expected several images, such as a list, got one ({type(images).__name__})")
        if not isinstance(images, Iterable):
            raise _not_an_image(images)
        if not isinstance(batch_size, Integral) or batch_size < 1:
            raise ConfigError(f"batch_size: expected a whole number of at least 1, got {shown(batch_size)}")
        if on_error not in get_args(OnError):
            raise ConfigError(f"on_error: expected {', '.join(get_args(OnError))}, got {shown(on_error)}")
        parameters = signature(self.__call__).parameters
        known = [name for name, one in parameters.items() if one.kind is Parameter.KEYWORD_ONLY]
        for name in options:
            if name not in known:
                what = f"predictors of this kind have no such option{did_you_mean(name, known)}"
                raise ConfigError(f"{name}: {what}; they have {listed(known)}")
        return self._stream(images, batch_size, on_error, options)

    def read(self, image: ImageLike) -> UInt8Array:
        """An image as the network sees it: see ``to_array``. The first one of more than 8 bits that uses less than an
        eighth of the range that is read is warned of."""
        array = to_array(image, self.value_range, self.max_pixels)
        if not self._has_warned and self.value_range != "percentiles" and not isinstance(image, np.ndarray):
            self._warn_of_low_range(image, array)
        return array

    def _warn_of_low_range(self, image: str | Path | Image.Image | ImageBytes, array: UInt8Array) -> None:
        if not array.size or np.ptp(np.percentile(array[::8, ::8], _MOST)) >= _LOW_LEVELS:
            return
        if isinstance(image, Image.Image):
            extent = extent_of(np.asarray(image)) if image.mode == "F" or image.mode.startswith("I") else None
        else:
            extent = read_extent(image, self.max_pixels)
        if extent is not None and (line := describe_low_range(extent, self.value_range)) is not None:
            self._has_warned = True
            name = "an image" if isinstance(image, Image.Image) else printable(str(image))
            fix = "in the training (from Python also value_range of the predictor)"
            logger.warning(f"{name}: its pixels of more than 8 bits use {line} {fix}")

    @property
    def settings(self) -> dict[str, Any]:
        """What results depend on besides the model, ready for JSON."""
        return {}

    @property
    def input_step(self) -> int | None:
        """What the sides of other inputs have to be multiples of; None: the network takes ``input_hw`` alone."""
        return None

    def scaled(self, scale: float) -> Self:
        """The same predictor with an input ``scale`` times as large, its sides rounded to multiples of ``input_step``;
        the network is shared. ConfigError: the network takes one size alone."""
        if scale == 1:
            return self
        if self.input_step is None:
            height, width = self.input_hw
            raise ConfigError(
                f"scales: this model takes images of {height} x {width} alone, got a scale of {scale:g}; take the "
                f"checkpoint that it was exported from, or leave scales out"
            )
        other, step = copy.copy(self), self.input_step
        height, width = (max(round(side * scale / step), 1) * step for side in self.input_hw)
        other.input_hw = (height, width)
        return other

    @abstractmethod
    def _answer(self, images: list[UInt8Array], *arguments: Any, **options: Any) -> list[Result]:
        """The results of a batch of images, with the batch size and the options of the call."""

    def _call(self, images: ImageLike | list[ImageLike], batch_size: int, **options: Any) -> Result | list[Result]:
        several = [images] if isinstance(images, _ONE_IMAGE) else images
        if not isinstance(several, list | tuple):
            raise _not_an_image(images)
        found: list[Result] = list(self.stream(several, batch_size, **options))
        return found if several is images else found[0]

    def _stream(
        self, images: Iterable[ImageLike], batch_size: int, on_error: OnError, options: dict[str, Any]
    ) -> Iterator[Result | DataError]:
        at_once = batch_size if options.get("tile") is None else 1
        coming = iter(images)
        while True:
            batch, error = self._read_batch(coming, at_once, on_error)
            arrays = [read for _, read in batch if not isinstance(read, DataError)]
            results = iter(self._answer(arrays, batch_size, **options) if arrays else [])
            for image, read in batch:
                if not isinstance(read, DataError):
                    path = Path(image) if isinstance(image, str | Path) else None
                    yield replace(next(results), image=read, path=path)
                elif on_error == "return":
                    yield read
                else:
                    logger.warning(f"left out: {printable(str(read))}")
            if error is not None:
                raise error
            if not batch:
                return

    def _read_batch(
        self, images: Iterator[ImageLike], batch_size: int, on_error: OnError
    ) -> tuple[list[tuple[ImageLike, UInt8Array | DataError]], Exception | None]:
        """The next images, each with its pixels or why it cannot be read, and what ended them before their number."""
        batch: list[tuple[ImageLike, UInt8Array | DataError]] = []
        try:
            for image in islice(images, batch_size):
                try:
                    batch.append((image, self.read(image)))
                except DataError as error:
                    if on_error == "raise":
                        raise
                    batch.append((image, error))
        except Exception as error:  # of the caller's iterable, too: what came before is predicted all the same
            return batch, error
        return batch, None


class _ObjectOptions(TypedDict, total=False):
    tile: tuple[int, int] | None
    overlap: int | None
    full_image: bool
    merge: Merge | None


class ObjectPredictor(ImagePredictor[Detections]):
    """Finds objects in images as they come: ``Detections`` in pixels of the original image, best first.

    With tiles an image is not scaled: each tile is seen as an image of its own, and an object that several tiles show
    is counted once (``detseg.predict.tiles.objects``).

    Args:
        classes, input_hw, value_range, network, place: see ``ImagePredictor``.
        score_threshold: detections below it are left out; 0 keeps all that evaluation counts.

    Raises:
        ConfigError: ``score_threshold`` is not in [0, 1].
    """

    def __init__(
        self,
        classes: ClassTable,
        input_hw: tuple[int, int],
        value_range: ValueRange,
        network: str,
        place: str,
        score_threshold: float = SCORE_THRESHOLD,
    ) -> None:
        if not isinstance(score_threshold, int | float | np.floating) or not 0 <= score_threshold <= 1:
            raise ConfigError(f"score_threshold: expected a number from 0 to 1, got {score_threshold!r}")
        super().__init__(classes, input_hw, value_range, network, place)
        self.score_threshold = score_threshold

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, score_threshold={self.score_threshold:g})"

    @overload
    def __call__(self, images: ImageLike, batch_size: int = 1, **options: Unpack[_ObjectOptions]) -> Detections: ...

    @overload
    def __call__(
        self, images: list[ImageLike], batch_size: int = 1, **options: Unpack[_ObjectOptions]
    ) -> list[Detections]: ...

    def __call__(
        self,
        images: ImageLike | list[ImageLike],
        batch_size: int = 1,
        *,
        tile: tuple[int, int] | None = None,
        overlap: int | None = None,
        full_image: bool = False,
        merge: Merge | None = None,
    ) -> Detections | list[Detections]:
        """Find the objects in one image, or in each of a list.

        Args:
            images: a path, array or PIL image, or a list of these.
            batch_size: how many images of a list, or tiles of an image, the network sees at a time.
            tile: height and width of tiles, pixels; None: the whole image is scaled to ``input_hw``, which is also the
                size of tiles that are seen at the image's own scale: others are scaled to it.
            overlap: pixels that neighbouring tiles share at least, in which objects up to that size are whole in one of
                them; None: a quarter of the tile's sides.
            full_image: see the whole image, scaled, too, for objects that are whole in no tile.
            merge: how boxes of different tiles are told to be one object; None: ``ios``, by intersection over the
                smaller area where a tile cuts the object, else by IoU; ``nms``: always by IoU.

        Returns:
            ``Detections`` in pixels of the original image (EXIF orientation applied); a list for a list.

        Raises, besides what ``ImagePredictor`` does:
            ConfigError: the options of tiles are wrong, or given without ``tile``.
        """
        options: _ObjectOptions = {"tile": tile, "overlap": overlap, "full_image": full_image, "merge": merge}
        return self._call(images, batch_size, **options)

    def _answer(
        self,
        images: list[UInt8Array],
        batch_size: int = 1,
        tile: tuple[int, int] | None = None,
        overlap: int | None = None,
        full_image: bool = False,
        merge: Merge | None = None,
    ) -> list[Detections]:
        if tile is not None:
            tiling = Tiling.of(tile, overlap, default=DEFAULT_OVERLAP)
            options = (batch_size, full_image, merge or "ios")
            return [find_in_tiles(image, tiling, self._predict, *options) for image in images]
        if overlap is not None or full_image or merge is not None:
            raise ConfigError(
                "overlap, full_image, merge: belong to tiles; give tile=(height, width) too, or leave them out"
            )
        return self._predict(images)

    @abstractmethod
    def _predict(self, images: list[UInt8Array]) -> list[Detections]:
        """The results of a batch of images that are scaled to ``input_hw``: preprocess, network, postprocess."""

    @property
    def settings(self) -> dict[str, Any]:
        """The threshold."""
        return {"score": self.score_threshold}


class _MapOptions(TypedDict, total=False):
    tile: tuple[int, int] | None
    overlap: int | None
    probabilities: bool


class MapPredictor(ImagePredictor[SegmentationMap]):
    """Labels the pixels of images as they come: a ``SegmentationMap`` in the size of the original image.

    An image gets exactly the labels that evaluation computed for it: the same letterbox to ``input_hw``, the same
    float32.  With tiles it is not scaled: what the network was trained to see at ``input_hw`` it then sees at the
    image's own scale.  The arguments are those of ``ImagePredictor``.
    """

    @overload
    def __call__(self, images: ImageLike, batch_size: int = 1, **options: Unpack[_MapOptions]) -> SegmentationMap: ...

    @overload
    def __call__(
        self, images: list[ImageLike], batch_size: int = 1, **options: Unpack[_MapOptions]
    ) -> list[SegmentationMap]: ...

    def __call__(
        self,
        images: ImageLike | list[ImageLike],
        batch_size: int = 1,
        *,
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

        Raises, besides what ``ImagePredictor`` does:
            ConfigError: ``tile`` or ``overlap`` does not suit the model.
            DetsegError: the model's logits are NaN or infinite, which is looked for in every image.
        """
        options: _MapOptions = {"tile": tile, "overlap": overlap, "probabilities": probabilities}
        return self._call(images, batch_size, **options)

    def _answer(
        self,
        images: list[UInt8Array],
        batch_size: int = 1,
        tile: tuple[int, int] | None = None,
        overlap: int | None = None,
        probabilities: bool = False,
    ) -> list[SegmentationMap]:
        if tile is not None:
            tiling, num_classes = Tiling.of(tile, overlap, self.stride), len(self.classes)
            found = (label_tiles(i, tiling, self.logits, num_classes, batch_size, probabilities) for i in images)
            return [SegmentationMap(labels, self.classes, class_probs) for labels, class_probs in found]
        if overlap is not None:
            raise ConfigError("overlap: belongs to tiles; give tile=(height, width) too, or leave it out")
        return self._whole(images, probabilities)

    @property
    @abstractmethod
    def stride(self) -> int:
        """Input pixels per cell of the network's coarsest map: what the sides of tiles are multiples of."""

    @abstractmethod
    def logits(self, images: UInt8Array) -> Float32Array:
        """(B, h, w, 3) uint8 → (B, C, h, w) float32. DetsegError: some are NaN or infinite."""

    @abstractmethod
    def _whole(self, images: list[UInt8Array], probabilities: bool) -> list[SegmentationMap]:
        """The maps of a batch of images that are scaled to ``input_hw``: preprocess, network, postprocess."""


def check_finite(lowest: float, highest: float) -> None:
    """DetsegError for logits that are NaN or infinite: the highest of NaNs would be class 0, whatever the image."""
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise DetsegError(
            "the model's logits are NaN or infinite, so there are no labels; take another checkpoint of its run, "
            "or train again with a lower optimizer.lr"
        )


def refuse_score(path: Path, model: str, score_threshold: float | None) -> None:
    """ConfigError for a score threshold, if there is one, of a model of label maps."""
    if score_threshold is not None:
        raise ConfigError(
            f"{path}: is a segmentation model ({model}), which gives every pixel a class and has no score threshold; "
            f"got {score_threshold}, leave it out"
        )
