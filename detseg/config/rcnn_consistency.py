"""Settings of two-stage detectors that are right each by itself and wrong together."""

from __future__ import annotations

from collections.abc import Iterator

from detseg.config.rcnn import FasterRcnnConfig, MaskRcnnConfig, ProposalConfig, RegionConfig
from detseg.config.section import changed
from detseg.config.training import EvaluationConfig

Contradiction = tuple[str, str]
"""The dotted path of a setting, and what is wrong with it beside the others, with the mend."""

_DECIDED: dict[str, tuple[str, ...]] = {
    "backbone": ("name", "depth", "width", "levels", "pretrained"),
    "neck": ("name", "channels", "depth"),
    "proposals": ("anchor_sizes", "aspect_ratios", "convolutions"),
    "regions": ("pool_size", "sampling_ratio", "hidden"),
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
    for stage in ("proposals", "regions"):
        section: ProposalConfig | RegionConfig = getattr(model, stage)
        if int(section.samples * section.positive_share) < 1:
            yield (
                f"model.{stage}.samples",
                f"{section.samples} samples of which a share of {section.positive_share:g} may be positive leave no "
                f"positive at all, and boxes would never be learnt; raise samples or positive_share",
            )
        loss = section.box_loss
        if loss.name != "smooth_l1" and changed(loss, "beta"):
            yield (
                f"model.{stage}.box_loss.beta",
                f"belongs to smooth_l1; leave it out, or take that instead of {loss.name}",
            )

    if model.proposals.positive_iou < model.proposals.negative_iou:
        yield "model.proposals.positive_iou", "is below negative_iou; an anchor would be both, raise it or lower that"


def _set(model: FasterRcnnConfig | MaskRcnnConfig, name: str, keys: tuple[str, ...]) -> list[str]:
    """Those of some settings of a section that are not as the model has them by default."""
    if name not in type(model).model_fields:
        return []
    section, default = getattr(model, name), type(model).model_fields[name].default
    return [key for key in keys if getattr(section, key) != getattr(default, key)]
