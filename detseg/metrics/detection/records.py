"""Detections and ground truth of many images as flat arrays, from which every detection metric is computed.

Letters: I images, D detections of all images, G ground-truth objects of all images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from detseg.structures import BoolArray, DetectorOutput, FloatArray, ImageAnnotations, InstanceMasks, IntArray

MaskColumn = npt.NDArray[np.object_]
"""Compressed run lengths (see `detseg.ops.masks`), one ``bytes`` an entry."""


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
    """Detections and objects of I images, in pixels of the original images; xyxy, 0-based, half-open.

    Attributes:
        image_ids: (I,) int64, all different.
        detection_image_ids: (D,) int64.
        detection_boxes: (D, 4) float64 xyxy.
        detection_scores: (D,) float64 in [0, 1].
        detection_labels: (D,) int64.
        object_image_ids: (G,) int64.
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
        return self._select(
            ~np.isin(self.image_ids, image_ids),
            ~np.isin(self.detection_image_ids, image_ids),
            ~np.isin(self.object_image_ids, image_ids),
        )

    def to_state(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name, of plain numbers, to travel between processes."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The records of a ``to_state``."""
        return cls(**state)

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


_MASK_COLUMNS = ("detection_masks", "object_masks")


@dataclass(frozen=True, eq=False)
class MaskRecords(DetectionRecords):
    """Detections and objects of I images with their masks.

    Attributes:
        image_hw: (I, 2) int64, height and width in pixels; zeros for an image without any mask.
        detection_masks: (D,) run lengths.
        object_masks: (G,) run lengths.
    """

    image_hw: IntArray
    detection_masks: MaskColumn
    object_masks: MaskColumn

    @classmethod
    def of_image(cls, image_id: int, detections: FoundObjects, truth: ImageAnnotations) -> Self:
        """The records of one image.

        Raises:
            ValueError: detections or objects have no masks, or masks of different image sizes.
        """
        found = _checked_masks(f"image {image_id}: detections", detections.masks, len(detections.scores))
        true = _checked_masks(f"image {image_id}: ground truth", truth.masks, len(truth))
        if found is not None and true is not None and found.hw != true.hw:
            raise ValueError(
                f"image {image_id}: expected masks of the original image, got masks of {found.hw} (height, width) for "
                f"the detections and of {true.hw} for the ground truth"
            )
        known = found if true is None else true
        return cls(
            **vars(DetectionRecords.of_image(image_id, detections, truth)),
            image_hw=np.array([(0, 0) if known is None else known.hw], dtype=np.int64),
            detection_masks=_column(() if found is None else found.counts),
            object_masks=_column(() if true is None else true.counts),
        )

    def to_state(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name, of plain numbers, to travel between processes.

        A column of masks becomes its run lengths one after the other, (K,) uint8, and how many bytes each has.
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
            ends = np.cumsum(lengths)
            slices = zip((ends - lengths).tolist(), ends.tolist(), strict=True)
            arrays[name] = _column(data[start:end] for start, end in slices)
        return cls(**arrays)


def _checked_masks(where: str, masks: InstanceMasks | None, num: int) -> InstanceMasks | None:
    """The masks, of which there must be ``num``; None where ``num`` is 0 and none are given."""
    got = "none" if masks is None else len(masks)
    if num != (0 if masks is None else len(masks)):
        raise ValueError(f"{where}: expected {num} masks of the original image (masks=True scores them), got {got}")
    return masks


def _column(masks: Iterable[bytes]) -> MaskColumn:
    return np.array(list(masks), dtype=np.object_)
