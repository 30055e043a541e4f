"""What checks need to know of masks, decoded once, and the two known ways in which they are exported wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detseg.data.annotations.model import PackedAnnotations, region_counts
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.errors import DataError
from detseg.messages import one_line
from detseg.ops.masks import decode_mask, encode_mask, mask_areas, mask_bounds, run_lengths
from detseg.structures import BoolArray, FloatArray, IntArray, UInt8Array

_LEAST_IOU, _FITTING_IOU = 0.8, 0.9  # of the stated box and the mask's bounds: less is no fit; more is a good one
_CLEARLY = 0.3  # by which the IoU of the transposed mask is better, at least
_SEVERAL, _LARGE_PART = 3, 0.5  # row by row is a pattern of several masks, or of this part of those with run lengths
_BY_POLYGONS, _BY_RUNS = 1.5, 1.0  # pixels by which boxes may differ: polygons do from their pixels, run lengths do not
_LEAST_PART = 0.1  # of its area by which that of the mask differs at least ...
_OF_BORDER = 0.5  # ... and of the border of its bounds: pixels on the border belong to it or not


@dataclass(frozen=True, eq=False)
class MaskFacts:
    """The masks of the N objects of an image.

    Attributes:
        areas: (N,) square pixels, NaN where there is no mask.
        bounds: (N, 4) xyxy.
        fits: (N,) whether the stated box agrees with the bounds.
        runs: (N,) whether there are run lengths, not polygons.
        row_major: (N,) whether run lengths fit the stated box when they are transposed, and are no exceptions.
        holes: (N,) whether polygons fit the stated area when those inside others are cut out.
        errors: of the objects whose segmentation cannot be read.
    """

    areas: FloatArray
    bounds: FloatArray
    fits: BoolArray
    runs: BoolArray
    row_major: BoolArray
    holes: BoolArray
    errors: dict[int, str]


@dataclass(frozen=True, eq=False)
class LabelFacts:
    """A label map: (256,) int64 pixels of each label, and height and width; or why it cannot be read."""

    counts: IntArray
    hw: tuple[int, int] = (0, 0)
    error: str = ""


def measure_labels(dataset: SegmentationDataset, index: int) -> LabelFacts:
    """Decode a label map and count its labels."""
    try:
        labels = dataset.semantic(index)
    except DataError as error:
        return LabelFacts(np.zeros(256, dtype=np.int64), error=one_line(error))
    counts = np.bincount(labels.ravel(), minlength=256).astype(np.int64)
    return LabelFacts(counts, (labels.shape[0], labels.shape[1]))


def measure_masks(packed: PackedAnnotations, index: int) -> MaskFacts | None:
    """Decode the masks of the objects of an image; None where there are none."""
    begin, end = int(packed.offsets[index]), int(packed.offsets[index + 1])
    if packed.regions is None or not packed.regions.lengths[begin:end].any():
        return None
    num, hw = end - begin, packed.hw(index)
    fits, runs, row_major, holes = np.zeros((4, num), dtype=np.bool_)
    found = MaskFacts(np.full(num, np.nan), np.zeros((num, 4)), fits, runs, row_major, holes, dict[int, str]())
    for row, stated in enumerate(packed.stated(index)):
        box, area, segmentation = packed.boxes[begin + row], stated.area, stated.segmentation
        if not segmentation:
            continue
        try:
            counts = region_counts(segmentation, hw)
        except ValueError as error:
            found.errors[row] = one_line(error)
            continue
        found.areas[row] = mask_areas((counts,))[0]
        found.bounds[row] = mask_bounds((counts,), hw)[0]
        if isinstance(segmentation, dict):
            found.runs[row] = True
            found.fits[row] = _fits_box(box, found.bounds[row], _BY_RUNS)
            found.row_major[row] = not found.fits[row] and _is_row_major(counts, hw, box, found.bounds[row])
            continue
        # Of thin outlines the pixels have other bounds than the corners.
        corners = np.concatenate([np.array(polygon).reshape(-1, 2) for polygon in segmentation])
        outline = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
        found.fits[row] = any(_fits_box(box, bounds, _BY_POLYGONS) for bounds in (found.bounds[row], outline))
        if len(segmentation) > 1 and not fits_area(area, found.areas[row], found.bounds[row]):
            cut = float(decode_mask(cut_holes(segmentation, hw), hw).sum())
            nearer = abs(area - cut) * 2 < abs(area - found.areas[row])
            found.holes[row] = nearer and fits_area(area, cut, found.bounds[row])
    return found


def _is_row_major(counts: bytes, hw: tuple[int, int], box: FloatArray, as_read: FloatArray) -> bool:
    bounds = mask_bounds((transposed(counts, hw),), hw)[0]
    iou = box_iou(box, bounds)
    good = iou >= _FITTING_IOU or bool(np.abs(box - bounds).max() <= 1)
    return good and iou >= box_iou(box, as_read) + _CLEARLY


def without_exceptions(masks: Sequence[MaskFacts]) -> None:
    """Take back that a mask goes row by row, where it is one of a few in the split: a tool writes all in one way."""
    num, of = (sum(int(getattr(one, name).sum()) for one in masks) for name in ("row_major", "runs"))
    if num < min(_SEVERAL, _LARGE_PART * of):
        for one in masks:
            one.row_major[:] = False


def transposed(counts: bytes, hw: tuple[int, int]) -> bytes:
    """Run lengths that go row by row, which were written as if column by column → compressed run lengths as COCO has
    them, of an image of ``hw`` pixels."""
    lengths = run_lengths(counts)
    inside = np.repeat((np.arange(len(lengths)) % 2).astype(np.uint8), lengths)
    return encode_mask(np.pad(inside, (0, hw[0] * hw[1] - len(inside))).reshape(hw))


def cut_holes(polygons: Any, hw: tuple[int, int]) -> bytes:
    """COCO's polygons filled by the even-odd rule, which cuts out those inside others → compressed run lengths."""
    inside: UInt8Array = np.zeros(hw, dtype=np.uint8)
    for polygon in polygons:
        inside = inside ^ decode_mask(region_counts([polygon], hw), hw)
    return encode_mask(inside)


def box_iou(one: FloatArray, other: FloatArray) -> float:
    """IoU of two boxes, (4,) xyxy."""
    common = (np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])).clip(0).prod()
    return float(common / max((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - common, 1e-9))


def _fits_box(box: FloatArray, bounds: FloatArray, pixels: float) -> bool:
    return bool(np.abs(box - bounds).max() < pixels) or box_iou(box, bounds) >= _LEAST_IOU


def fits_area(stated: float, area: float, bounds: FloatArray) -> bool:
    """Whether a stated area and that of the mask, square pixels, agree; NaN is not stated and does."""
    border = float((bounds[2:] - bounds[:2]).sum()) * 2
    return not abs(stated - area) > max(_LEAST_PART * stated, _OF_BORDER * border)
