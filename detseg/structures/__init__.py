"""The types that travel between the parts of detseg; they check their shapes and dtypes.

Boxes are always xyxy in absolute pixels, 0-based and half-open: a box over a whole image is ``(0, 0, W, H)``.
Labels are 0-based and contiguous; detection has no background index. Semantic maps hold one label per pixel, and
``IGNORE_LABEL`` where a pixel is ignored.

The structures of tensors load on first use: what a data set or a runtime without torch needs is NumPy alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detseg.structures.arrays import (
    IGNORE_LABEL,
    MAX_CLASSES,
    SCORE_THRESHOLD,
    BoolArray,
    ClassTable,
    Float32Array,
    FloatArray,
    ImageAnnotations,
    InstanceMasks,
    IntArray,
    Sample,
    UInt8Array,
    is_plain_text,
)

if TYPE_CHECKING:
    from detseg.structures.tensors import Batch, BoxTargets, DetectorOutput, RoiMasks

__all__ = [
    "IGNORE_LABEL",
    "MAX_CLASSES",
    "SCORE_THRESHOLD",
    "Batch",
    "BoolArray",
    "BoxTargets",
    "ClassTable",
    "DetectorOutput",
    "Float32Array",
    "FloatArray",
    "ImageAnnotations",
    "InstanceMasks",
    "IntArray",
    "RoiMasks",
    "Sample",
    "UInt8Array",
    "is_plain_text",
]


def __getattr__(name: str) -> Any:
    if name in ("Batch", "BoxTargets", "DetectorOutput", "RoiMasks"):
        from detseg.structures import tensors

        return getattr(tensors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
