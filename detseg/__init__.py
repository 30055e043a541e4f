"""detseg: object detection and segmentation in PyTorch.

The public names load on first use, so that ``import detseg`` is quick and pulls in neither torch nor lightning,
albumentations or pycocotools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detseg.errors import CheckpointError, ConfigError, DataError, DetsegError
    from detseg.predict import Predictor, SegmentationPredictor, load_predictor
    from detseg.structures import ClassTable, Detections, SegmentationMap

__version__ = "0.1.0"

_ERRORS = ("CheckpointError", "ConfigError", "DataError", "DetsegError")
_PREDICTION = ("Predictor", "SegmentationPredictor", "load_predictor")
_STRUCTURES = ("ClassTable", "Detections", "SegmentationMap")

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
    if name in _STRUCTURES:
        from detseg import structures

        return getattr(structures, name)
    raise AttributeError(f"module 'detseg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
