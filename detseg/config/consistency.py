"""Settings that are right each by itself and wrong together."""

from __future__ import annotations

from collections.abc import Iterator

from detseg.config.schema.data import MaskFolderConfig, VocConfig
from detseg.config.schema.experiment import DetectorConfig, ExperimentConfig
from detseg.config.schema.rcnn import FasterRcnnConfig, MaskRcnnConfig, RoiHeadsConfig, RpnConfig
from detseg.config.schema.section import MAX_SIDE, changed
from detseg.config.schema.segmentation import FcnConfig, SegmentationLossConfig, UNetConfig
from detseg.config.schema.training import EvaluationConfig

COARSEST_STRIDE = 32


def contradictions(config: ExperimentConfig) -> Iterator[Contradiction]:
    """Everything that does not go together; a setting that the model's kind would never look at is told, too."""
    if isinstance(config.model, DetectorConfig):
        yield from _detection(config, config.model)
    else:
        yield from _segmentation(config, config.model)
    if isinstance(config.model, FasterRcnnConfig | MaskRcnnConfig):
        yield from two_stage_contradictions(config.model, config.evaluation)
    yield from _freezing(config)
    yield from _sharding(config)
    if (scale := config.data.augmentation.multi_scale) and (side := max(config.data.input_hw)) * scale[1] > MAX_SIDE:
        yield "data.augmentation.multi_scale", f"makes {side} more than {MAX_SIDE} pixels; lower it"
    if config.data.batch_size == "auto" and config.trainer.overfit_batches:
        yield "data.batch_size", "trainer.overfit_batches counts batches of a size that is known; give a number"


def _detection(config: ExperimentConfig, model: DetectorConfig) -> Iterator[Contradiction]:
    data, name = config.data, model.name
    masks = isinstance(model, MaskRcnnConfig)
    if isinstance(data, MaskFolderConfig):
        yield (
            "data.name",
            f"mask_folder holds masks, model.name={name} finds boxes; take voc or coco, or another model",
        )
    if any(side % COARSEST_STRIDE for side in data.input_hw):
        yield "data.image_size", f"model.name={name} needs multiples of {COARSEST_STRIDE}, got {list(data.input_hw)}"
    if data.augmentation.elastic.probability and not masks:
        yield "data.augmentation.elastic", "boxes cannot follow an elastic deformation; set its probability to 0"
    if isinstance(data, VocConfig):
        if masks:
            yield "data.name", f"model.name={name} needs the mask of each object, which voc has not; take coco"
        for key in changed(data, "mask_values", "ignore_index"):
            yield f"data.{key}", f"belongs to masks, model.name={name} reads none; leave it out"
    for key in changed(config.evaluation, "boundary_width"):
        yield f"evaluation.{key}", f"belongs to semantic masks, model.name={name} finds objects; leave it out"


def _freezing(config: ExperimentConfig) -> Iterator[Contradiction]:
    backbone, unfreeze = config.model.backbone, config.model.backbone.unfreeze_epoch
    if unfreeze is not None and backbone.freeze == "none":
        yield "model.backbone.unfreeze_epoch", "nothing is frozen; set model.backbone.freeze, or leave it out"
    if unfreeze == 1:
        yield "model.backbone.unfreeze_epoch", "1 is the first epoch, so nothing would be frozen; take 2 or more"
    if unfreeze is not None and unfreeze > config.trainer.max_epochs and not config.trainer.fast_dev_run:
        yield (
            "model.backbone.unfreeze_epoch",
            f"comes after the last epoch, trainer.max_epochs={config.trainer.max_epochs}; leave it out or train longer",
        )
    if backbone.freeze == "backbone" and unfreeze is None and config.optimizer.backbone_lr_scale != 1:
        yield "optimizer.backbone_lr_scale", "the whole backbone is frozen for good, so it has no rate; leave it out"


def _sharding(config: ExperimentConfig) -> Iterator[Contradiction]:
    """What does not go with FSDP, where no process has the whole of a weight outside of a step."""
    trainer = config.trainer
    if trainer.strategy.startswith("fsdp_"):
        yield "trainer.strategy", f"fsdp is the one that knows the model's parts, got {trainer.strategy}; take fsdp"
    if trainer.strategy != "fsdp":
        return
    if trainer.ema_decay:
        yield "trainer.ema_decay", "averaged weights cannot follow those that trainer.strategy=fsdp shards; set it to 0"
    if trainer.gradient_clip_norm:
        yield "trainer.gradient_clip_norm", "Lightning does not clip by norm with trainer.strategy=fsdp; set it to 0"
    if trainer.num_previews:
        yield "trainer.num_previews", "with trainer.strategy=fsdp one process alone cannot draw; set it to 0"
    if trainer.compile:
        yield "trainer.compile", "is not tried with trainer.strategy=fsdp; set it to false"
    if config.model.backbone.unfreeze_epoch is not None:
        yield "model.backbone.unfreeze_epoch", "trainer.strategy=fsdp shards what is frozen for good; leave it out"


