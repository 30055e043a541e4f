"""What is suggested is valid, changes something, and fits what the run had not tried."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from detseg.config.load import config_to_dict, load_config
from detseg.config.schema.experiment import ExperimentConfig
from detseg.evaluation.advice import Facts, GapName, Step, steps_against
from detseg.factory import build_model
from detseg.structures import ClassTable

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
FACTS = (Facts(), Facts(still_rising=True, small={"ball": 12.0}), Facts(scale=0.4), Facts(unlearned=("ball",)))
GAPS: tuple[GapName, ...] = get_args(GapName)
VARIANTS: dict[str, tuple[str, ...]] = {
    "yolo_shapes": (
        "model.backbone.width=0.25",
        "model.backbone.freeze=stem",
        "data.fraction=0.5 data.val_fraction=0.1",
        "model.head.name=anchor",
        "data.image_size=[256,320] data.augmentation.mosaic=0",
        "optimizer.name=rmsprop model.head.dropout=0.2",
    ),
    "faster_rcnn_voc": ("model.weights=null", "model.variant=custom model.weights=null"),
    "unet_shapes": ("model.backbone.name=resnet18", "model.dropout=0.3", "data.image_size=[70,90]"),
}


def said(config: ExperimentConfig, gap: GapName, facts: Facts = Facts()) -> list[str]:  # noqa: B008  # it is frozen
    return [" ".join(step.overrides) for step in steps_against(gap, config, facts)]


def check(name: str | Path, *overrides: str) -> None:
    base = load_config(name, overrides)
    for facts in FACTS:
        for gap in GAPS:
            steps = steps_against(gap, base, facts)
            assert steps
            assert len(set(steps)) == len(steps)
            for step in steps:
                assert str(step).endswith(step.why)
                changed = load_config(name, (*overrides, *step.overrides))
                assert (config_to_dict(changed) != config_to_dict(base)) is bool(step.overrides), step


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_suggestion_is_a_setting_that_is_not_there_yet(path: Path) -> None:
    check(path)


@pytest.mark.parametrize(
    ("name", "overrides"), [(name, one) for name, several in VARIANTS.items() for one in several], ids=str
)
def test_of_other_settings_too(name: str, overrides: str) -> None:
    check(name, *overrides.split())


@pytest.mark.parametrize("name", ["yolo_shapes", "unet_shapes", "faster_rcnn_shapes"])
def test_suggested_models_can_be_built(name: str) -> None:
    of_the_data = ("model.loss.class_weights=null",) if name == "unet_shapes" else ()
    config = load_config(name, of_the_data)
    found = [
        load_config(name, (*of_the_data, *step.overrides)).model
        for gap in GAPS
        for step in steps_against(gap, config, FACTS[0])
        if any(override.startswith("model.backbone") for override in step.overrides)
    ]
    assert found
    for model in found:
        build_model(model, ClassTable(("a", "b", "c")), load_pretrained=False)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("unet_shapes", "model.loss.class_weights=median_frequency"),
        ("yolo_shapes", "model.class_weights=inverse_sqrt_frequency"),
    ],
)
def test_classes_that_are_not_learned_weigh_more(name: str, weights: str) -> None:
    path = weights.partition("=")[0]
    facts = Facts(unlearned=("ball",))
    assert said(load_config(name, [f"{path}=null"]), "avoidable bias", facts)[0] == weights
    assert weights not in said(load_config(name, [weights]), "avoidable bias", facts)


def test_weights_of_classes_come_before_longer_training_where_the_model_tells_them_apart() -> None:
    config = load_config("unet_shapes", ["model.loss.class_weights=null", "model.loss.dice.weight=1"])
    weights, longer = "model.loss.class_weights=median_frequency", "trainer.max_epochs="
    facts = Facts(still_rising=True, unlearned=("ball",))
    first, second, *_ = said(config, "avoidable bias", facts)
    assert (first.startswith(longer), second) == (True, weights)
    first, second, *_ = others = said(config, "avoidable bias", replace(facts, hidden=("ball",)))
    assert (first, second.startswith(longer)) == (weights, True)
    assert "model.loss.dice.weight=1.0" not in others
    off = load_config("unet_shapes", ["model.loss.class_weights=null", "model.loss.dice.weight=0"])
    assert "model.loss.dice.weight=1.0" in said(off, "avoidable bias", facts)


def test_what_was_not_tried_comes_first() -> None:
    bare = load_config("yolo_shapes", [f"data.augmentation.{key}=0" for key in ("mosaic", "affine.probability")])
    first, *others = said(bare, "variance")
    augmentation = [f"data.augmentation.{key}=0.5" for key in ("affine.probability", "color.probability", "mosaic")]
    assert first.split() == augmentation
    assert not any("augmentation" in one for one in others)
    assert said(load_config("yolo_shapes", ["data.fraction=0.5"]), "variance")[0] == "data.fraction=1.0"

    usual = load_config("yolo_shapes")
    assert said(usual, "avoidable bias", Facts(still_rising=True))[0] == "trainer.max_epochs=80"
    assert "model.backbone.name=csp_small" in said(usual, "avoidable bias")
    assert "data.image_size=256" in said(usual, "avoidable bias", Facts(small={"ball": 9.0}))
    assert not any("image_size" in one for one in said(usual, "avoidable bias"))
    frozen = load_config("faster_rcnn_shapes", ["model.backbone.freeze=backbone"])
    assert said(frozen, "avoidable bias")[0] == "model.backbone.freeze=none"
    pretrained = load_config("unet_shapes", ["model.backbone.name=resnet18", "model.backbone.pretrained=true"])
    assert not any("pretrained" in one for gap in GAPS for one in said(pretrained, gap))
    assert (
        said(load_config("yolo_shapes", ["data.val_fraction=0.1"]), "overfitting to val")[0] == "data.val_fraction=0.2"
    )


def test_a_module_of_ones_own_gets_no_settings_of_a_model() -> None:
    config = load_config("yolo_shapes")
    own = ExperimentConfig.model_validate_json('{"model": {"name": "custom"}, "data": {"name": "custom"}}')
    assert config.model.name != own.model.name
    assert not any(one.startswith("model.") for gap in GAPS for one in said(own, gap))
    assert str(Step((), "look")) == "look"
