"""Settings that are valid each by itself and wrong together, and settings that would have no effect."""

from __future__ import annotations

from collections.abc import Iterator

from detseg.config.schema import model as schema
from detseg.config.schema.data import MaskFolderConfig, VocConfig
from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.section import MAX_SIDE, Section

Contradiction = tuple[str, str]  # the dotted path of a setting; what is wrong with it and how to fix it

_BY_VARIANT: dict[str, tuple[str, ...]] = {
    "backbone": ("name", "depth", "width", "levels", "pretrained"),
    "neck": ("name", "channels", "depth"),
    "rpn": ("anchor_sizes", "aspect_ratios", "convolutions"),
    "roi_heads": ("pool_size", "sampling_ratio", "hidden"),
    "mask": ("pool_size", "convolutions", "channels"),
}
"""What a published variant decides, by section of the model."""


def contradictions(config: ExperimentConfig) -> Iterator[Contradiction]:
    """Everything that does not go together."""
    if isinstance(config.model, schema.DetectorConfig):
        yield from _detection(config, config.model)
    elif isinstance(config.model, schema.SegmenterConfig):
        yield from _segmentation(config, config.model)
    if isinstance(config.model, schema.TwoStageConfig):
        yield from _variant(config.model)
        yield from _two_stage(config, config.model)
    if not isinstance(config.model, schema.CustomModelConfig):
        yield from _freezing(config, config.model.backbone)
    if (scale := config.data.augmentation.multi_scale) and (side := max(config.data.input_hw)) * scale[1] > MAX_SIDE:
        yield "data.augmentation.multi_scale", f"makes {side} more than {MAX_SIDE} pixels; lower it"
    if config.trainer.early_stopping_min_delta and config.trainer.early_stopping_patience is None:
        yield (
            "trainer.early_stopping_min_delta",
            "nothing stops early; set early_stopping_patience as well",
        )
    if config.data.batch_size == "auto" and isinstance(config.model, schema.CustomModelConfig):
        yield "data.batch_size", "auto needs a model that settings describe; give a number"
    if config.data.batch_size == "auto" and config.trainer.overfit_batches:
        yield "data.batch_size", "trainer.overfit_batches counts batches of a known size; give a number"


def _unused(
    path: str, section: Section, keys: tuple[str, ...], why: str, default: Section | None = None
) -> Iterator[Contradiction]:
    """Settings that have no effect and are not at their default: that of ``default``, or of their class."""
    for key in keys:
        usual = getattr(default, key) if default else type(section).model_fields[key].default
        if getattr(section, key) != usual:
            yield f"{path}.{key}", why


def _detection(config: ExperimentConfig, model: schema.DetectorConfig) -> Iterator[Contradiction]:
    data, name = config.data, model.name
    masks = isinstance(model, schema.MaskRcnnConfig)
    if isinstance(data, MaskFolderConfig):
        yield "data.name", f"mask_folder holds masks, model.name={name} finds boxes; take voc or coco, or another model"
    if any(side % 32 for side in data.input_hw):  # the coarsest stride
        yield "data.image_size", f"model.name={name} needs multiples of 32, got {list(data.input_hw)}"
    if data.augmentation.elastic.probability and not masks:
        yield "data.augmentation.elastic", "boxes cannot follow an elastic deformation; set its probability to 0"
    if data.augmentation.copy_paste and not masks:
        yield "data.augmentation.copy_paste", f"needs masks of objects, model.name={name} reads none; set it to 0"
    if isinstance(data, VocConfig):
        if masks:
            yield "data.name", f"model.name={name} needs the mask of each object, which voc has not; take coco"
        why = f"belongs to masks, model.name={name} reads none; leave it out"
        keys = ("mask_values", "ignore_index", "mask_threshold", "mask_colors", "ignore_colors")
        yield from _unused("data", data, keys, why)
    why = f"belongs to semantic masks, model.name={name} finds objects; leave it out"
    yield from _unused("evaluation", config.evaluation, ("boundary_width",), why)


