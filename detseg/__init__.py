"""detseg: object detection and segmentation in PyTorch.

The public names load on first use, so that ``import detseg`` is quick and pulls in neither torch nor lightning,
albumentations or pycocotools. docs/python_api.md shows how they go together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detseg.data.formats.coco import read_coco, read_coco_masks
    from detseg.data.formats.cvat import read_cvat
    from detseg.data.formats.labelme import read_labelme
    from detseg.data.formats.mask_folder import read_mask_folder
    from detseg.data.formats.voc import read_voc, read_voc_masks
    from detseg.data.formats.yolo import read_yolo
    from detseg.errors import CheckpointError, ConfigError, DataError, DetsegError, MissingExtraError, RunStoppedError
    from detseg.evaluation import evaluate, evaluate_results
    from detseg.factory import build_named_model as build_model
    from detseg.predict import Detections, Predictor, SegmentationMap, SegmentationPredictor, load_predictor
    from detseg.structures import BoxTargets, ClassTable, DetectorOutput, ImageAnnotations, InstanceMasks, Sample
    from detseg.training.api import TrainingRun, train
    from detseg.training.callbacks.stopping import StopRequest
    from detseg.tuning.learning_rate.curve import LrCurve
    from detseg.tuning.learning_rate.finder import find_lr

__version__ = "0.1.0"

__all__ = [
    "BoxTargets",
    "CheckpointError",
    "ClassTable",
    "ConfigError",
    "DataError",
    "Detections",
    "DetectorOutput",
    "DetsegError",
    "ImageAnnotations",
    "InstanceMasks",
    "LrCurve",
    "MissingExtraError",
    "Predictor",
    "RunStoppedError",
    "Sample",
    "SegmentationMap",
    "SegmentationPredictor",
    "StopRequest",
    "TrainingRun",
    "build_model",
    "evaluate",
    "evaluate_results",
    "find_lr",
    "load_predictor",
    "read_coco",
    "read_coco_masks",
    "read_cvat",
    "read_labelme",
    "read_mask_folder",
    "read_voc",
    "read_voc_masks",
    "read_yolo",
    "train",
]

_OF_TRAINING = ("LrCurve", "StopRequest", "TrainingRun", "evaluate", "evaluate_results", "find_lr", "train")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'detseg' has no attribute {name!r}")
    if name in _OF_TRAINING or name.startswith("read_"):
        from detseg.errors import require_training_extra

        require_training_extra(f"detseg.{name}")
    module: Any
    match name:
        case "train" | "TrainingRun":
            from detseg.training import api as module
        case "StopRequest":
            from detseg.training.callbacks import stopping as module
        case "find_lr":
            from detseg.tuning.learning_rate import finder as module
        case "LrCurve":
            from detseg.tuning.learning_rate import curve as module
        case "evaluate" | "evaluate_results":
            from detseg import evaluation as module
        case "read_voc" | "read_voc_masks":
            from detseg.data.formats import voc as module
        case "read_coco" | "read_coco_masks":
            from detseg.data.formats import coco as module
        case "read_yolo":
            from detseg.data.formats import yolo as module
        case "read_labelme":
            from detseg.data.formats import labelme as module
        case "read_cvat":
            from detseg.data.formats import cvat as module
        case "read_mask_folder":
            from detseg.data.formats import mask_folder as module
        case "build_model":
            from detseg.factory import build_named_model

            return build_named_model
        case "Detections" | "Predictor" | "SegmentationMap" | "SegmentationPredictor" | "load_predictor":
            from detseg import predict as module
        case _ if name.endswith("Error"):
            from detseg import errors as module
        case _:
            from detseg import structures as module
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
