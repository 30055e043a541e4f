"""Loading: what is right comes through with its types, what is wrong comes out as one exact line."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detseg.config.describe import every_setting
from detseg.config.load import config_from_dict, config_to_dict, config_to_yaml, load_config
from detseg.config.schema.data import CocoConfig, ShapesConfig, VocConfig
from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.model import AnchorHeadConfig, GridHeadConfig, TaskAlignedHeadConfig, YoloConfig
from detseg.config.schema.training import CosineConfig, SgdConfig
from detseg.errors import ConfigError

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
    config = load(
        tmp_path,
        "data: {name: voc, root: a/b, years: ['2007', '2012'], image_size: [320, 640]}\n"
        "model: {head: {name: anchor, anchors: [[1, 2.5], [3, 4]]}}\n"
        "optimizer: {name: sgd, lr: 1e-3}\n"
        "trainer: {gradient_clip_norm: 1, devices: 2}\n",
    )
    assert isinstance(config.data, VocConfig)
    assert config.data.root == Path("a/b")
    assert config.data.years == ("2007", "2012")
    assert config.data.input_hw == (320, 640)
    assert isinstance(config.model, YoloConfig)
    assert isinstance(config.model.head, AnchorHeadConfig)
    assert config.model.head.anchors == ((1.0, 2.5), (3.0, 4.0))
    assert config.optimizer == SgdConfig(name="sgd", lr=0.001)
    assert isinstance(config.trainer.gradient_clip_norm, float)
    assert config.trainer.devices == 2


def test_a_section_with_a_default_kind_needs_no_name(tmp_path: Path) -> None:
    config = load(tmp_path, VOC + "schedule: {warmup_epochs: 1}\nmodel: {head: {reg_max: 8}}\n", "optimizer.lr=0.5")
    assert config.schedule == CosineConfig(warmup_epochs=1.0)
    assert isinstance(config.model, YoloConfig)
    assert config.model.head == TaskAlignedHeadConfig(reg_max=8)
    assert (config.optimizer.name, config.optimizer.lr) == ("adamw", 0.5)


def test_overrides_win_over_the_file_and_later_ones_over_earlier_ones(tmp_path: Path) -> None:
    content = VOC + "trainer: {max_epochs: 5, num_nodes: 2}\nmodel: {head: {name: anchor, ignore_iou: 0.7}}\n"
    config = load(tmp_path, content, "trainer.max_epochs=3", "trainer.max_epochs=4", "model.neck.name=fpn", "seed=0x10")
    assert (config.trainer.max_epochs, config.trainer.num_nodes, config.seed) == (4, 2, 16)
    assert isinstance(config.model, YoloConfig)
    assert config.model.neck.name == "fpn"
    assert config.model.head == AnchorHeadConfig(name="anchor", ignore_iou=0.7)
    switched = load(
        tmp_path, VOC, "model.head.name=grid", "model.head.stride=16", "run_dir=null", "data.years=['2012']"
    )
    assert isinstance(switched.model, YoloConfig)
    assert switched.model.head == GridHeadConfig(name="grid", stride=16)
    assert isinstance(switched.data, VocConfig)
    assert switched.data.years == ("2012",)
    coco = load(tmp_path, "seed: 1", "data.name=coco", "data.root=c")
    assert coco.data == CocoConfig(name="coco", root=Path("c"))


LAYOUTS = "'voc', 'coco', 'shapes', 'mask_folder'"
WRONG: list[tuple[str, tuple[str, ...], list[str]]] = [
    (VOC + "model: {bakbone: {}}", (), ["x.yaml: model.bakbone: unknown key (did you mean 'backbone'?)"]),
    (
        "data: {name: voc, rooot: x}",
        (),
        ["x.yaml: data.rooot: unknown key (did you mean 'root'?)", "x.yaml: data.root: missing; expected a path"],
    ),
    (VOC + "lr: 1", (), ["x.yaml: lr: unknown key (did you mean 'optimizer.lr'?)"]),
    (
        VOC + "qqq: 1",
        (),
        [
            "x.yaml: qqq: unknown key; known here: seed, run_dir, model, data, optimizer, schedule, trainer, "
            "evaluation",
        ],
    ),
    ("seed: 1", (), [f"x.yaml: data: missing; expected a section whose name is one of {LAYOUTS}"]),
    ("data: {root: x}", (), [f"x.yaml: data.name: missing; expected one of {LAYOUTS}"]),
    (
        "data: {name: vok, root: x}",
        (),
        [f"x.yaml: data.name: expected one of {LAYOUTS}, got 'vok' (did you mean 'voc'?)"],
    ),
    ("data: 3", (), [f"x.yaml: data: expected a section whose name is one of {LAYOUTS}, got 3"]),
    (
        VOC + "trainer:",
        (),
        ["x.yaml: trainer: expected a section of settings, got null; leave the key out for the defaults"],
    ),
    (VOC + "seed: true", (), ["x.yaml: seed: expected a whole number of at least 0, got true"]),
    (VOC + "seed: 1.0", (), ["x.yaml: seed: expected a whole number of at least 0, got 1.0"]),
    (VOC + "seed: '3'", (), ["x.yaml: seed: expected a whole number of at least 0, got '3'"]),
    (VOC + "seed: -1", (), ["x.yaml: seed: expected a whole number of at least 0, got -1"]),
    (VOC + "trainer: {compile: yes}", (), ["x.yaml: trainer.compile: expected true or false, got 'yes'"]),
    (VOC + "trainer: {compile: 1}", (), ["x.yaml: trainer.compile: expected true or false, got 1"]),
    (
        VOC + "trainer: {precision: flaot32}",
        (),
        [
            "x.yaml: trainer.precision: expected one of 'auto', 'float32', 'bfloat16', got 'flaot32' "
            "(did you mean 'float32'?)"
        ],
    ),
    (
        VOC + "trainer: {devices: 0}",
        (),
        ["x.yaml: trainer.devices: expected a whole number of at least 1, or 'auto', got 0"],
    ),
    (
        VOC + "trainer: {ema_decay: 1}",
        (),
        ["x.yaml: trainer.ema_decay: expected a number of at least 0 and below 1, got 1"],
    ),
    (VOC + "optimizer: {lr: .inf}", (), ["x.yaml: optimizer.lr: expected a number above 0, got .inf"]),
    (VOC + "optimizer: {lr: .nan}", (), ["x.yaml: optimizer.lr: expected a number above 0, got .nan"]),
    (VOC + "optimizer: {lr: 1_0}", (), ["x.yaml: optimizer.lr: expected a number above 0, got '1_0'"]),
    (
        "data: {name: voc, root: x, image_size: 33}",
        (),
        ["x.yaml: data.image_size: model.name=yolo needs multiples of 32, got [33, 33]"],
    ),
    (
        "data: {name: voc, root: x, years: [2007]}",
        (),
        ["x.yaml: data.years[0]: expected text, got 2007; put it in quotes: '2007'"],
    ),
    (
        VOC + "model: {head: {name: anchor, anchors: [[1, 2], [3, -1], [3]]}}",
        (),
        [
            "x.yaml: model.head.anchors[1][1]: expected a number above 0, got -1",
            "x.yaml: model.head.anchors[2]: expected a list of 2 (each a number above 0), got [3]",
        ],
    ),
    (
        VOC + "schedule: {milestones: [0.5]}",
        (),
        ["x.yaml: schedule.milestones: unknown key of 'cosine', it belongs to 'step'; remove it or set schedule.name"],
    ),
    (
        VOC + "model: {head: {reg_max: 4, alpha: 1}}",
        ("model.head.name=grid",),
        [
            "override model.head.name=grid: model.head: x.yaml sets reg_max, alpha, which 'grid' does not have; "
            "remove that from the file"
        ],
    ),
    (VOC, ("modle.x=1",), ["override modle.x=1: modle: unknown key (did you mean 'model'?)"]),
    (VOC + "modle: {}", ("modle.x=1",), ["x.yaml: modle: unknown key (did you mean 'model'?)"]),
    (VOC + "seed: a", ("seed=b",), ["override seed=b: seed: expected a whole number of at least 0, got 'b'"]),
    (VOC + "seed: a", ("trainer.max_epochs=1",), ["x.yaml: seed: expected a whole number of at least 0, got 'a'"]),
    (VOC, ("seed.x=1",), ["override seed.x=1: seed: expected a whole number of at least 0, got a mapping with x"]),
    (VOC + "seed: 1", ("seed.x=1",), ["override seed.x=1: seed is 1, not a section; it has no keys to set"]),
    (VOC, ("seed",), ["argument 'seed': expected an override such as trainer.max_epochs=3"]),
    (VOC, ("seed=",), ["override seed=: no value after '='; write null for none, or '\"\"' for empty text"]),
    (VOC, ("a..b=1",), ["override a..b=1: expected keys joined by single dots, such as trainer.max_epochs=3"]),
    (
        VOC,
        ("trainer={max_epochs: 1}",),
        [
            "override trainer={max_epochs: 1}: expected a single value or a list; set a section key by key: "
            "trainer.key=value"
        ],
    ),
    (
        VOC,
        ("seed=[1",),
        [
            "override seed=[1: not valid YAML: expected ',' or ']', but got '<stream end>' "
            "(while parsing a flow sequence)"
        ],
    ),
    (
        VOC,
        ("data.augmentation.mosaic_scale=[2, 1]",),
        ["x.yaml with its overrides: data.augmentation.mosaic_scale: expected [lowest, highest], got [2.0, 1.0]"],
    ),
    (VOC + 'seed: "\\e"', (), ["x.yaml: seed: expected a whole number of at least 0, got '\\x1b'"]),
]


@pytest.mark.parametrize(("content", "overrides", "lines"), WRONG, ids=range(len(WRONG)))
def test_wrong_settings(tmp_path: Path, content: str, overrides: tuple[str, ...], lines: list[str]) -> None:
    assert lines_of(tmp_path, content, *overrides) == lines


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, VOC + "".join(f"seed{i}: 1\n" for i in range(14)))
    assert lines[0] == "x.yaml: seed0: unknown key (did you mean 'seed'?)"
    assert lines[9:] == ["x.yaml: seed9: unknown key (did you mean 'seed'?)", "x.yaml: and 4 more"]


def test_terminal_escapes_do_not_pass(tmp_path: Path) -> None:
    for lines in (
        lines_of(tmp_path, VOC + '"\\e[31m\\n\\u202e": 1'),
        lines_of(tmp_path, VOC, "\x1b[31m\n\u202e=1"),
        lines_of(tmp_path, VOC, "seed=\x1b[31m"),
    ):
        assert len(lines) == 1
        assert lines[0].isprintable()


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


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
PATHS = sorted({setting.path for setting in every_setting()} | {"data", "model.head", "trainer", "data.augmentation.x"})
NAMES = st.sampled_from(["voc", "coco", "shapes", "grid", "anchor", "sgd", "step", "yolo", None])


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(PATHS), PLAIN | NAMES, max_size=6))
def test_any_data_is_a_configuration_or_a_config_error(values: dict[str, Any]) -> None:
    data: dict[str, Any] = {"data": {"name": "shapes"}}
    for path, value in values.items():
        *above, key = path.split(".")
        section = data
        for name in above:
            below = section.setdefault(name, {})
            section = below if isinstance(below, dict) else {}
        section[key] = value
    lines: list[str] = []
    try:
        config = config_from_dict(data)
        assert config_from_dict(config_to_dict(config)) == config
    except ConfigError as error:
        lines = str(error).split("\n")
    assert all(line.startswith("checkpoint: ") and line.isprintable() for line in lines)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary() | st.text().map(str.encode))
def test_any_file_is_a_configuration_or_a_config_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):  # no bytes found by chance hold the required `data`
        load_config(path)


def test_loading_imports_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "lightning", "albumentations", "pycocotools", "timm", "cv2"}
    code = f"import sys, detseg.config.load, detseg.config.cli; print(sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
