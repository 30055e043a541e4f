"""Settings that are right each by itself and wrong together."""

from __future__ import annotations

from collections.abc import Iterator

from detseg.config.data import FolderConfig, VocConfig
from detseg.config.schema import DetectorConfig, ExperimentConfig
from detseg.config.section import Section
from detseg.config.segmentation import FcnConfig, SegmentationLossConfig, UNetConfig

COARSEST_STRIDE = 32

Contradiction = tuple[str, str]
"""The dotted path of a setting, and what is wrong with it beside the others, with the mend."""


def contradictions(config: ExperimentConfig) -> Iterator[Contradiction]:
    """Everything that does not go together; a setting that the model's kind would never look at is told, too."""
    if isinstance(config.model, DetectorConfig):
        yield from _detection(config)
    else:
        yield from _segmentation(config, config.model)


def _detection(config: ExperimentConfig) -> Iterator[Contradiction]:
    data = config.data
    if isinstance(data, FolderConfig):
        yield "data.name", "folder holds masks, model.name=yolo finds boxes; take voc or coco, or model.name=unet"
    if any(side % COARSEST_STRIDE for side in data.input_hw):
        yield "data.image_size", f"model.name=yolo needs multiples of {COARSEST_STRIDE}, got {list(data.input_hw)}"
    if data.augmentation.elastic.probability:
        yield "data.augmentation.elastic", "boxes cannot follow an elastic deformation; set its probability to 0"
    if isinstance(data, VocConfig):
        for key in _changed(data, "mask_values", "ignore_index"):
            yield f"data.{key}", "belongs to masks, model.name=yolo reads none; leave it out"
    for key in _changed(config.evaluation, "boundary_width"):
        yield f"evaluation.{key}", "belongs to masks, model.name=yolo finds boxes; leave it out"


def _segmentation(config: ExperimentConfig, model: FcnConfig | UNetConfig) -> Iterator[Contradiction]:
    data, name = config.data, model.name
    for key in _changed(data.augmentation, "mixup", "min_visibility", "min_box_size"):
        yield f"data.augmentation.{key}", f"is for boxes, model.name={name} has none; leave it out"
    for key in _changed(config.evaluation, "max_detections", "operating_iou"):
        yield f"evaluation.{key}", f"is for boxes, model.name={name} has none; leave it out"
    yield from _terms_that_are_off(model.loss)
    if isinstance(data, FolderConfig):
        if data.mask_colors is not None:
            for key in _changed(data, "mask_values", "ignore_index"):
                yield f"data.{key}", "data.mask_colors says that masks are colours, not values; leave one of them out"
        elif data.ignore_colors:
            yield "data.ignore_colors", "give data.mask_colors, too, the colour of each class"


def _terms_that_are_off(loss: SegmentationLossConfig) -> Iterator[Contradiction]:
    """Settings of loss terms whose weight is 0."""
    terms = {
        "cross_entropy": _changed(loss.cross_entropy, "label_smoothing") if not loss.cross_entropy.weight else [],
        "focal": _changed(loss.focal, "gamma") if not loss.focal.weight else [],
        "tversky": _changed(loss.tversky, "alpha", "beta") if not loss.tversky.weight else [],
    }
    for term, keys in terms.items():
        for key in keys:
            yield f"model.loss.{term}.{key}", f"{term} is off, its weight is 0; set {term}.weight, or leave {key} out"


def _changed(section: Section, *keys: str) -> list[str]:
    """Those of some settings that are not at their default."""
    fields = type(section).model_fields
    return [key for key in keys if getattr(section, key) != fields[key].default]
