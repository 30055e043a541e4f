"""Which parameters are decayed, by the names and kinds of the layers of a real model."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn, optim

from detseg.config.schema.experiment import AdamConfig, AdamWConfig, OptimizerConfig, RmspropConfig, SgdConfig
from detseg.config.schema.model import BackboneConfig, YoloConfig
from detseg.errors import ConfigError
from detseg.factory.yolo import build_detector
from detseg.training.optim.freezing import FrozenParts
from detseg.training.optim.optimizers import build_optimizer

NANO = YoloConfig()


def names_of(model: nn.Module, group: dict[str, Any]) -> set[str]:
    ids = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in ids}


def test_convolutions_are_decayed_and_neither_biases_nor_norms_are() -> None:
    model = build_detector(NANO, num_classes=3)
    convolutions = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    decayed, plain = build_optimizer(SgdConfig(name="sgd", weight_decay=0.5), model).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.5, 0.0)
    assert names_of(model, decayed) == convolutions
    rest = names_of(model, plain)
    assert {f"{name}.{kind}" for name in norms for kind in ("weight", "bias")} <= rest
    assert {name.rpartition(".")[0] for name in rest} - norms  # the head's last layers have biases
    assert all(name.endswith(".bias") for name in rest if name.rpartition(".")[0] not in norms)
    assert names_of(model, decayed) | rest == {name for name, _ in model.named_parameters()}


def test_frozen_layers_are_left_out() -> None:
    model = build_detector(YoloConfig(backbone=BackboneConfig()), num_classes=3)
    FrozenParts(model.backbone, BackboneConfig(freeze=2))
    groups = build_optimizer(AdamWConfig(), model).param_groups
    found = names_of(model, groups[0]) | names_of(model, groups[1])
    assert not {name for name in found if name.startswith(("backbone.stem", "backbone.stages.0"))}
    assert {name for name in found if name.startswith("backbone.stages.1")}


@pytest.mark.parametrize(
    ("config", "kind", "expected"),
    [
        (SgdConfig(name="sgd", lr=0.3, momentum=0.8), optim.SGD, {"lr": 0.3, "momentum": 0.8, "nesterov": True}),
        (SgdConfig(name="sgd", momentum=0.0), optim.SGD, {"momentum": 0.0, "nesterov": False}),
        (AdamConfig(name="adam", lr=0.2, betas=(0.5, 0.6)), optim.Adam, {"lr": 0.2, "betas": (0.5, 0.6)}),
        (AdamWConfig(lr=0.1, betas=(0.7, 0.8)), optim.AdamW, {"lr": 0.1, "betas": (0.7, 0.8)}),
        (RmspropConfig(name="rmsprop", lr=0.4, momentum=0.1), optim.RMSprop, {"lr": 0.4, "momentum": 0.1}),
    ],
)
def test_settings_arrive(config: OptimizerConfig, kind: type[optim.Optimizer], expected: dict[str, Any]) -> None:
    optimizer = build_optimizer(config, nn.Linear(2, 2))
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert {key: group[key] for key in expected} == expected


def test_a_backbone_learns_at_its_own_rate() -> None:
    model = build_detector(NANO, num_classes=3)
    plain = build_optimizer(AdamWConfig(lr=0.01), model).param_groups
    groups = build_optimizer(AdamWConfig(lr=0.01, backbone_lr_scale=0.1), model).param_groups
    assert [group["lr"] for group in plain] == [0.01, 0.01]
    assert [group["lr"] for group in groups] == pytest.approx([0.01, 0.01, 0.001, 0.001])
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0, 0.05, 0.0]
    inside = {name for name, _ in model.named_parameters() if name.startswith("backbone.")}
    assert names_of(model, groups[2]) | names_of(model, groups[3]) == inside
    outside = names_of(model, groups[0]) | names_of(model, groups[1])
    assert outside == {name for name, _ in model.named_parameters()} - inside


def test_without_a_backbone_there_is_no_rate_for_it() -> None:
    with pytest.raises(ConfigError, match=r"^optimizer\.backbone_lr_scale: a Linear has no backbone"):
        build_optimizer(AdamWConfig(backbone_lr_scale=0.1), nn.Linear(2, 2))


def test_layer_decay_gives_each_stage_a_rate_of_its_own() -> None:
    model = build_detector(NANO, num_classes=3)
    config = AdamWConfig(lr=1.0, backbone_lr_scale=0.5, layer_decay=0.1)
    rates = {}
    for group in build_optimizer(config, model).param_groups:
        for name in names_of(model, group):
            rates[name] = group["lr"]
    assert rates.keys() == dict(model.named_parameters()).keys()
    starts = {"backbone.stages.3": 0.05, "backbone.stages.2": 0.005, "backbone.stages.0": 5e-5, "backbone.stem": 5e-6}
    for start, rate in starts.items():
        assert {round(value, 12) for name, value in rates.items() if name.startswith(start)} == {rate}
    assert {value for name, value in rates.items() if not name.startswith("backbone.")} == {1.0}