def _segmentation(config: ExperimentConfig, model: schema.SegmenterConfig) -> Iterator[Contradiction]:
    data, why = config.data, f"is for boxes, model.name={model.name} has none; leave it out"
    yield from _unused("data.augmentation", data.augmentation, ("mixup", "min_visibility", "min_box_size"), why)
    if data.augmentation.copy_paste:
        yield "data.augmentation.copy_paste", f"needs masks of objects, model.name={model.name} has none; set it to 0"
    yield from _unused("evaluation", config.evaluation, ("max_detections", "f1_iou"), why)
    terms = {"cross_entropy": ("label_smoothing",), "focal": ("gamma",), "tversky": ("alpha", "beta")}
    for term, keys in terms.items():
        section = getattr(model.loss, term)
        if not section.weight:
            why = f"{term} is off, its weight is 0; set {term}.weight, or leave this out"
            yield from _unused(f"model.loss.{term}", section, keys, why)
    if isinstance(data, VocConfig | MaskFolderConfig) and data.mask_threshold is not None:
        why = "data.mask_threshold makes two classes of all values; leave one of them out"
        yield from _unused("data", data, ("mask_values", "ignore_index", "mask_colors"), why)
    if isinstance(data, VocConfig | MaskFolderConfig):
        if isinstance(data, MaskFolderConfig) and data.mask_per_class:
            why = "data.mask_per_class says that each mask shows one class; leave one of them out"
            yield from _unused("data", data, ("mask_values", "ignore_index", "mask_colors"), why)
        elif data.mask_colors is not None:
            why = "data.mask_colors says that masks are colours, not values; leave one of them out"
            yield from _unused("data", data, ("mask_values", "ignore_index"), why)
        elif data.ignore_colors:
            yield "data.ignore_colors", "give data.mask_colors, too, the colour of each class"


def _variant(model: schema.TwoStageConfig) -> Iterator[Contradiction]:
    """What a published variant decides, and what it is needed for."""
    if model.variant == "custom":
        if model.weights == "coco":
            yield "model.weights", "are those of a published variant; set model.variant, resnet50_fpn for example"
        return
    why = f"is decided by model.variant={model.variant}; leave it out, or take variant custom"
    yield from _unused("model", model, ("strides",), why)
    for name, field in type(model).model_fields.items():
        if name in _BY_VARIANT:
            yield from _unused(f"model.{name}", getattr(model, name), _BY_VARIANT[name], why, field.default)
    if isinstance(model, schema.MaskRcnnConfig) and model.variant != "resnet50_fpn":
        yield "model.variant", f"no mask_rcnn is published on {model.variant}; take resnet50_fpn or custom"


def _two_stage(config: ExperimentConfig, model: schema.TwoStageConfig) -> Iterator[Contradiction]:
    if config.evaluation.max_detections > (kept := model.max_detections):
        yield "evaluation.max_detections", f"the model keeps model.max_detections={kept}; raise that, or lower this"
    if model.neck.name != "fpn":
        yield "model.neck.name", f"one head for all levels needs the equal channels of an fpn, got {model.neck.name}"
    for stage, section in (("rpn", model.rpn), ("roi_heads", model.roi_heads)):
        num, fraction = section.batch_size_per_image, section.positive_fraction
        if int(num * fraction) < 1:
            why = f"{num} with a positive_fraction of {fraction:g} leave no positive at all; raise either"
            yield f"model.{stage}.batch_size_per_image", why
        if (loss := section.box_loss).name != "smooth_l1":
            why = f"belongs to smooth_l1; leave it out, or take that instead of {loss.name}"
            yield from _unused(f"model.{stage}.box_loss", loss, ("beta",), why)
    if model.rpn.positive_iou < model.rpn.negative_iou:
        yield "model.rpn.positive_iou", "is below negative_iou; an anchor would be both, raise it or lower that"


def _freezing(config: ExperimentConfig, backbone: schema.BackboneConfig) -> Iterator[Contradiction]:
    unfreeze = backbone.unfreeze_epoch
    if unfreeze is not None and backbone.freeze == "none":
        yield "model.backbone.unfreeze_epoch", "nothing is frozen; set model.backbone.freeze, or leave it out"
    if backbone.unfreeze_every is not None and unfreeze is None:
        yield "model.backbone.unfreeze_every", "says how it goes on; set model.backbone.unfreeze_epoch, where it begins"
    if unfreeze == 1:
        yield "model.backbone.unfreeze_epoch", "1 is the first epoch, so nothing would be frozen; take 2 or more"
    if unfreeze is not None and unfreeze > config.trainer.max_epochs and not config.trainer.fast_dev_run:
        why = f"comes after the last epoch, trainer.max_epochs={config.trainer.max_epochs}; leave it out or raise it"
        yield "model.backbone.unfreeze_epoch", why
    for key in ("backbone_lr_scale", "layer_decay"):
        if backbone.freeze == "backbone" and unfreeze is None and getattr(config.optimizer, key) != 1:
            yield f"optimizer.{key}", "the whole backbone is always frozen, so it has no rate; leave it out"
