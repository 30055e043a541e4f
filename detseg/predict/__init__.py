"""Trained models in applications: image in, result in the original's pixels out.

The names load on first use; nothing here imports lightning, albumentations or pycocotools, and results not even torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detseg.predict.combine.ensemble import ensemble
    from detseg.predict.interface import ImageLike, ImagePredictor, MapPredictor, ObjectPredictor, to_array
    from detseg.predict.load import find_device, load_predictor
    from detseg.predict.predictor import Predictor, SegmentationPredictor
    from detseg.predict.results import Detections, SegmentationMap
    from detseg.predict.video.frames import Frame, Video, open_video

__all__ = [
    "EXPORT_FORMATS",
    "MAP_FORMATS",
    "MASK_VALUES",
    "Detections",
    "Frame",
    "ImageLike",
    "ImagePredictor",
    "MapPredictor",
    "ObjectPredictor",
    "Predictor",
    "SegmentationMap",
    "SegmentationPredictor",
    "Video",
    "ensemble",
    "find_device",
    "load_predictor",
    "open_video",
    "to_array",
]

EXPORT_FORMATS = ("coco", "voc", "yolo", "labelme", "cvat", "csv", "geojson")
"""The formats that detections are written in, the first by default."""
MAP_FORMATS = ("csv",)  # what may be written of label maps, beside the maps themselves
MASK_VALUES = ("labels", "source")  # what the pixels of written masks are, the first by default


def __getattr__(name: str) -> Any:
    module: Any
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("Detections", "SegmentationMap"):
        from detseg.predict import results as module
    elif name == "ensemble":
        from detseg.predict.combine import ensemble as module
    elif name in ("find_device", "load_predictor"):
        from detseg.predict import load as module
    elif name in ("Frame", "Video", "open_video"):
        from detseg.predict.video import frames as module
    elif name in ("Predictor", "SegmentationPredictor"):
        from detseg.predict import predictor as module
    else:
        from detseg.predict import interface as module
    return getattr(module, name)