def _segmentation(config: ExperimentConfig, model: FcnConfig | UNetConfig) -> Iterator[Contradiction]:
    data, name = config.data, model.name
    for key in changed(data.augmentation, "mixup", "min_visibility", "min_box_size"):
        yield f"data.augmentation.{key}", f"is for boxes, model.name={name} has none; leave it out"
    for key in changed(config.evaluation, "max_detections", "f1_iou"):
        yield f"evaluation.{key}", f"is for boxes, model.name={name} has none; leave it out"
    yield from _terms_that_are_off(model.loss)
    if isinstance(data, MaskFolderConfig):
        if data.mask_colors is not None:
            for key in changed(data, "mask_values", "ignore_index"):
                yield f"data.{key}", "data.mask_colors says that masks are colours, not values; leave one of them out"
        elif data.ignore_colors:
            yield "data.ignore_colors", "give data.mask_colors, too, the colour of each class"


def _terms_that_are_off(loss: SegmentationLossConfig) -> Iterator[Contradiction]:
    """Settings of loss terms whose weight is 0."""
    terms = {
        "cross_entropy": changed(loss.cross_entropy, "label_smoothing") if not loss.cross_entropy.weight else [],
        "focal": changed(loss.focal, "gamma") if not loss.focal.weight else [],
        "tversky": changed(loss.tversky, "alpha", "beta") if not loss.tversky.weight else [],
    }
    for term, keys in terms.items():
        for key in keys:
            yield f"model.loss.{term}.{key}", f"{term} is off, its weight is 0; set {term}.weight, or leave {key} out"


Contradiction = tuple[str, str]
"""The dotted path of a setting, and what is wrong with it beside the others, with the mend."""

_DECIDED: dict[str, tuple[str, ...]] = {
    "backbone": ("name", "depth", "width", "levels", "pretrained"),
    "neck": ("name", "channels", "depth"),
    "rpn": ("anchor_sizes", "aspect_ratios", "convolutions"),
    "roi_heads": ("pool_size", "sampling_ratio", "hidden"),
    "mask": ("pool_size", "convolutions", "channels"),
}
"""What a published variant decides, by section."""


def two_stage_contradictions(
    model: FasterRcnnConfig | MaskRcnnConfig, evaluation: EvaluationConfig
) -> Iterator[Contradiction]:
    """What does not go together within the model, and in what it keeps and what is counted."""
    if evaluation.max_detections > model.max_detections:
        yield (
            "evaluation.max_detections",
            f"the model keeps model.max_detections={model.max_detections} of an image; raise that, or lower this",
        )
    if model.variant == "custom":
        if model.weights is not None:
            yield "model.weights", "are those of a published variant; set model.variant, resnet50_fpn for example"
    else:
        for key in changed(model, "strides"):
            yield f"model.{key}", f"is decided by model.variant={model.variant}; leave it out, or take variant custom"
        for name, keys in _DECIDED.items():
            for key in _set(model, name, keys):
                yield (
                    f"model.{name}.{key}",
                    f"is decided by model.variant={model.variant}; leave it out, or take variant custom",
                )
    if model.neck.name != "fpn":
        yield (
            "model.neck.name",
            f"one head looks at all levels, which have the same channels in an fpn only, got {model.neck.name}",
        )
    if isinstance(model, MaskRcnnConfig) and model.variant not in ("custom", "resnet50_fpn"):
        yield "model.variant", f"no mask_rcnn is published on {model.variant}; take resnet50_fpn or custom"
    for stage in ("rpn", "roi_heads"):
        section: RpnConfig | RoiHeadsConfig = getattr(model, stage)
        if int(section.batch_size_per_image * section.positive_fraction) < 1:
            yield (
                f"model.{stage}.batch_size_per_image",
                f"{section.batch_size_per_image} samples with a positive_fraction of {section.positive_fraction:g} "
                "leave no positive at all, and boxes would never be learnt; raise either",
            )
        loss = section.box_loss
        if loss.name != "smooth_l1" and changed(loss, "beta"):
            yield (
                f"model.{stage}.box_loss.beta",
                f"belongs to smooth_l1; leave it out, or take that instead of {loss.name}",
            )

    if model.rpn.positive_iou < model.rpn.negative_iou:
        yield "model.rpn.positive_iou", "is below negative_iou; an anchor would be both, raise it or lower that"


def _set(model: FasterRcnnConfig | MaskRcnnConfig, name: str, keys: tuple[str, ...]) -> list[str]:
    """Those of some settings of a section that are not as the model has them by default."""
    if name not in type(model).model_fields:
        return []
    section, default = getattr(model, name), type(model).model_fields[name].default
    return [key for key in keys if getattr(section, key) != getattr(default, key)]
