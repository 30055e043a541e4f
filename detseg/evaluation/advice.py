"""What to try where a score is lower than it should be, by the gap and by what the run had not tried yet.

Which gap asks for what: Ng, "Machine Learning Yearning" (2018), chapters 25 to 27 (bias, variance) and 42 (mismatch).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.model import (
    BackboneConfig,
    CustomModelConfig,
    SegmenterConfig,
    TaskAlignedHeadConfig,
    TwoStageConfig,
    YoloConfig,
)
from detseg.config.schema.section import MAX_SIDE
from detseg.messages import listed

GapName = Literal["avoidable bias", "variance", "data mismatch", "overfitting to val"]

_OURS = ("csp_nano", "csp_small", "csp_medium", "csp_large", "unet")  # no weights are published for these
_NEXT_LARGER = {
    "csp_nano": "csp_small",
    "csp_small": "csp_medium",
    "csp_medium": "csp_large",
    "resnet18": "resnet34",
    "resnet34": "resnet50",
    "resnet50": "resnet101",
}
_MOST_WIDTH = 8.0
_WEAK_DROPOUT, _STRONG_DROPOUT = 0.1, 0.5


@dataclass(frozen=True)
class Step:
    """Something to try next.

    Attributes:
        overrides: what to add to the command that trained, such as ``data.augmentation.mosaic=0.5``; empty: it is not a
            matter of settings.
        why: what it is for, in words.
    """

    overrides: tuple[str, ...]
    why: str

    @property
    def to_do(self) -> str:
        """As an order."""
        return f"try {self}" if self.overrides else self.why

    def __str__(self) -> str:
        return ": ".join(part for part in (" ".join(self.overrides), self.why) if part)


@dataclass(frozen=True)
class Facts:
    """What a run's settings do not say.

    Attributes:
        still_rising: whether the last validation was clearly better than the one before.
        unlearned: classes of which hardly anything is found in the training images.
        unlearned_on_val: the same in the validation images.
        hidden: classes that are hardly ever the most probable one, though their own probability tells them apart.
        small: class → the side of its median object in the network input, pixels, where that is short.
        scale: by how much images are reduced to the network input, where label maps are found; 1: not.
    """

    still_rising: bool = False
    small: Mapping[str, float] = field(default_factory=dict)
    scale: float = 1.0
    unlearned: tuple[str, ...] = ()
    unlearned_on_val: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()


def steps_against(gap: GapName, config: ExperimentConfig, facts: Facts) -> tuple[Step, ...]:
    """What to try against a gap, most promising first.

    Args:
        gap: which.
        config: of the run.
        facts: what else is known of it.
    """
    match gap:
        case "avoidable bias":
            return tuple(_against_bias(config, facts))
        case "variance":
            return tuple(_against_variance(config))
        case "data mismatch":
            return tuple(_against_mismatch(config))
        case "overfitting to val":
            return tuple(_against_overfitting(config))


def _against_bias(config: ExperimentConfig, facts: Facts) -> Iterator[Step]:
    epochs, augmentation = config.trainer.max_epochs, config.data.augmentation
    if facts.hidden:
        yield from _class_weights(config)
    if facts.still_rising:
        why = f"the metric still rose at the last of the {epochs} epochs; train longer"
        yield _set("trainer.max_epochs", 2 * epochs, why)
    if facts.unlearned and not facts.hidden:
        yield from _class_weights(config)
    if (backbone := _backbone(config)) is not None and backbone.freeze != "none" and backbone.unfreeze_epoch is None:
        yield _set("model.backbone.freeze", "none", "a part of the backbone never learned; train all of it")
    yield from _resolution(config, facts)
    yield from _weights(config)
    yield from _larger(config)
    for name in ("mosaic", "mixup", "copy_paste"):
        if getattr(augmentation, name):
            yield _set(f"data.augmentation.{name}", 0, "less augmentation, if the training images are too hard to fit")
    if dropout := _dropout(config):
        path, value, _ = dropout
        if value:
            yield _set(path, 0.0, "no dropout: it works against fitting the training images")
    if not facts.still_rising:
        yield _set("trainer.max_epochs", 2 * epochs, "train longer, with a slower fall of the learning rate")
    yield Step((), "look at the worst training images: are their annotations complete, and all drawn by one rule?")


def _against_variance(config: ExperimentConfig) -> Iterator[Step]:
    data, is_semantic = config.data, isinstance(config.model, SegmenterConfig)
    if data.fraction < 1:
        yield _set("data.fraction", 1.0, f"only {data.fraction:.0%} of the training images were used; use all")
    augmentation = data.augmentation
    off = {
        "data.augmentation.affine.probability": augmentation.affine.probability,
        "data.augmentation.color.probability": augmentation.color.probability,
        "data.augmentation.mosaic": 1.0 if is_semantic else augmentation.mosaic,
        "data.augmentation.elastic.probability": augmentation.elastic.probability if is_semantic else 1.0,
    }
    if not any((augmentation.affine.probability, augmentation.color.probability, augmentation.mosaic)):
        missing = tuple(f"{path}=0.5" for path, value in off.items() if not value)
        yield Step(missing, "the training images were hardly augmented; this is the cheapest way to more of them")
        off = {}
    yield from _weights(config)
    yield Step((), "more training images like those of val; a learning curve says what twice as many would bring")
    for path, value in off.items():
        if not value:
            yield _set(path, 0.5, "one more kind of augmentation")
    if dropout := _dropout(config):
        path, value, usual = dropout
        if not value:
            yield _set(path, usual, "dropout, against learning the training images by heart")
    decay = config.optimizer.weight_decay
    yield _set("optimizer.weight_decay", 2 * decay or 0.0005, "stronger weight decay")


def _against_mismatch(config: ExperimentConfig) -> Iterator[Step]:
    yield Step((), "look at the worst images of val: how do they differ from those of the training (light, camera)?")
    yield Step((), "training images of val's kind: a few of these are worth more than many of the present kind")
    augmentation = config.data.augmentation
    for path, value, why in (
        ("color.probability", augmentation.color.probability, "if light or colours differ"),
        ("affine.probability", augmentation.affine.probability, "if sizes and places of the objects differ"),
        ("blur", augmentation.blur, "if val is less sharp"),
        ("noise", augmentation.noise, "if val is noisier"),
        ("jpeg.probability", augmentation.jpeg.probability, "if val is more compressed"),
    ):
        if not value:
            yield _set(f"data.augmentation.{path}", 0.5 if "." in path else 0.2, why)


def _against_overfitting(config: ExperimentConfig) -> Iterator[Step]:
    fraction = config.data.val_fraction
    if fraction is not None and fraction < 0.3:
        yield _set("data.val_fraction", min(0.3, 2 * fraction), "more validation images, so that chance chooses less")
    else:
        yield Step((), "more validation images, so that chance chooses less")
    yield Step((), "fewer choices by val: settings that were found by many trials on it are too well adapted to it")
    yield Step((), "look at the worst images of test: if they are of another kind, val should have such images, too")


def _resolution(config: ExperimentConfig, facts: Facts) -> Iterator[Step]:
    height, width = (min(MAX_SIDE, -(-int(1.5 * side) // 32) * 32) for side in config.data.input_hw)
    size = str(height) if isinstance(config.data.image_size, int) else f"[{height},{width}]"
    if facts.small:
        sides = listed([f"{name} {side:.0f}" for name, side in facts.small.items()])
        yield _set("data.image_size", size, f"objects are small in the network input (median side in pixels: {sides})")
    elif facts.scale < 0.75:
        yield _set("data.image_size", size, f"images are reduced to {facts.scale:.0%} of their side; see more of them")


def _weights(config: ExperimentConfig) -> Iterator[Step]:
    """Weights to begin with, where the run began with random ones."""
    model, backbone = config.model, _backbone(config)
    if backbone is None or isinstance(model, CustomModelConfig):
        return
    if model.weights is not None or backbone.weights is not None or backbone.pretrained:
        return
    why = "the run began with random weights; begin with published ones (downloaded on first use)"
    if getattr(model, "variant", "custom") != "custom":
        yield _set("model.weights", "coco", why)
    elif backbone.name not in _OURS:
        yield _set("model.backbone.pretrained", "true", why)
    elif (backbone.width, backbone.depth, backbone.levels) == (None, None, None):
        yield Step(("model.backbone.name=resnet18", "model.backbone.pretrained=true"), why)


def _class_weights(config: ExperimentConfig) -> Iterator[Step]:
    """Weights of the classes, where there are none."""
    model, why = config.model, "classes are not learned; rare ones weigh more then"
    if isinstance(model, SegmenterConfig):
        if model.loss.class_weights is None and (model.loss.cross_entropy.weight or model.loss.focal.weight):
            yield _set("model.loss.class_weights", "median_frequency", why)
        if not model.loss.dice.weight:
            yield _set("model.loss.dice.weight", 1.0, "a loss by overlap, which weighs rare classes as frequent ones")
    elif not isinstance(model, CustomModelConfig) and model.class_weights is None:
        yield _set("model.class_weights", "inverse_sqrt_frequency", why)


def _larger(config: ExperimentConfig) -> Iterator[Step]:
    model, backbone, why = config.model, _backbone(config), "a larger network"
    if backbone is None or isinstance(model, CustomModelConfig) or model.weights is not None:
        return
    if getattr(model, "variant", "custom") != "custom":
        return
    if backbone.width is not None:
        yield _set("model.backbone.width", min(_MOST_WIDTH, 2 * backbone.width), why)
    elif backbone.name in _NEXT_LARGER and backbone.weights is None:
        yield _set("model.backbone.name", _NEXT_LARGER[backbone.name], why)


def _dropout(config: ExperimentConfig) -> tuple[str, float, float] | None:
    """Path of the model's dropout, its value, and one to try."""
    match model := config.model:
        case YoloConfig():
            usual = _WEAK_DROPOUT if isinstance(model.head, TaskAlignedHeadConfig) else _STRONG_DROPOUT
            return "model.head.dropout", model.head.dropout, usual
        case CustomModelConfig():
            return None
        case _ if isinstance(model, TwoStageConfig):
            return "model.roi_heads.dropout", model.roi_heads.dropout, _STRONG_DROPOUT
        case _:
            assert isinstance(model, SegmenterConfig)
            return "model.dropout", model.dropout, _STRONG_DROPOUT


def _backbone(config: ExperimentConfig) -> BackboneConfig | None:
    return None if isinstance(config.model, CustomModelConfig) else config.model.backbone


def _set(path: str, value: object, why: str) -> Step:
    return Step((f"{path}={value}",), why)
