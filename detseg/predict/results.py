"""What predictors return: NumPy arrays that know the image they belong to, draw themselves and convert themselves.

Neither torch nor OpenCV is imported here, so that a runtime without torch returns the same types.

Letters for dimensions: N objects, C classes, H and W pixels of the image.
"""

from __future__ import annotations

import io
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageShow

from detseg.errors import DataError, DetsegError
from detseg.structures import MAX_CLASSES, BoolArray, ClassTable, InstanceMasks, IntArray, UInt8Array

_NOTEBOOK_SIDE = 1200
"""Longest side, in pixels, of a drawing in a notebook, whose file would be huge at a camera's full size."""

_NO_CLASSES = ClassTable(())


class _Result(ABC):
    """What the results of every task can do with their image."""

    image: UInt8Array | None
    path: Path | None

    @abstractmethod
    def _drawn(self, image: UInt8Array, scale: int | None) -> UInt8Array:
        """The drawing, ``scale`` times as large as the image; None: enlarged where it is small."""

    def draw(self, image: UInt8Array | None = None) -> UInt8Array:
        """A drawing of the result on its image.

        Args:
            image: (H, W, 3) uint8 RGB to draw on, of the size of the result's image; None: that image itself.

        Returns:
            (H, W, 3) uint8 RGB, a copy.

        Raises:
            ValueError: the result has no image and none is given, or it is of another size.
        """
        return self._drawn(self._image(image), 1)

    def save(self, path: Path | str, image: UInt8Array | None = None) -> None:
        """Write the drawing; small images are enlarged, so that lines and names can be read.

        Args:
            path: the file, whose suffix is the format: .jpg, .png, .webp, .bmp, .tif; an existing one is replaced, a
                missing folder is made.
            image: see ``draw``.

        Raises:
            DataError: the suffix is no image format, the file is the image itself, or it could not be written.
            ValueError: as of ``draw``.
        """
        from detseg.draw import write_image

        if self.path is not None and Path(path).resolve() == self.path.resolve():
            raise DataError(f"{path}: is the image itself, which stays as it is; choose another name for the drawing")
        write_image(Path(path), self._drawn(self._image(image), None))

    def show(self) -> None:
        """Show the drawing: in a notebook below the cell, else in the viewer that Pillow finds. DetsegError: there is
        no viewer, as on a server; ValueError: as of ``draw``."""
        drawn = Image.fromarray(self._drawn(self._image(None), None))
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        if hasattr(shell, "kernel"):
            from IPython.display import display

            display(self)
        elif not ImageShow.show(drawn):
            raise DetsegError("there is no program to show an image here; write it to a file: .save('found.png')")

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows; without an image it shows the ``repr``."""
        if self.image is None:
            return None
        drawn, buffer = Image.fromarray(self._drawn(self.image, None)), io.BytesIO()
        drawn.thumbnail((_NOTEBOOK_SIDE, _NOTEBOOK_SIDE))
        drawn.save(buffer, format="PNG")
        return buffer.getvalue()

    def _image(self, given: UInt8Array | None) -> UInt8Array:
        image = self.image if given is None else given
        if image is None:
            raise ValueError("the result does not know its image; give it: draw(image)")
        return image


@dataclass(frozen=True, eq=False, repr=False)
class Detections(_Result):
    """The objects found in one image, best first, in pixels of that image.

    Sliceable like an array: ``found[found.scores > 0.5]``, ``found[:10]``, ``found[3]``; iteration gives one object at
    a time, each as ``Detections`` of length 1.  A result keeps its image in memory as long as it lives.

    Attributes:
        boxes: (N, 4) float32 xyxy, pixels.
        scores: (N,) float32 in [0, 1]: how sure the model is.
        labels: (N,) int64, positions in ``classes.names``.
        classes: the table that names the labels; empty if it is not known.
        masks: N masks of the size of the image, as run lengths; None from a detector of boxes.
        image: (H, W, 3) uint8 RGB, upright; None if it is not known.
        path: the file of the image; None if it was none.

    Raises:
        ValueError: an array has another shape or dtype.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    labels: IntArray
    classes: ClassTable = _NO_CLASSES
    masks: InstanceMasks | None = None
    image: UInt8Array | None = None
    path: Path | None = None

    def __post_init__(self) -> None:
        num = len(self.boxes)
        wanted = (("boxes", (num, 4), np.float32), ("scores", (num,), np.float32), ("labels", (num,), np.int64))
        for name, shape, dtype in wanted:
            array = getattr(self, name)
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"{name}: expected {np.dtype(dtype)} of shape {shape}, got {array.dtype} of {array.shape}"
                )
        if self.masks is not None and len(self.masks) != num:
            raise ValueError(f"masks: expected one for each of {num} boxes, got {len(self.masks)}")

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, item: int | slice | Sequence[int] | Sequence[bool] | IntArray | BoolArray) -> Detections:
        if not isinstance(item, int | slice) and not np.size(item):
            item = []  # an empty array of whatever dtype
        positions = np.atleast_1d(np.arange(len(self))[item])
        return replace(
            self,
            boxes=self.boxes[positions],
            scores=self.scores[positions],
            labels=self.labels[positions],
            masks=None if self.masks is None else self.masks.select(positions),
        )

    def __iter__(self) -> Iterator[Detections]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        names = self.names
        groups = []
        for name in dict.fromkeys(names):
            scores = [f"{score:.2f}" for score, own in zip(self.scores.tolist(), names, strict=True) if own == name]
            groups.append(" ".join([str(len(scores)), name, *scores[:3], *(["…"] if len(scores) > 3 else [])]))
        shown = ", ".join([*groups[:8], *(["…"] if len(groups) > 8 else [])])
        return f"Detections({len(self)} {'object' if len(self) == 1 else 'objects'}{': ' if groups else ''}{shown})"

    @property
    def names(self) -> list[str]:
        """The class name of each object; its label's number without a class table."""
        return [self.classes.names[i] if len(self.classes) else str(i) for i in self.labels.tolist()]

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """COCO result entries: ``image_id``, ``category_id`` (the source's id), ``bbox`` (x, y, w, h), ``score``; with
        masks also ``segmentation``, ``{"size": [H, W], "counts": str}`` with compressed run lengths. ValueError: there
        is no class table."""
        from detseg.data.formats.coco_writer import coco_results

        if len(self) and not len(self.classes):
            raise ValueError("these detections have no class table; set `classes` to get COCO's category ids")
        return coco_results(image_id, self.boxes, self.labels, self.scores, self.masks, self.classes)

    def to_supervision(self) -> Any:
        """``supervision.Detections`` with the class names in ``data["class_name"]``; masks are (N, H, W) bool.
        DetsegError: supervision is not installed."""
        try:
            import supervision
        except ImportError as error:
            raise DetsegError("to_supervision() needs supervision; pip install supervision") from error
        return supervision.Detections(
            xyxy=self.boxes,
            mask=None if self.masks is None else self.masks.dense(),
            confidence=self.scores,
            class_id=self.labels,
            data={"class_name": np.array(self.names, dtype=np.str_)},
        )

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with a row for each object: ``name``, ``label``, ``score``, ``x1``, ``y1``, ``x2``,
        ``y2`` (pixels), and ``mask_area`` (pixels) where there are masks. DetsegError: pandas is not installed."""
        try:
            import pandas
        except ImportError as error:
            raise DetsegError("to_pandas() needs pandas; pip install pandas") from error
        columns = {"name": self.names, "label": self.labels, "score": self.scores}
        columns |= dict(zip(("x1", "y1", "x2", "y2"), self.boxes.T, strict=True))
        return pandas.DataFrame(columns if self.masks is None else columns | {"mask_area": self.masks.areas})

    def _drawn(self, image: UInt8Array, scale: int | None) -> UInt8Array:
        from detseg.draw import draw_boxes

        found = self.boxes, self.labels, self.classes.names, self.scores, self.masks
        return draw_boxes(image, *found, scale=scale, legend=scale is None)


@dataclass(frozen=True, eq=False, repr=False)
class SegmentationMap(_Result):
    """The class of every pixel of one image, at the image's own size.  A result keeps its image in memory as long as it
    lives.

    Attributes:
        labels: (H, W) uint8, positions in ``classes.names``.
        classes: the table that names the labels.
        probabilities: (C, H, W) float32 in [0, 1], summing to 1 over the classes; None unless they were requested.
        image: (H, W, 3) uint8 RGB, upright; None if it is not known.
        path: the file of the image; None if it was none.

    Raises:
        ValueError: an array has another shape or dtype, or a label no name.
    """

    labels: UInt8Array
    classes: ClassTable
    probabilities: npt.NDArray[np.float32] | None = None
    image: UInt8Array | None = None
    path: Path | None = None

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.dtype != np.uint8:
            raise ValueError(
                f"labels: expected uint8 of shape (H, W), got {self.labels.dtype} of shape {self.labels.shape}"
            )
        if not 0 < len(self.classes) <= MAX_CLASSES:
            raise ValueError(f"classes: expected 1 to {MAX_CLASSES}, got {len(self.classes)}")
        if self.labels.size and int(self.labels.max()) >= len(self.classes):
            raise ValueError(f"labels: expected below {len(self.classes)}, got {int(self.labels.max())}")
        expected = (len(self.classes), *self.labels.shape)
        if self.probabilities is not None and self.probabilities.shape != expected:
            raise ValueError(f"probabilities: expected shape {expected}, got {self.probabilities.shape}")

    def __repr__(self) -> str:
        largest = sorted(self.areas.items(), key=lambda entry: -entry[1])
        shown = [f"{name} {area / max(self.labels.size, 1):.1%}" for name, area in largest if area]
        more = ["…"] if len(shown) > 8 else []
        return f"SegmentationMap({self.hw[0]} x {self.hw[1]} pixels: {', '.join([*shown[:8], *more])})"

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each label."""
        return self.classes.names

    @property
    def palette(self) -> UInt8Array:
        """(C, 3) uint8 RGB: the colour of each label in drawings and PNG files; that of ``background`` is black."""
        from detseg.draw import class_colors

        return np.array(class_colors(self.names), dtype=np.uint8)

    @property
    def areas(self) -> dict[str, int]:
        """The number of pixels of each class, in the order of the labels."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes))
        return dict(zip(self.names, counts.tolist(), strict=True))

    def mask(self, name: str) -> BoolArray:
        """(H, W) bool: the pixels of one class. ValueError: there is no such class."""
        if name not in self.names:
            raise ValueError(f"there is no class {name!r}; the classes are {', '.join(self.names)}")
        mask: BoolArray = self.labels == self.names.index(name)
        return mask

    def save_png(self, path: Path | str, values: Sequence[int] | None = None) -> None:
        """Write the labels (not the drawing) as an indexed PNG with the colours of ``palette``; with the ``values``,
        0 to 255, of the C classes in the place of the labels 0 to C - 1. DataError: the file could not be written."""
        from detseg.draw import write_index_png

        write_index_png(Path(path), self.labels, self.palette, values)

    def _drawn(self, image: UInt8Array, scale: int | None) -> UInt8Array:
        """With a legend below it, unless it is a plain copy of the image's size."""
        from detseg.draw import class_colors, draw_legend, draw_semantic

        drawn = draw_semantic(image, self.labels, self.names, scale=scale)
        if scale is not None:
            return drawn
        areas, colors, total = list(self.areas.values()), class_colors(self.names), max(self.labels.size, 1)
        largest = [label for label in np.argsort(areas, kind="stable")[::-1].tolist() if areas[label]]
        return draw_legend(drawn, [(self.names[i], f" {areas[i] / total:.1%}", colors[i]) for i in largest])
