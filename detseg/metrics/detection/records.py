"""Detections and ground truth of many images as flat arrays: what every detection metric is computed from.

Letters: I images, D detections of all images, G ground-truth objects of all images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from detseg.structures import BoolArray, Detections, FloatArray, ImageAnnotations, InstanceMasks, IntArray


@dataclass(frozen=True, eq=False)
class DetectionRecords:
    """Detections and objects of I images, in pixels of the original images; xyxy, 0-based, half-open.

    Attributes:
        image_ids: (I,) int64, all different.
        detection_image_ids: (D,) int64, the image of each detection.
        detection_boxes: (D, 4) float64 xyxy.
        detection_scores: (D,) float64 in [0, 1].
        detection_labels: (D,) int64.
        object_image_ids: (G,) int64, the image of each object.
        object_boxes: (G, 4) float64 xyxy.
        object_labels: (G,) int64.
        object_ignore: (G,) bool, crowd or difficult: neither right nor wrong to find.
        object_areas: (G,) float64, square pixels.
    """

    image_ids: IntArray
    detection_image_ids: IntArray
    detection_boxes: FloatArray
    detection_scores: FloatArray
    detection_labels: IntArray
    object_image_ids: IntArray
    object_boxes: FloatArray
    object_labels: IntArray
    object_ignore: BoolArray
    object_areas: FloatArray

    @classmethod
    def of_image(cls, image_id: int, detections: Detections, truth: ImageAnnotations) -> Self:
        """The records of one image."""
        return cls(**cls.columns(image_id, detections, truth))

    @classmethod
    def columns(cls, image_id: int, detections: Detections, truth: ImageAnnotations) -> dict[str, Any]:
        """The arrays of one image by name."""
        found = detections.cpu()
        return {
            "image_ids": np.array([image_id], dtype=np.int64),
            "detection_image_ids": np.full(len(found), image_id, dtype=np.int64),
            "detection_boxes": found.boxes.detach().numpy().astype(np.float64),
            "detection_scores": found.scores.detach().numpy().astype(np.float64),
            "detection_labels": found.labels.numpy().astype(np.int64),
            "object_image_ids": np.full(len(truth), image_id, dtype=np.int64),
            "object_boxes": np.array(truth.boxes, dtype=np.float64).reshape(-1, 4),
            "object_labels": np.array(truth.labels, dtype=np.int64),
            "object_ignore": np.array(truth.ignore, dtype=np.bool_),
            "object_areas": np.array(truth.area, dtype=np.float64),
        }

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The records of several sets of images, which must not overlap, in the order of their image ids.

        The order decides between detections of equal score; ascending ids are what pycocotools goes by.
        """
        parts = [cls._of_no_image(), *parts]
        every = cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))
        return every.picked(
            np.argsort(every.image_ids),
            np.argsort(every.detection_image_ids, kind="stable"),
            np.argsort(every.object_image_ids, kind="stable"),
        )

    def without_images(self, image_ids: IntArray) -> Self:
        """The records of all images but the (K,) given ones."""
        return self.picked(
            np.flatnonzero(~np.isin(self.image_ids, image_ids)),
            np.flatnonzero(~np.isin(self.detection_image_ids, image_ids)),
            np.flatnonzero(~np.isin(self.object_image_ids, image_ids)),
        )

    def picked(self, images: IntArray, detections: IntArray, objects: IntArray) -> Self:
        """The images, detections and objects at the given positions, in that order."""
        picks = {"image": images, "detection": detections, "object": objects}
        return type(self)(
            *(getattr(self, field.name)[picks[field.name.split("_")[0]]] for field in fields(self)),
        )

    def to_state(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name, of plain numbers, to travel between processes."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The records of a ``to_state``."""
        return cls(**state)

    @classmethod
    def _of_no_image(cls) -> Self:
        """Arrays of their kinds and shapes with nothing in them."""
        none, flags = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_)
        truth = ImageAnnotations(
            np.zeros((0, 4)), none, crowd=flags, difficult=flags, truncated=flags, area=np.zeros(0)
        )
        return cls.of_image(0, Detections.empty(), truth).picked(none, none, none)


MaskColumn = npt.NDArray[np.object_]
"""Compressed run lengths, one ``bytes`` an entry."""

_MASK_COLUMNS = ("detection_masks", "object_masks")


@dataclass(frozen=True, eq=False)
class MaskRecords(DetectionRecords):
    """Detections and objects of I images with their masks.

    Attributes:
        image_hw: (I, 2) int64, height and width in pixels; zeros for an image without any mask.
        detection_masks: (D,) run lengths (see `detseg.ops.masks`).
        object_masks: (G,) run lengths.
    """

    image_hw: IntArray
    detection_masks: MaskColumn
    object_masks: MaskColumn

    @classmethod
    def columns(cls, image_id: int, detections: Detections, truth: ImageAnnotations) -> dict[str, Any]:
        """The arrays of one image by name.

        Raises:
            ValueError: detections or objects have no masks, or masks of different image sizes.
        """
        found = _masks(f"image {image_id}: detections", detections.masks, len(detections))
        true = _masks(f"image {image_id}: ground truth", truth.masks, len(truth))
        if found is not None and true is not None and found.hw != true.hw:
            raise ValueError(
                f"image {image_id}: masks of detections are of an image of {_size(found)} pixels, those of the ground "
                f"truth of {_size(true)} (height x width); both must be of the original image"
            )
        known = found if true is None else true
        return {
            **super().columns(image_id, detections, truth),
            "image_hw": np.array([(0, 0) if known is None else known.hw], dtype=np.int64),
            "detection_masks": _column(() if found is None else found.counts),
            "object_masks": _column(() if true is None else true.counts),
        }

    def to_state(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name, of plain numbers, to travel between processes.

        In place of a column of masks are its run lengths one after the other, (K,) uint8, and how many bytes each has.
        """
        state = super().to_state()
        for name in _MASK_COLUMNS:
            column = state.pop(name)
            state[f"{name}_bytes"] = np.frombuffer(b"".join(column), dtype=np.uint8)
            state[f"{name}_lengths"] = np.array([len(counts) for counts in column], dtype=np.int64)
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The records of a ``to_state``."""
        arrays = dict(state)
        for name in _MASK_COLUMNS:
            data, lengths = arrays.pop(f"{name}_bytes").tobytes(), arrays.pop(f"{name}_lengths")
            ends = np.cumsum(lengths).tolist()
            starts = [0, *ends[:-1]]
            arrays[name] = _column(data[start:end] for start, end in zip(starts, ends, strict=False))
        return cls(**arrays)


def _masks(where: str, masks: InstanceMasks | None, num: int) -> InstanceMasks | None:
    """The masks, of which there must be ``num``; None where nothing needs one and none are given."""
    if masks is None:
        if num:
            raise ValueError(
                f"{where}: expected {num} masks, got none; this evaluator scores masks of the original image "
                f"(masks=True)"
            )
    elif len(masks) != num:
        raise ValueError(f"{where}: expected {num} masks, got {len(masks)}")
    return masks


def _size(masks: InstanceMasks) -> str:
    return f"{masks.hw[0]} x {masks.hw[1]}"


def _column(masks: Iterable[bytes]) -> MaskColumn:
    return np.array(list(masks), dtype=np.object_)
