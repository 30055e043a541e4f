"""The hint before a training, where the number of images suggests another use of pretrained weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from detseg.config.load import config_from_dict
from detseg.factory import build_named_model
from detseg.training.run import train
from detseg.training.setup.announce import transfer_hint
from detseg.training.setup.build import Own
from tests.heard import heard
from tests.tiny import CLASSES, TinyRun, tiny_config

LITE = {"name": "tf_efficientnet_lite0"}
FILE = LITE | {"weights": "lite0.safetensors"}


def hint_of(model: dict[str, Any], num_images: int, **sections: Any) -> str:
    settings = {"model": {"name": "yolo"} | model, "data": {"name": "voc", "root": "data", "image_size": 64}}
    return transfer_hint(config_from_dict(settings | sections), num_images) or ""


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ({"backbone": LITE}, ["model.backbone.pretrained=true", "model.backbone.weights=FILE", "model.weights=CKPT"]),
        ({"name": "faster_rcnn"}, ["model.backbone.pretrained=true"]),  # on resnet50
        ({"name": "faster_rcnn", "variant": "resnet50_fpn"}, ["model.weights=coco", "model.weights=CKPT"]),
    ],
)
def test_few_images_and_random_weights(model: dict[str, Any], settings: list[str]) -> None:
    hint = hint_of(model, 205)
    assert hint.startswith("205 training images and a backbone from random weights: ")
    assert [text for text in settings if text not in hint] == []
    assert hint_of(model, 499) != hint_of(model, 500) == ""
    assert hint_of(model, 205, data={"name": "shapes"}) == ""


@pytest.mark.parametrize(
    "model",
    [
        {"backbone": FILE},
        {"backbone": LITE | {"pretrained": True}},
        {"backbone": FILE | {"freeze": "stem"}},
        {"weights": "best.ckpt", "backbone": LITE},
        {"name": "faster_rcnn", "variant": "resnet50_fpn", "weights": "coco"},
        {"name": "custom"},
        {},  # csp_nano, for which no weights are published
        {"name": "unet"},
    ],
)
def test_weights_to_begin_with_or_none_to_be_had_need_no_hint(model: dict[str, Any]) -> None:
    assert hint_of(model, 1) == hint_of(model, 10_000) == ""


def test_a_backbone_frozen_for_good() -> None:
    frozen = FILE | {"freeze": "backbone"}
    hint = hint_of({"backbone": frozen}, 3000)
    assert hint.startswith("3000 training images and a backbone that stays frozen: ")
    assert "model.backbone.unfreeze_epoch" in hint
    assert hint_of({"backbone": frozen}, 20) == hint_of({"backbone": frozen | {"unfreeze_epoch": 5}}, 3000) == ""


def test_the_hint_comes_before_a_training_from_random_weights_alone(tiny_run: TinyRun, tmp_path: Path) -> None:
    def said(
        *overrides: str, own: Own | None = None, resume: str | None = None, path: Path = tiny_run.config_path
    ) -> bool:
        with heard() as lines:
            train(tiny_config(path, tmp_path / "run", *overrides), path, resume, own)
        return any(line.startswith("hint      16 training images and a backbone from random") for line in lines)

    dry = "trainer.fast_dev_run=true"
    resnet = tmp_path / "resnet.yaml"  # its own backbone has no published weights
    settings = yaml.safe_load(tiny_run.config_path.read_text(encoding="utf-8"))
    settings["model"]["backbone"] = {"name": "resnet10t"}
    resnet.write_text(yaml.safe_dump(settings), encoding="utf-8")
    module = build_named_model("yolo", CLASSES, settings={"backbone.width": 0.0625, "backbone.depth": 0.1})
    assert said(dry, path=resnet)
    assert not said(dry, "trainer.overfit_batches=1", path=resnet)
    assert not said(dry, own=Own(model=module), path=resnet)  # which may hold weights
    shutil.copytree(tiny_run.run_dir, tmp_path / "run")
    assert not said("trainer.max_epochs=17", resume="last")
