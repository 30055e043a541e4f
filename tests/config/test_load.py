"""Loading: right settings come through with their types; wrong ones, and old names, are one exact line each."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detseg.checkpoint import ENTRY, ModelCheckpoint, model_entry, read_model_checkpoint, save_atomically, write_weights
from detseg.config.load import config_from_dict, config_to_dict, config_to_yaml, load_config
from detseg.config.schema.data import CocoConfig, ShapesConfig, VocConfig
from detseg.config.schema.experiment import CosineConfig, ExperimentConfig, SgdConfig
from detseg.config.schema.model import AnchorHeadConfig, GridHeadConfig, NeckConfig, TaskAlignedHeadConfig, YoloConfig
from detseg.config.schema.section import NEW_KEYS, rename_settings
from detseg.errors import ConfigError
from detseg.structures import ClassTable

ROOT = Path(__file__).resolve().parents[2]
VOC = "data: {name: voc, root: x}\n"


def load(folder: Path, content: str, *overrides: str) -> ExperimentConfig:
    path = folder / "x.yaml"
    path.write_text(content, encoding="utf-8")
    return load_config(path, overrides)


def lines_of(folder: Path, content: str, *overrides: str) -> list[str]:
    """The lines of the error, with the file called ``x.yaml``."""
    with pytest.raises(ConfigError) as caught:
        load(folder, content, *overrides)
    return str(caught.value).replace(str(folder / "x.yaml"), "x.yaml").split("\n")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_configuration_loads_and_survives_yaml_and_dict(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert load(tmp_path, config_to_yaml(config)) == config
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def test_types_come_through(tmp_path: Path) -> None:
    data = "data: {name: voc, root: a/b, years: ['2007', '2012'], image_size: [320, 640]}\n"
    model = "model: {head: {name: anchor, anchors: [[1, 2.5], [3, 4]]}}\n"
    config = load(tmp_path, data + model + "optimizer: {name: sgd, lr: 1e-3}\ntrainer: {gradient_clip_norm: 1}\n")
    assert config.data == VocConfig(name="voc", root=Path("a/b"), years=("2007", "2012"), image_size=(320, 640))
    assert config.data.input_hw == (320, 640)
    assert config.model == YoloConfig(head=AnchorHeadConfig(name="anchor", anchors=((1.0, 2.5), (3.0, 4.0))))
    assert config.optimizer == SgdConfig(name="sgd", lr=0.001)
    assert isinstance(config.trainer.gradient_clip_norm, float)


def test_numbers_are_tags(tmp_path: Path) -> None:
    config = load(tmp_path, VOC, "tags.fold=1", "tags.frozen=true", "tags.lr=0.5", "tags.set=blood")
    assert config.tags == {"fold": "1", "frozen": "true", "lr": "0.5", "set": "blood"}


def test_a_section_with_a_default_kind_needs_no_name(tmp_path: Path) -> None:
    config = load(tmp_path, VOC + "schedule: {warmup_epochs: 1}\nmodel: {head: {reg_max: 8}}\n", "optimizer.lr=0.5")
    assert config.schedule == CosineConfig(warmup_epochs=1.0)
    assert config.model == YoloConfig(head=TaskAlignedHeadConfig(reg_max=8))
    assert (config.optimizer.name, config.optimizer.lr) == ("adamw", 0.5)


def test_overrides_win_over_the_file_and_later_ones_over_earlier_ones(tmp_path: Path) -> None:
    content = VOC + "trainer: {max_epochs: 5, num_nodes: 2}\nmodel: {head: {name: anchor, ignore_iou: 0.7}}\n"
    config = load(tmp_path, content, "trainer.max_epochs=3", "trainer.max_epochs=4", "model.neck.name=fpn", "seed=0x10")
    assert (config.trainer.max_epochs, config.trainer.num_nodes, config.seed) == (4, 2, 16)
    assert config.model == YoloConfig(neck=NeckConfig(name="fpn"), head=AnchorHeadConfig(name="anchor", ignore_iou=0.7))
    switched = load(tmp_path, VOC, "model.head.name=grid", "model.head.stride=16", "data.years=['2012']")
    assert switched.model == YoloConfig(head=GridHeadConfig(name="grid", stride=16))
    assert switched.data == VocConfig(name="voc", root=Path("x"), years=("2012",))
    assert load(tmp_path, "seed: 1", "data.name=coco", "data.root=c").data == CocoConfig(name="coco", root=Path("c"))


SIDE = "a whole number from 32 to 13376"
SIZE = f"{SIDE}, or a list of 2 (each {SIDE})"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        *[("seed", value, "a whole number of at least 0") for value in ("true", "'3'", "-1.0")],
        *[("trainer.compile", value, "true or false") for value in ("'yes'", "1")],
        ("trainer.devices", "0", "a whole number of at least 1, or 'auto'"),
        ("trainer.ema_decay", "1", "a number of at least 0 and below 1"),
        *[("optimizer.lr", value, "a number above 0") for value in (".inf", ".nan")],
        *[("data.image_size", value, SIZE) for value in ("31", "[64]", "[64, 64, 64]")],
    ],
)
def test_wrong_values(tmp_path: Path, path: str, value: str, expected: str) -> None:
    *sections, key = path.split(".")
    file = f"{key}: {value}"
    for section in sections:
        file = f"{section}: {{{file}{', name: voc, root: x' if section == 'data' else ''}}}"
    says = f"{path}: expected {expected}, got {value}"
    assert lines_of(tmp_path, file if "data" in sections else VOC + file) == [f"x.yaml: {says}"]
    assert lines_of(tmp_path, VOC, f"{path}={value}") == [f"override {path}={value}: {says}"]


LAYOUTS = "'voc', 'coco', 'yolo', 'labelme', 'cvat', 'mask_folder', 'shapes', 'auto', 'custom'"
JITTER = "data.augmentation.scale_jitter"
OF_TASK_ALIGNED = "unknown key of 'grid', it belongs to 'task_aligned'; remove it or set model.head.name"


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("model: {bakbone: {}}", "model.bakbone: unknown key (did you mean 'backbone'?)"),
        ("lr: 1", "lr: unknown key (did you mean 'optimizer.lr'?)"),
        ("model: {neck: {q: 1}}", "model.neck.q: unknown key; known here: name, channels, depth"),
        ("trainer:", "trainer: expected a section of settings, got null; leave the key out for the defaults"),
        ("model: {neck: {name: pa}}", "model.neck.name: expected one of 'pan', 'fpn', got 'pa' (did you mean 'pan'?)"),
        (
            "model: {head: {name: grid, reg_max: 4, alpha: 1}}",
            f"model.head.reg_max: {OF_TASK_ALIGNED}\nmodel.head.alpha: {OF_TASK_ALIGNED}",
        ),
        (
            "model: {head: {name: anchor, anchors: [[1, 2], [3, -1], [3]]}}",
            "model.head.anchors[1][1]: expected a number above 0, got -1\n"
            "model.head.anchors[2]: expected a list of 2 (each a number above 0), got [3]",
        ),
        ('seed: "\\e"', "seed: expected a whole number of at least 0, got '\\x1b'"),
        ("seed: 1", f"data: missing; expected a section whose name is one of {LAYOUTS}"),
        ("data: 3", f"data: expected a section whose name is one of {LAYOUTS}, got 3"),
        ("data: {root: x}", f"data.name: missing; expected one of {LAYOUTS}"),
        ("data: {name: vok, root: x}", f"data.name: expected one of {LAYOUTS}, got 'vok' (did you mean 'voc'?)"),
        (
            "data: {name: voc, rot: x}",
            "data.rot: unknown key (did you mean 'root'?)\ndata.root: missing; expected a path",
        ),
        ("data: {name: voc, root: x, years: [7]}", "data.years[0]: expected text, got 7; put it in quotes: '7'"),
    ],
)
def test_wrong_files(tmp_path: Path, content: str, lines: str) -> None:
    content = content if content.startswith(("data:", "seed: 1")) else VOC + content
    assert lines_of(tmp_path, content) == [f"x.yaml: {line}" for line in lines.split("\n")]


@pytest.mark.parametrize(
    ("content", "override", "line"),
    [
        ("", "modle.x=1", "{}: modle: unknown key (did you mean 'model'?)"),
        ("seed: a", "seed=b", "{}: seed: expected a whole number of at least 0, got 'b'"),
        ("seed: a", "trainer.max_epochs=1", "x.yaml: seed: expected a whole number of at least 0, got 'a'"),
        ("", "seed.x=1", "{}: seed: expected a whole number of at least 0, got a mapping with x"),
        ("seed: 1", "seed.x=1", "{}: seed is 1, not a section; it has no keys to set"),
        ("", "seed", "argument 'seed': expected an override such as trainer.max_epochs=3"),
        ("", "seed=", "{}: no value after '='; write null for none, or '\"\"' for empty text"),
        ("", "a..b=1", "{}: expected keys joined by single dots, such as trainer.max_epochs=3"),
        ("", "trainer={seed: 1}", "{}: expected a value or a list; set a section key by key: trainer.key=value"),
        ("", "data.augmentation.scale_jitter=[2, 1]", f"{{}}: {JITTER}: expected [lowest, highest], got [2.0, 1.0]"),
        ("model: {head: {reg_max: 4}}", "model.head.name=grid", f"x.yaml: model.head.reg_max: {OF_TASK_ALIGNED}"),
    ],
)
def test_wrong_overrides(tmp_path: Path, content: str, override: str, line: str) -> None:
    assert lines_of(tmp_path, VOC + content, override) == [line.replace("{}", f"override {override}")]


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, VOC + "".join(f"seed{i}: 1\n" for i in range(14)))
    assert lines[0] == "x.yaml: seed0: unknown key (did you mean 'seed'?)"
    assert lines[9:] == ["x.yaml: seed9: unknown key (did you mean 'seed'?)", "x.yaml: and 4 more"]


@pytest.mark.parametrize(
    "data", [{"data": {"name": "voc", "root": Path("x")}}, {1: 2}, {"seed": math.nan}, {"a": "\ud800"}]
)
def test_data_of_a_foreign_checkpoint_is_a_config_error(data: dict[Any, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^checkpoint: "):
        config_from_dict(data)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8")),
    name=st.sampled_from(["yes", "010", "1e3", "0o7", "~", " a", "x: y", "9" * 20]),
)
def test_any_text_survives_yaml(tmp_path: Path, text: str, name: str) -> None:
    config = ExperimentConfig(data=ShapesConfig(name="shapes", classes=(text.replace("\0", ""), name, "a")))
    assert load(tmp_path, config_to_yaml(config)) == config


def test_loading_imports_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "lightning", "albumentations", "pycocotools", "timm", "cv2"}
    code = f"import sys, detseg.config.load, detseg.cli.tool; print(sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


OLD_DATA = {"name": "voc", "root": "x"}
STAGE = {"samples": 32, "positive_share": 0.3}
OLD: list[dict[str, Any]] = [
    {
        "data": OLD_DATA | {"max_bad_share": 0.5, "augmentation": {"plain_last_epochs": 1, "affine": {"shift": 0.2}}},
        "model": {"name": "yolo", "backbone": {"frozen_stages": 2}, "head": {"bins": 4, "top_candidates": 5}},
        "trainer": {"accumulate_batches": 2, "num_pictures": 3},
    },
    {
        "data": OLD_DATA,
        "model": {
            "name": "faster_rcnn",
            "backbone": {"frozen_norm": True},
            "proposals": {"candidates": 5, "candidates_train": 6, "proposals": 7, "proposals_train": 8, **STAGE},
            "regions": STAGE,
        },
        "evaluation": {"operating_iou": 0.7},
    },
    {
        "data": {"name": "folder", "root": "x"},
        "model": {"name": "unet", "backbone": {"frozen_stages": 0}, "loss": {"dice": {"weight": 1.0}, "left_out": [0]}},
        "schedule": {"name": "one_cycle", "rise_share": 0.2, "initial_share": 0.1, "final_share": 0.3},
    },
]
"""Configurations of the old version; together they have every setting that has another name today."""
OLD_SECTIONS = {"model.rpn": "model.proposals", "model.roi_heads": "model.regions"}
RENAMED = {
    f"{OLD_SECTIONS.get(section, section)}.{old}": f"{section}.{new}"
    for section, keys in NEW_KEYS.items()
    for old, new in keys.items()
}
"""Old path → new path."""


def flat(data: dict[str, Any], path: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in data.items():
        values |= flat(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return values


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("old", OLD)
def test_files_of_older_versions_load(old: dict[str, Any], suffix: str, tmp_path: Path) -> None:
    path, classes = tmp_path / f"old{suffix}", ClassTable(("a", "b"))
    if suffix == ".ckpt":
        saved = {ENTRY: model_entry(old, classes), "state_dict": {"model.w": torch.ones(2)}, "epoch": 0}
        save_atomically(saved, path)
    else:
        write_weights(path, ModelCheckpoint(old, classes, {"w": torch.ones(2)}, 1))
    loaded = flat(config_to_dict(config_from_dict(read_model_checkpoint(path).config)))
    expected = {RENAMED.get(path, path): value for path, value in flat(old).items()}
    if old["data"]["name"] == "folder":
        expected |= {"data.name": "mask_folder", "model.backbone.freeze": "none"}
    assert expected.items() <= loaded.items()


def test_every_old_name_is_tried_here() -> None:
    assert RENAMED.keys() - {"model.proposals", "model.regions"} <= {path for old in OLD for path in flat(old)}


@pytest.mark.parametrize("old", OLD)
def test_old_names_in_a_dict_are_a_line_each(old: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict(old, "x")
    lines = [f"x: {path}: is called {RENAMED[path]} now" for path in flat(old) if path in RENAMED]
    if old["data"]["name"] == "folder":
        lines.insert(0, "x: data.name: 'folder' is called 'mask_folder' now")
    assert str(caught.value).split("\n") == lines


@pytest.mark.parametrize(
    ("text", "override", "path", "new"),
    [
        ("", "trainer.num_pictures=0", "trainer.num_pictures", "trainer.num_previews"),
        ("", "model.rpn.samples=3", "model.rpn.samples", "model.rpn.batch_size_per_image"),
        ("trainer: {num_pictures: 1, num_previews: 2}", None, "trainer.num_pictures", "trainer.num_previews"),
        ("model: {proposals: {nms_iou: 0.5}}", None, "model.proposals.nms_iou", "model.rpn.nms_iou"),
        ("model: {proposals: }", None, "model.proposals", "model.rpn"),
    ],
)
def test_old_names_in_files_and_overrides(tmp_path: Path, text: str, override: str | None, path: str, new: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(f"data: {{name: voc, root: x}}\n{text}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(file, [override] if override else [])
    where = f"override {override}" if override else file
    assert str(caught.value) == f"{where}: {path}: is called {new} now"


def test_a_checkpoint_with_both_names_keeps_both_so_that_it_is_an_error() -> None:
    settings = {"data": OLD_DATA, "trainer": {"num_pictures": 1, "num_previews": 2}}
    assert rename_settings(settings)[0] == settings
