"""What data sets yield: class tables, ground truth as files state it, and decoded samples.

Letters for dimensions: N objects of one image, H and W pixels.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detseg.structures.conventions import BoolArray, FloatArray, IntArray, UInt8Array
from detseg.structures.masks import InstanceMasks

_NO_TEXT = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories of control characters, surrogates, and separators of lines and paragraphs."""
_TURNS_TEXT = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_plain_text(name: str) -> bool:
    """Whether a name is safe on a line of a terminal, text or XML file: no control character, line break, surrogate, or
    mark that changes the direction of the text."""
    return not any(unicodedata.category(c) in _NO_TEXT or c in _TURNS_TEXT for c in name)


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set: the label of a class is its position in ``names``.

    Attributes:
        names: one name per class, all different and plain text (``is_plain_text``).
        source_ids: the ids in the source (COCO's sparse category ids), in the same order; 1 to C by default.
    """

    names: tuple[str, ...]
    source_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise ValueError(f"class names must differ, got {twice} more than once")
        for name in self.names:
            if not is_plain_text(name):
                raise ValueError(f"class names must be text without control characters, got {name!r}")
        if not self.source_ids:
            object.__setattr__(self, "source_ids", tuple(range(1, len(self.names) + 1)))
        if len(self.source_ids) != len(self.names) or len(set(self.source_ids)) != len(self.source_ids):
            raise ValueError(f"expected {len(self.names)} different source ids, got {list(self.source_ids)}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def background(self) -> int | None:
        """The label of a class named ``background``, which is not drawn; None if there is none."""
        return self.names.index("background") if "background" in self.names else None


@dataclass(frozen=True, eq=False)
class ImageAnnotations:
    """The ground truth of one image as its file states it, in pixels of the original image (upright, EXIF applied).

    Attributes:
        boxes: (N, 4) float64 xyxy, not clipped; evaluation uses exactly these.
        labels: (N,) int64.
        crowd: (N,) bool, COCO's iscrowd: a region of many objects.
        difficult: (N,) bool, VOC's flag.
        truncated: (N,) bool, VOC's flag.
        area: (N,) float64, square pixels; COCO's ``area`` (of the mask, where there is one), else that of the box.
        masks: N masks; None where only boxes were read.
    """

    boxes: FloatArray
    labels: IntArray
    crowd: BoolArray
    difficult: BoolArray
    truncated: BoolArray
    area: FloatArray
    masks: InstanceMasks | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def ignore(self) -> BoolArray:
        """(N,) bool: objects that are ignored in training and evaluation."""
        return self.crowd | self.difficult


@dataclass(frozen=True, eq=False)
class Sample:
    """One decoded image with its training targets.

    Attributes:
        index: position in the data set.
        image_id: the id of the image in evaluation files.
        path: the file of the image.
        image: (H, W, 3) uint8 RGB, upright.
        boxes: (N, 4) float32 xyxy with ``0 <= x1 < x2 <= W``; clipped to the image, boxes without area left out.
        labels: (N,) int64.
        ignore: (N,) bool.
        semantic: (H, W) uint8, the label of each pixel, ``IGNORE_LABEL`` where it is ignored; None in detection.
        masks: N masks of the size of ``image``; None where only boxes were read.
    """

    index: int
    image_id: int
    path: str
    image: UInt8Array
    boxes: npt.NDArray[np.float32]
    labels: IntArray
    ignore: BoolArray
    semantic: UInt8Array | None = None
    masks: InstanceMasks | None = None

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]
