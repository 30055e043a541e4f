"""Trained models in applications: image in, result in the original's pixels out.

Nothing here imports lightning, albumentations or pycocotools.
"""

from __future__ import annotations

from detseg.predict.detection import Predictor
from detseg.predict.images import ImageLike, to_array
from detseg.predict.load import find_device, load_predictor
from detseg.predict.predictor import ImagePredictor
from detseg.predict.segmentation import SegmentationPredictor

__all__ = [
    "ImageLike",
    "ImagePredictor",
    "Predictor",
    "SegmentationPredictor",
    "find_device",
    "load_predictor",
    "to_array",
]
