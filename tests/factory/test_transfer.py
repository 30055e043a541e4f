"""Weights of an earlier training as a start: what is taken, row by row, and what is said of the rest."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import detseg
from detseg.checkpoint import ModelCheckpoint, write_weights
from detseg.config.load import config_from_dict, config_to_dict
from detseg.config.schema.model import YoloConfig
from detseg.errors import CheckpointError, ConfigError
from detseg.factory import BuiltFrom, build_model
from detseg.structures import ClassTable

BACKBONE = {"backbone.name": "csp_nano"}
THREE = ["a", "b", "c"]
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
    counters = [name for name in model.state_dict() if name.endswith("num_batches_tracked")]
    assert len(model.state_dict()) - len(counters) == 239  # two of them, mean and deviation of pixels, are settings
    assert lines == [
        "197 of 237 tensors taken, 6 in part",
        "classes: in both, taken: b; new, at random: x; of the file alone, left: a",
        "at random, not in the file: neck (30)",
        "at random, of another shape in the file: head.box_branches.1.0.0, head.box_branches.2.0.0, "
        "head.class_branches.1.0.0, head.class_branches.2.0.0",
        "at random, rows of new classes: head.class_branches.0.2 (2), head.class_branches.1.2 (2), "
        "head.class_branches.2.2 (2)",
        "of the file not used: neck (90), head.box_branches.1.0.0, head.box_branches.2.0.0, "
        "head.class_branches.1.0.0, head.class_branches.2.0.0",
    ]


def test_another_backbone_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    trained(file, "yolo", ["a"], {})
    with pytest.raises(CheckpointError, match=r"its backbone is another \(backbone\.body\.conv1\.weight is not in the"):
        detseg.build_model("yolo", ["a"], backbone="resnet18", weights=file)
    with pytest.raises(ConfigError, match="has a backbone, too"):
        detseg.build_model("yolo", ["a"], weights=file, settings={"backbone.weights": str(file)})


@pytest.mark.parametrize(
    ("there", "here", "wrong"),
    [
        ("lite0", "lite1", "conv_pw.weight is not in the file"),
        ("lite1", "lite0", "conv_pw.weight is in the file alone"),
    ],
)
def test_a_backbone_of_another_depth_is_an_error(there: str, here: str, wrong: str, tmp_path: Path) -> None:
    """All of the shallower one fits into the deeper one by name, between layers that do not."""
    file = tmp_path / "a.safetensors"
    trained(file, "yolo", ["a"], {"backbone.name": f"efficientnet_{there}"})
    with pytest.raises(CheckpointError, match=rf"its backbone is another \(backbone\.body\.blocks\.1\.2\.{wrong}\)"):
        detseg.build_model("yolo", ["a"], backbone=f"efficientnet_{here}", weights=file)


def test_the_last_stages_of_a_backbone_may_differ(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    for there, here in (([8, 16, 32], [8, 16]), ([8, 16], [8, 16, 32])):
        source = trained(file, "yolo", ["a"], {"head.strides": there}).state_dict()
        model: Any = detseg.build_model("yolo", ["a"], weights=file, settings={**BACKBONE, "head.strides": here})
        kernel = "backbone.stages.1.0.0.weight"
        assert model.state_dict()[kernel].equal(source[kernel])


FPN = {"neck.name": "fpn", "neck.channels": 64}  # all levels have the same shapes
TASK_ALIGNED = {"head.coupled": True}
THREE_ANCHORS = {"head.name": "anchor", "head.anchors": [*ANCHORS, *ANCHORS[:3]], "head.anchors_per_level": 3}
GRID = {"head.name": "grid", "head.stride": 32, "head.boxes_per_cell": 3}


@pytest.mark.parametrize(
    ("there", "here", "layer"),
    [
        (TASK_ALIGNED, THREE_ANCHORS, "head.branches.0.2"),
        (ANCHOR_HEAD, THREE_ANCHORS, "head.branches.0.2"),
        (THREE_ANCHORS, GRID, "head.branches.0.2"),
        ({**THREE_ANCHORS, "head.coupled": False}, {**GRID, "head.coupled": False}, "head.box_branches.0.2"),
        ({}, {"head.reg_max": 8}, "head.box_branches.0.2"),
        ({**THREE_ANCHORS, "head.coupled": False}, {}, "head.class_branches.0.2"),
    ],
)
def test_outputs_of_another_head_are_not_taken(
    there: dict[str, Any], here: dict[str, Any], layer: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They mean something else: bins of a distance, offsets from other anchors, confidences."""
    caplog.set_level(logging.INFO, "detseg")
    trained(tmp_path / "a.safetensors", "yolo", THREE, {**FPN, **there})
    settings = {**BACKBONE, **FPN, **here}
    model: Any = detseg.build_model("yolo", THREE, weights=tmp_path / "a.safetensors", settings=settings)
    fresh: Any = detseg.build_model("yolo", THREE, settings=settings)
    assert model.state_dict()[f"{layer}.bias"].equal(fresh.state_dict()[f"{layer}.bias"])
    assert any("rows that the file's head does not have" in line and layer in line for line in caplog.messages)
    assert not any("in part" in line for line in caplog.messages)


