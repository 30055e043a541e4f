"""Weights of an earlier training as a start: what is taken, row by row, and what is said of the rest."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

import detseg
from detseg.checkpoint import ModelCheckpoint, write_weights
from detseg.config.load import config_from_dict, config_to_dict
from detseg.config.schema.model import YoloConfig
from detseg.errors import CheckpointError, ConfigError
from detseg.factory import BuiltFrom, build_model
from detseg.factory.transfer import read_tensors
from detseg.structures import ClassTable
from tests.shared_data import shared_data

BACKBONE = {"backbone.name": "csp_nano"}
ANCHORS = [[8.0, 8.0], [16.0, 16.0], [32.0, 32.0], [64.0, 64.0], [90.0, 90.0], [99.0, 99.0]]
ANCHOR_HEAD = {"head.name": "anchor", "head.anchors": ANCHORS, "head.anchors_per_level": 2}


def trained(path: Path, name: str, classes: list[str], settings: dict[str, Any]) -> nn.Module:
    """A model whose tensors are all different, and its weights as a file."""
    model: Any = detseg.build_model(name, classes, settings={**BACKBONE, **settings})
    torch.manual_seed(3)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape))
    built: BuiltFrom = model.built_from
    config = config_from_dict({"model": built.config.model_dump(mode="json"), "data": {"name": "custom"}}, "test", {})
    write_weights(path, ModelCheckpoint(config_to_dict(config), ClassTable(tuple(classes)), model.state_dict(), 1))
    return model


@pytest.mark.parametrize(
    ("name", "settings", "layer", "rows"),
    [
        # From the classes a, b, c to c, new, a: labels 0 and 2 of the new model are 2 and 0 of the old one.
        ("yolo", {}, "head.class_branches.1.2", {0: 2, 2: 0}),
        ("yolo", {"head.name": "grid"}, "head.branches.0.2", {**{k: k for k in range(10)}, 10: 12, 12: 10}),
        ("yolo", ANCHOR_HEAD, "head.branches.2.2", {**{k: k for k in range(10)}, 10: 12, 12: 10, 13: 15, 15: 13}),
        ("faster_rcnn", {}, "roi_heads.box_predictor.cls_score", {0: 0, 1: 3, 3: 1}),
        (
            "mask_rcnn",
            {},
            "roi_heads.box_predictor.bbox_pred",
            {0: 0, 5: 13, 15: 7},
        ),
        ("mask_rcnn", {}, "roi_heads.mask_predictor.mask_fcn_logits", {0: 0, 1: 3, 3: 1}),
        ("fcn", {}, "head.skip_scores.1", {0: 2, 2: 0}),
        ("unet", {}, "head.score", {0: 2, 2: 0}),
    ],
)
def test_rows_of_classes_go_by_name(
    name: str, settings: dict[str, Any], layer: str, rows: dict[int, int], tmp_path: Path
) -> None:
    source = trained(tmp_path / "a.safetensors", name, ["a", "b", "c"], settings).state_dict()
    model: Any = detseg.build_model(
        name, ["c", "new", "a"], weights=tmp_path / "a.safetensors", settings={**BACKBONE, **settings}
    )
    found = model.state_dict()
    for kind in ("weight", "bias"):
        own, other = found[f"{layer}.{kind}"], source[f"{layer}.{kind}"]
        taken = {row: place for row in range(len(own)) for place in range(len(other)) if own[row].equal(other[place])}
        assert rows.items() <= taken.items()
        assert len(own) - len(taken) in (1, 2, 4)  # of the new class: by anchor, or four numbers of its box
    backbone = [key for key in source if key.startswith("backbone.")]
    assert backbone
    assert all(found[key].equal(source[key]) for key in backbone)


def test_every_tensor_is_taken_or_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "detseg")
    file = tmp_path / "a.safetensors"
    trained(file, "yolo", ["a", "b"], {})
    model: Any = detseg.build_model("yolo", ["b", "x"], weights=file, settings={**BACKBONE, "neck.name": "fpn"})
    lines = [line.removeprefix(f"weights: {file}: ") for line in caplog.messages]
    assert len(model.state_dict()) == 284  # two of them, mean and deviation of pixels, are settings
    assert lines == [
        "242 of 282 tensors taken, of which 6 row by row, by the names of the classes",
        "at random, not in the file: neck (36)",
        "at random, of another shape in the file: head.box_branches.1.0.0, head.box_branches.2.0.0, "
        "head.class_branches.1.0.0, head.class_branches.2.0.0",
        "at random, rows of classes that the file does not know (x): head.class_branches.0.2 (2), "
        "head.class_branches.1.2 (2), head.class_branches.2.2 (2)",
        "of the file not used: neck (108), head.box_branches.1.0.0, head.box_branches.2.0.0, "
        "head.class_branches.1.0.0, head.class_branches.2.0.0",
    ]


def test_another_backbone_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    trained(file, "yolo", ["a"], {})
    with pytest.raises(CheckpointError, match=r"its backbone is another \(0 % of the backbone's weights fit\)"):
        detseg.build_model("yolo", ["a"], backbone="resnet18", weights=file)
    with pytest.raises(ConfigError, match="has a backbone, too"):
        detseg.build_model("yolo", ["a"], weights=file, settings={"backbone.weights": str(file)})


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.body.", "_orig_mod.model.encoder."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_files_of_backbones(prefix: str, suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """torchvision's ResNet-18, with its classifier, in timm's: the names are the same."""
    caplog.set_level(logging.INFO, "detseg")
    state = {prefix + name: value for name, value in torchvision.models.resnet18().state_dict().items()}
    file = tmp_path / f"resnet{suffix}"
    if suffix == ".pth":
        torch.save({"epoch": 3, "state_dict": state}, file)
    else:
        save_file(state, file)
    model: Any = detseg.build_model("yolo", ["a"], backbone="resnet18", settings={"backbone.weights": str(file)})
    found = model.backbone.body.state_dict()
    assert all(value.equal(state[prefix + name]) for name, value in found.items())
    assert f"of the file not used: {prefix}fc (2)" in caplog.messages[-1]


def test_stages_of_timm_have_two_names(tmp_path: Path) -> None:
    """``stages.0`` in a classifier, ``stages_0`` among features."""
    classifier = timm.create_model("convnext_atto", pretrained=False)
    save_file(classifier.state_dict(), tmp_path / "a.safetensors")
    settings = {"backbone.weights": str(tmp_path / "a.safetensors"), "strides": [4, 8, 16, 32]}
    model: Any = detseg.build_model("faster_rcnn", ["a"], backbone="convnext_atto", settings=settings)
    kernel = model.backbone.body.state_dict()["stages_3.blocks.1.conv_dw.weight"]
    assert kernel.equal(classifier.state_dict()["stages.3.blocks.1.conv_dw.weight"])


def test_a_real_classifier_gives_the_same_features() -> None:
    file = shared_data("weights", "tf_efficientnet_lite0.safetensors")
    settings = {"backbone.weights": str(file)}
    model: Any = detseg.build_model("yolo", ["a"], backbone="tf_efficientnet_lite0", settings=settings)
    whole: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    whole.load_state_dict(read_tensors(file))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model.backbone.eval()(image)[-1]
        expected = whole.eval().forward_intermediates(image, intermediates_only=True)[-1]
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no weights", "damaged, or no file of tensors alone"),
        ({"state_dict": {}}, "expected tensors by name, found none"),
        ({"conv1.weight": torch.zeros(2, 2)}, "is it of another network\\? 0 of 120 tensors of resnet18"),
        (nn.Linear(2, 2), "nothing else in it is read, since that could run a program"),
    ],
)
def test_files_that_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(CheckpointError, match=message):
        detseg.build_model("yolo", ["a"], backbone="resnet18", settings={"backbone.weights": str(file)})


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ("coco", ConfigError, "model.weights: coco are published weights of the variants of faster_rcnn and mask_rcnn"),
        ("nope.ckpt", CheckpointError, "model.weights: nope.ckpt: no such checkpoint file"),
    ],
)
def test_weights_that_are_not_there(weights: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        build_model(YoloConfig(weights=Path(weights)), ClassTable(("a", "b")))
