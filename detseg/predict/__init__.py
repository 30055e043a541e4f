"""Trained models in applications: image in, result in the original's pixels out.

The names load on first use; nothing here imports lightning, albumentations or pycocotools, and results not even torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detseg.predict.load import find_device, load_predictor
    from detseg.predict.predictor import ImagePredictor, Predictor, SegmentationPredictor
    from detseg.predict.preprocess import ImageLike, to_array
    from detseg.predict.results import Detections, SegmentationMap

__all__ = [
    "EXPORT_FORMATS",
    "Detections",
    "ImageLike",
    "ImagePredictor",
    "Predictor",
    "SegmentationMap",
    "SegmentationPredictor",
    "find_device",
    "load_predictor",
    "to_array",
]

EXPORT_FORMATS = ("coco", "voc", "yolo")
"""The formats that detections are written in, the first by default."""


def __getattr__(name: str) -> Any:
    if name in ("Detections", "SegmentationMap"):
        from detseg.predict import results

        return getattr(results, name)
    if name in ("ImagePredictor", "Predictor", "SegmentationPredictor"):
        from detseg.predict import predictor

        return getattr(predictor, name)
    if name in ("ImageLike", "to_array"):
        from detseg.predict import preprocess

        return getattr(preprocess, name)
    if name in ("find_device", "load_predictor"):
        from detseg.predict import load

        return getattr(load, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