def test_classes_are_taken_where_boxes_are_described_otherwise(tmp_path: Path) -> None:
    source = trained(tmp_path / "a.safetensors", "yolo", THREE, TASK_ALIGNED).state_dict()["head.branches.1.2.bias"]
    settings = {**BACKBONE, **TASK_ALIGNED, "head.reg_max": 8}
    model: Any = detseg.build_model("yolo", THREE, weights=tmp_path / "a.safetensors", settings=settings)
    bias = model.state_dict()["head.branches.1.2.bias"]
    assert bias[32:].equal(source[64:])
    assert not bias[:32].any()


@pytest.mark.parametrize(
    ("there", "here", "levels"), [([8, 16, 32], [16, 32], {0: 1, 1: 2}), ([16, 32], [8, 32], {1: 1})]
)
def test_levels_go_by_stride(there: list[int], here: list[int], levels: dict[int, int], tmp_path: Path) -> None:
    fpn = {**BACKBONE, **FPN}
    file = tmp_path / "a.safetensors"
    source = trained(file, "yolo", ["a"], {**fpn, "head.strides": there}).state_dict()
    model: Any = detseg.build_model("yolo", ["a"], weights=file, settings={**fpn, "head.strides": here})
    fresh: Any = detseg.build_model("yolo", ["a"], settings={**fpn, "head.strides": here})
    for name in ("neck.smooth.{}.1.bias", "head.box_branches.{}.2.bias", "head.class_branches.{}.0.1.bias"):
        for level in range(2):
            own = model.state_dict()[name.format(level)]
            if level in levels:
                assert own.equal(source[name.format(levels[level])])
            else:
                assert own.equal(fresh.state_dict()[name.format(level)])


@pytest.mark.parametrize(
    ("there", "here", "lines"),
    [
        (
            THREE,
            ["c", "A", "d e", "zz"],
            ["classes: in both, taken: c; new, at random: A, d e, zz; of the file alone, left: a, b"],
        ),
        (THREE, ["c", "a"], ["classes: in both, taken: c, a; of the file alone, left: b"]),
        (THREE, ["b", "a", "c"], ["classes: in both, taken: b, a, c"]),
        (THREE, THREE, []),
        (["a"], ["x"], ["classes: new, at random: x; of the file alone, left: a"]),
    ],
)
def test_all_classes_are_accounted_for(
    there: list[str], here: list[str], lines: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "detseg")
    trained(tmp_path / "a.safetensors", "yolo", there, {})
    detseg.build_model("yolo", here, weights=tmp_path / "a.safetensors", settings=BACKBONE)
    assert [line[line.index("classes: ") :] for line in caplog.messages if ": classes: " in line] == lines


def test_upsamplings_from_class_to_class_are_taken_for_the_same_classes(tmp_path: Path) -> None:
    source = trained(tmp_path / "a.safetensors", "fcn", ["a", "b"], {}).state_dict()
    name = "head.upsamplings.0.weight"
    for classes, is_taken in ((["a", "b"], True), (["b", "a"], False)):
        model: Any = detseg.build_model("fcn", classes, weights=tmp_path / "a.safetensors", settings=BACKBONE)
        assert model.state_dict()[name].equal(source[name]) == is_taken


def test_names_that_are_nearly_equal_are_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "detseg")
    trained(tmp_path / "a.safetensors", "yolo", ["a", "fire-truck", "red light", "b"], {})
    names = ["A", "fire_truck", "Red_Light", "x"]
    detseg.build_model("yolo", names, weights=tmp_path / "a.safetensors", settings=BACKBONE)
    hint = "the same class? A and a, fire_truck and fire-truck, Red_Light and red light: "
    assert any(hint in line for line in caplog.messages)


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


@pytest.mark.parametrize("kind", ["zip", "before torch 1.6", "safetensors"])
def test_a_file_of_another_program_is_shown_the_way(kind: str, tmp_path: Path) -> None:
    file = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    if kind == "safetensors":
        save_file({"conv1.weight": torch.zeros(2)}, file)
    else:
        torch.save({"conv1.weight": torch.zeros(2)}, file, _use_new_zipfile_serialization=kind == "zip")
    way = "a file of timm, torchvision or another program goes to model.backbone.weights$"
    with pytest.raises(CheckpointError, match=way):
        build_model(YoloConfig(weights=file), ClassTable(("a", "b")))
