"""detseg: object detection and segmentation in PyTorch.

The public names load on first use, so that ``import detseg`` is quick and pulls in neither torch nor lightning,
albumentations or pycocotools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detseg.errors import CheckpointError, ConfigError, DataError, DetsegError
    from detseg.predict import Detections, Predictor, SegmentationMap, SegmentationPredictor, load_predictor
    from detseg.structures import ClassTable

__version__ = "0.1.0"

_ERRORS = ("CheckpointError", "ConfigError", "DataError", "DetsegError")
_PREDICTION = ("Detections", "Predictor", "SegmentationMap", "SegmentationPredictor", "load_predictor")

__all__ = [
    "CheckpointError",
    "ClassTable",
    "ConfigError",
    "DataError",
    "Detections",
    "DetsegError",
    "Predictor",
    "SegmentationMap",
    "SegmentationPredictor",
    "load_predictor",
]


def __getattr__(name: str) -> Any:
    if name in _ERRORS:
        from detseg import errors

        return getattr(errors, name)
    if name in _PREDICTION:
        from detseg import predict

        return getattr(predict, name)
    if name == "ClassTable":
        from detseg.structures import ClassTable

        return ClassTable
    raise AttributeError(f"module 'detseg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
