"""The types that travel between the parts of detseg; they check their shapes and dtypes.

Boxes are always xyxy in absolute pixels, 0-based and half-open: a box over a whole image is ``(0, 0, W, H)``.
Labels are 0-based and contiguous; detection has no background index. Semantic maps hold one label per pixel, and
``IGNORE_LABEL`` where a pixel is ignored.
"""

from __future__ import annotations

from detseg.structures.arrays import BoolArray, FloatArray, IntArray, UInt8Array
from detseg.structures.batches import Batch, BoxTargets
from detseg.structures.detections import DetectorOutput
from detseg.structures.masks import InstanceMasks, RoiMasks
from detseg.structures.samples import (
    IGNORE_LABEL,
    MAX_CLASSES,
    ClassTable,
    ImageAnnotations,
    Sample,
    is_plain_text,
)
from detseg.structures.segmentation import SegmentationMap

__all__ = [
    "IGNORE_LABEL",
    "MAX_CLASSES",
    "Batch",
    "BoolArray",
    "BoxTargets",
    "ClassTable",
    "Detections",
    "DetectorOutput",
    "FloatArray",
    "ImageAnnotations",
    "InstanceMasks",
    "IntArray",
    "RoiMasks",
    "Sample",
    "SegmentationMap",
    "UInt8Array",
    "is_plain_text",
]

Detections = DetectorOutput
