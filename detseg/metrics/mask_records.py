"""Records with a mask for every detection and object, as run lengths: what COCO's numbers of masks are computed from.

Letters: I images, D detections of all images, G ground-truth objects of all images, K bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from detseg.metrics.records import DetectionRecords
from detseg.structures import Detections, ImageAnnotations, InstanceMasks, IntArray

MaskColumn = npt.NDArray[np.object_]
"""Compressed run lengths, one ``bytes`` an entry."""

_MASK_COLUMNS = ("detection_masks", "object_masks")


@dataclass(frozen=True)
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
