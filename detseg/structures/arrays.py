"""The structures of NumPy arrays, which need no torch: class tables, masks, ground truth as files state it, samples.

Letters for dimensions: N objects of one image, H and W pixels.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detseg.ops.masks import decode_mask, decode_part, encode_mask, mask_areas, mask_bounds

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

IGNORE_LABEL = 255
"""Label of ignored pixels of a semantic map: void, crowd, padding. They count neither in losses nor in metrics."""

MAX_CLASSES = 255  # most classes of a semantic map, beside ``IGNORE_LABEL``

SCORE_THRESHOLD = 0.3
"""Detections with a lower score are neither drawn nor returned by a predictor, unless another threshold is given.
Evaluation has no such threshold: AP counts the tail of the ranking."""

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


@dataclass(frozen=True)
class InstanceMasks:
    """N masks of one image as compressed run lengths (see `detseg.ops.masks`), kilobytes each.

    Attributes:
        hw: height and width of the image, pixels.
        counts: the compressed run lengths of each mask.
    """

    hw: tuple[int, int]
    counts: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.counts)

    def select(self, positions: Sequence[int] | IntArray) -> InstanceMasks:
        """The masks at some positions, in that order."""
        return InstanceMasks(self.hw, tuple(self.counts[int(i)] for i in positions))

    def mask(self, index: int) -> BoolArray:
        """(H, W) bool, one mask at the size of the image."""
        decoded: BoolArray = decode_mask(self.counts[index], self.hw).view(np.bool_)
        return decoded

    def part(self, index: int) -> tuple[BoolArray, tuple[int, int]]:
        """The smallest part that holds one whole mask, (h, w) bool, and row and column of its upper left pixel; (0, 0)
        for an empty mask."""
        part, corner = decode_part(self.counts[index], self.hw)
        return part.view(np.bool_), corner

    def dense(self) -> BoolArray:
        """(N, H, W) bool, all masks at the size of the image; takes N · H · W bytes."""
        masks = np.zeros((len(self), *self.hw), dtype=np.bool_)
        for i in range(len(self)):
            masks[i] = self.mask(i)
        return masks

    @property
    def areas(self) -> IntArray:
        """(N,) int64 pixels."""
        return mask_areas(self.counts)

    @property
    def boxes(self) -> FloatArray:
        """(N, 4) float64 xyxy, the smallest box around each mask; zeros for an empty mask."""
        return mask_bounds(self.counts, self.hw)

    @classmethod
    def from_dense(cls, masks: BoolArray | UInt8Array) -> InstanceMasks:
        """(N, H, W) bool, or uint8 that is 0 outside, → run lengths; another shape is a ValueError."""
        if masks.ndim != 3:
            raise ValueError(f"masks: expected shape (N, H, W), got {masks.shape}")
        return cls((masks.shape[1], masks.shape[2]), tuple(encode_mask(mask) for mask in masks))


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
