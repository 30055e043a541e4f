"""Detections and ground truth of many images as flat arrays, from which every detection metric is computed.

Letters: I images, D detections of all images, G ground-truth objects of all images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from detseg.structures import BoolArray, DetectorOutput, FloatArray, ImageAnnotations, InstanceMasks, IntArray

IouType = Literal["bbox", "segm"]
"""What is compared: boxes, or masks, of which only ``MaskRecords`` have some."""

MaskColumn = npt.NDArray[np.object_]  # compressed run lengths (see `detseg.ops.masks`), one ``bytes`` an entry


class FoundObjects(Protocol):
    """The detections of an image: a predictor's ``Detections``, or a ``DetectorOutput`` in main memory."""

    @property
    def boxes(self) -> Any:
        """(N, 4) xyxy in pixels of the original image."""

    @property
    def scores(self) -> Any:
        """(N,) in [0, 1]."""

    @property
    def labels(self) -> Any:
        """(N,) integers."""

    @property
    def masks(self) -> InstanceMasks | None:
        """N masks of the original image; None from a detector of boxes."""


@dataclass(frozen=True, eq=False)
class DetectionRecords:
    """Detections and objects of I images, in pixels of the original images."""

    image_ids: IntArray  # (I,), all different
    detection_image_ids: IntArray  # (D,)
    detection_boxes: FloatArray  # (D, 4) xyxy, 0-based, half-open
    detection_scores: FloatArray  # (D,) in [0, 1]
    detection_labels: IntArray  # (D,)
    object_image_ids: IntArray  # (G,)
    object_boxes: FloatArray  # (G, 4) xyxy, 0-based, half-open
    object_labels: IntArray  # (G,)
    object_ignore: BoolArray  # (G,), crowd or difficult: neither right nor wrong to find
    object_areas: FloatArray  # (G,), square pixels

    @classmethod
    def of_image(cls, image_id: int, detections: FoundObjects, truth: ImageAnnotations) -> Self:
        """The records of one image."""
        return cls(
            image_ids=np.array([image_id], dtype=np.int64),
            detection_image_ids=np.full(len(detections.scores), image_id, dtype=np.int64),
            detection_boxes=np.asarray(detections.boxes).astype(np.float64),
            detection_scores=np.asarray(detections.scores).astype(np.float64),
            detection_labels=np.asarray(detections.labels).astype(np.int64),
            object_image_ids=np.full(len(truth), image_id, dtype=np.int64),
            object_boxes=np.array(truth.boxes, dtype=np.float64).reshape(-1, 4),
            object_labels=np.array(truth.labels, dtype=np.int64),
            object_ignore=np.array(truth.ignore, dtype=np.bool_),
            object_areas=np.array(truth.area, dtype=np.float64),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The records of several sets of different images, by image id.

        The order decides between detections of equal score; pycocotools goes by ascending image ids too.
        """
        parts = [cls._empty(), *parts]
        columns = {field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)}
        records = cls(**columns)
        return records._select(
            np.argsort(records.image_ids),
            np.argsort(records.detection_image_ids, kind="stable"),
            np.argsort(records.object_image_ids, kind="stable"),
        )

    def without_images(self, image_ids: IntArray) -> Self:
        """The records of all images but the (K,) given ones."""
        columns = self.image_ids, self.detection_image_ids, self.object_image_ids
        return self._select(*(~np.isin(column, image_ids) for column in columns))

    def to_state(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name, of plain numbers, to travel between processes: a column of masks as its run lengths one
        after the other, (K,) uint8, and how many bytes each has."""
        state: dict[str, npt.NDArray[Any]] = {}
        for name, column in vars(self).items():
            if column.dtype.hasobject:
                state[f"{name}_bytes"] = np.frombuffer(b"".join(column), dtype=np.uint8)
                state[f"{name}_lengths"] = np.array([len(counts) for counts in column], dtype=np.int64)
            else:
                state[name] = column
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The records of a ``to_state``."""
        columns = {field.name: state[field.name] for field in fields(cls) if field.name in state}
        for name in {field.name for field in fields(cls)} - columns.keys():
            data, ends = state[f"{name}_bytes"].tobytes(), np.cumsum(state[f"{name}_lengths"]).tolist()
            columns[name] = _column(data[start:end] for start, end in pairwise([0, *ends]))
        return cls(**columns)

    def _select(
        self, images: IntArray | BoolArray, detections: IntArray | BoolArray, objects: IntArray | BoolArray
    ) -> Self:
        rows = {"image": images, "detection": detections, "object": objects}
        return type(self)(**{name: column[rows[name.split("_")[0]]] for name, column in vars(self).items()})

    @classmethod
    def _empty(cls) -> Self:
        none, flags = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_)
        truth = ImageAnnotations(np.zeros((0, 4)), none, flags, flags, flags, area=np.zeros(0))
        return cls.of_image(0, DetectorOutput.empty(), truth)._select(none, none, none)


@dataclass(frozen=True, eq=False)
class MaskRecords(DetectionRecords):
    """Detections and objects of I images with their masks as run lengths."""

    image_hw: IntArray  # (I, 2) height and width, pixels; zeros for an image without any mask
    detection_masks: MaskColumn  # (D,)
    object_masks: MaskColumn  # (G,)

    @classmethod
    def of_image(cls, image_id: int, detections: FoundObjects, truth: ImageAnnotations) -> Self:
        """The records of one image; ValueError where masks are missing or of different image sizes."""
        found = _checked_masks(f"image {image_id}: detections", detections.masks, len(detections.scores))
        true = _checked_masks(f"image {image_id}: ground truth", truth.masks, len(truth))
        if found is not None and true is not None and found.hw != true.hw:
            sizes = f"got masks of {found.hw} (height, width) for the detections and of {true.hw} for the ground truth"
            raise ValueError(f"image {image_id}: expected masks of the original image, {sizes}")
        known = found if true is None else true
        return cls(
            **vars(DetectionRecords.of_image(image_id, detections, truth)),
            image_hw=np.array([(0, 0) if known is None else known.hw], dtype=np.int64),
            detection_masks=_column(() if found is None else found.counts),
            object_masks=_column(() if true is None else true.counts),
        )


def _checked_masks(where: str, masks: InstanceMasks | None, num: int) -> InstanceMasks | None:
    """The masks, of which there must be ``num``; None where ``num`` is 0 and none are given."""
    got = "none" if masks is None else len(masks)
    if num != (0 if masks is None else len(masks)):
        raise ValueError(f"{where}: expected {num} masks of the original image (masks=True scores them), got {got}")
    return masks


def _column(masks: Iterable[bytes]) -> MaskColumn:
    return np.array(list(masks), dtype=np.object_)


_CHUNK = 1 << 15  # about so many pairs are compared at a time: memory does not grow with crowded images


def overlapping_pairs(
    detection_boxes: FloatArray, object_boxes: FloatArray, detection_groups: IntArray, object_groups: IntArray
) -> Iterator[tuple[IntArray, IntArray, FloatArray]]:
    """All pairs of a detection and an object of the same group with an area in common.

    Args:
        detection_boxes, object_boxes: (D, 4) and (G, 4) float64 xyxy, pixels.
        detection_groups, object_groups: (D,) and (G,) int64, the latter ascending.

    Yields:
        Chunks of P pairs, by detection and then by object: (P,) int64 positions of the detections and (P,) int64 of the
        objects, and (P,) float64 areas of the intersections, above 0.
    """
    firsts = np.searchsorted(object_groups, detection_groups, side="left")
    counts = np.searchsorted(object_groups, detection_groups, side="right") - firsts
    before = np.cumsum(counts) - counts  # pairs of all earlier detections
    left, top, right, bottom = np.ascontiguousarray(detection_boxes.T)
    object_left, object_top, object_right, object_bottom = np.ascontiguousarray(object_boxes.T)
    starts = np.flatnonzero(np.diff(before // _CHUNK, prepend=-1)).tolist()
    for start, end in pairwise([*starts, len(before)]):
        num = counts[start:end]
        detections = np.repeat(np.arange(start, end), num)
        objects = np.arange(len(detections)) + np.repeat(firsts[start:end] - before[start:end] + before[start], num)
        width = np.minimum(right[detections], object_right[objects])
        width -= np.maximum(left[detections], object_left[objects])
        height = np.minimum(bottom[detections], object_bottom[objects])
        height -= np.maximum(top[detections], object_top[objects])
        overlap = np.flatnonzero((width > 0) & (height > 0))
        yield detections[overlap], objects[overlap], width[overlap] * height[overlap]
