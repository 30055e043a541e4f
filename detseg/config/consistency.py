"""Settings that are right each by itself and wrong together."""

from __future__ import annotations

from collections.abc import Iterator

from detseg.config.data import AugmentationConfig, FolderConfig, VocConfig
from detseg.config.model import YoloConfig
from detseg.config.schema import ExperimentConfig

COARSEST_STRIDE = 32


def contradictions(config: ExperimentConfig) -> Iterator[str]:
    """One line for each contradiction: the settings, and how to mend them."""
    if isinstance(config.model, YoloConfig):
        yield from _detection(config)
    else:
        yield from _segmentation(config)


def _detection(config: ExperimentConfig) -> Iterator[str]:
    data = config.data
    if isinstance(data, FolderConfig):
        yield "data.name: folder holds masks, model.name=yolo finds boxes; take voc or coco, or model.name=unet"
    if any(side % COARSEST_STRIDE for side in data.input_hw):
        yield f"data.image_size: model.name=yolo needs multiples of {COARSEST_STRIDE}, got {list(data.input_hw)}"
    if data.augmentation.elastic.probability:
        yield "data.augmentation.elastic: boxes cannot follow an elastic deformation; set its probability to 0"
    if isinstance(data, VocConfig):
        defaults = VocConfig.model_fields
        for key in ("mask_values", "ignore_index"):
            if getattr(data, key) != defaults[key].default:
                yield f"data.{key}: belongs to masks, model.name=yolo reads none; leave it out"


def _segmentation(config: ExperimentConfig) -> Iterator[str]:
    data, model = config.data, config.model
    boxes_only = {"mixup": 0.0, "min_visibility": None, "min_box_size": None}
    for key, off in boxes_only.items():
        default = AugmentationConfig.model_fields[key].default
        if getattr(data.augmentation, key) not in (off, default):
            yield f"data.augmentation.{key}: is for boxes, model.name={model.name} has none; leave it out"
    if isinstance(data, FolderConfig) and data.mask_colors is not None and data.mask_values is not None:
        yield "data.mask_values: masks are either values or colours; leave out mask_values or mask_colors"
    if isinstance(data, FolderConfig) and data.ignore_colors and data.mask_colors is None:
        yield "data.ignore_colors: give data.mask_colors, too, the colour of each class"
