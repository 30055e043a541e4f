"""The space file: what it may say, one line for each mistake, and the values that it stands for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from detseg.cli import main
from detseg.config.load import config_from_dict, load_config
from detseg.config.strict_yaml import read_yaml
from detseg.errors import ConfigError
from detseg.tuning.sampling import grid_size, sampler_of
from detseg.tuning.space import Parameter, check_space, overrides_of, read_space, values_of

CONFIG = "data: {name: voc, root: data/voc}\n"
RANGES = "one of uniform, log_uniform, integer, categorical, such as {uniform: [0, 1]}"

MISTAKES = [
    ("optimizer.lr: 0.1", f"optimizer.lr: expected {RANGES}, got 0.1"),
    ("optimizer.lr: {uniform: [0, 1], integer: [0, 1]}", f"optimizer.lr: expected {RANGES}, got a mapping with"),
    ("optimizer: {lr: {uniform: [0, 1]}}", f"optimizer: expected {RANGES}, got a mapping with lr"),
    (
        "optimizer.lr: {uniform: [1, 0]}",
        "optimizer.lr: uniform: expected two numbers, the smaller one first, got [1, 0]",
    ),
    ("optimizer.lr: {uniform: 3}", "optimizer.lr: uniform: expected two numbers, the smaller one first, got 3"),
    ("optimizer.lr: {uniform: [0, .inf]}", "optimizer.lr: uniform: expected two numbers, the smaller one first, got"),
    ("optimizer.lr: {uniform: [false, true]}", "optimizer.lr: uniform: expected two numbers, the smaller one first"),
    ("optimizer.lr: {log_uniform: [0, 1]}", "optimizer.lr: log_uniform: expected numbers above 0, got [0, 1]"),
    ("optimizer.lr: {log_uniform: [1, 2], step: 1}", "optimizer.lr: log_uniform has no 'step'; remove it"),
    ("optimizer.lr: {uniform: [1, 2], stp: 1}", "optimizer.lr: uniform has no 'stp' (did you mean 'step'?); remove it"),
    ("data.batch_size: {integer: [1.5, 4]}", "data.batch_size: integer: expected two whole numbers, the smaller one"),
    (
        "data.batch_size: {integer: [2, 9], step: 2}",
        "data.batch_size: step: expected one that leads from 2 to 9, got 2",
    ),
    (
        "data.batch_size: {integer: [2, 4], step: 0}",
        "data.batch_size: step: expected one that leads from 2 to 4, got 0",
    ),
    ("data.batch_size: {categorical: [2]}", "data.batch_size: categorical: expected two or more different values, got"),
    ("data.batch_size: {categorical: [2, 2]}", "data.batch_size: categorical: expected two or more different values"),
    ("run_dir: {categorical: [a, b]}", "run_dir: is not searched, each trial has a folder of its own; remove it"),
    ("evaluation.f1_iou: {uniform: [0.1, 1]}", "evaluation.f1_iou: is not searched, trials are compared by it; remove"),
    ("data.val_fraction: {uniform: [0.1, 0.2]}", "data.val_fraction: is not searched, trials are compared by the same"),
    (
        "trainer: {categorical: [{max_epochs: 1}, {monitor: F1}]}",
        "trainer: has trainer.monitor, which is not searched, it names what is searched for; name its settings one by",
    ),
    # What the schema says, of each end of a range and each choice.
    ("optimizer.lrr: {uniform: [0, 1]}", "optimizer.lrr: unknown key (did you mean 'lr'?)"),
    ("optimizer.lr: {uniform: [-1, 1]}", "optimizer.lr: expected a number above 0, got -1.0"),
    (
        "optimizer.weight_decay: {categorical: [0, -1]}",
        "optimizer.weight_decay: expected a number of at least 0, got -1",
    ),
    (
        "data.batch_size: {uniform: [1, 4]}",
        "data.batch_size: expected a whole number from 1 to 65536, or 'auto', got 1.0",
    ),
    (
        "data.image_size: {integer: [320, 340]}",
        "data.image_size: model.name=yolo needs multiples of 32, got [340, 340]",
    ),
    (
        "trainer.max_epochs: {categorical: [3, '4']}",
        "trainer.max_epochs: expected a whole number of at least 1, got '4'",
    ),
]


@pytest.mark.parametrize(("text", "line"), MISTAKES, ids=[text for text, _ in MISTAKES])
def test_mistakes_are_one_line_with_file_and_line(
    text: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(CONFIG)
    Path("space.yaml").write_text(f"# what varies\nseed: {{integer: [1, 9]}}\n{text}\n")
    assert main(["tune", "mine.yaml", "--space", "space.yaml", "--trials", "3"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: space.yaml:3: {line}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "model: {categorical: [{name: yolo}, {name: unet}]}",
            "model.name=unet is judged by mIoU, the settings of the file by AP: they cannot be compared",
        ),
        ("model.backbone.name: {categorical: [csp_nano, resnett18]}", "model.backbone: "),
        ("", "space.yaml: names no setting that varies"),
    ],
)
def test_trials_that_cannot_be_built_or_compared_are_one_line(
    text: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(CONFIG)
    Path("space.yaml").write_text(text or "{}")
    assert main(["tune", "mine.yaml", "--space", "space.yaml", "--trials", "3"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {line}")
    assert error.count("\n") == 1
    assert not Path("runs").exists()


SPACE = """\
model.backbone.name: {categorical: [csp_nano, csp_small]}
optimizer.lr: {log_uniform: [1e-4, 1e-2]}
optimizer: {categorical: [{name: sgd}, {name: adamw, weight_decay: 0.1}]}
data.image_size: {categorical: [640, [320, 416]]}
data.augmentation.mosaic: {uniform: [0, 1], step: 0.25}
seed: {integer: [0, 6], step: 3}
"""


def write(folder: Path, space: str) -> tuple[Parameter, ...]:
    (folder / "mine.yaml").write_text(CONFIG)
    (folder / "space.yaml").write_text(space)
    return read_space(folder / "space.yaml")


def test_values_become_settings_sections_first(tmp_path: Path) -> None:
    space = write(tmp_path, SPACE)
    values = {"model.backbone.name": "csp_small", "optimizer.lr": 0.003, "optimizer": '{"name": "sgd"}', "seed": 3}
    values |= {"data.image_size": "[320, 416]", "data.augmentation.mosaic": 0.25}
    config = config_from_dict(read_yaml(tmp_path / "mine.yaml"), "mine.yaml", overrides_of(space, values))
    assert (config.optimizer.name, config.optimizer.lr, config.data.input_hw) == ("sgd", 0.003, (320, 416))
    assert (config.seed, config.data.augmentation.mosaic) == (3, 0.25)


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        ((), {"optimizer.lr": 0.001, "data.batch_size": 16}),
        (("optimizer.lr=0.1",), None),
        (("data.batch_size=15",), None),
    ],
)
def test_the_file_may_lie_in_the_space(overrides: Sequence[str], found: object, tmp_path: Path) -> None:
    space = write(tmp_path, "optimizer.lr: {log_uniform: [1e-4, 1e-2]}\ndata.batch_size: {integer: [4, 16], step: 4}\n")
    assert values_of(space, load_config(tmp_path / "mine.yaml", overrides)) == found


def test_a_grid_has_each_combination_once(tmp_path: Path) -> None:
    text = "optimizer.lr: {uniform: [0.1, 0.3], step: 0.1}\nseed: {integer: [0, 1]}\n"
    space = write(tmp_path, text + "model.nms_iou: {categorical: [0.5, 0.7]}\n")
    assert grid_size(space) == 12
    points = [sampler_of("grid", space, 0, number, None).values for number in range(12)]  # type: ignore[attr-defined]  # GivenValues
    expected = {(lr, seed, iou) for lr in (0.1, 0.2, 0.3) for seed in (0, 1) for iou in ("0.5", "0.7")}
    assert {(round(p["optimizer.lr"], 9), p["seed"], p["model.nms_iou"]) for p in points} == expected
    with pytest.raises(ConfigError, match=r"space.yaml:1: optimizer.lr: a grid needs single values; give a step"):
        grid_size(write(tmp_path, "optimizer.lr: {uniform: [0.1, 0.3]}\n"))


def test_the_space_of_the_documentation(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8")
    space = write(tmp_path, page.partition("```text\n")[2].partition("```")[0])
    assert len(space) == 5
    check_space(space, lambda overrides: config_from_dict(read_yaml(tmp_path / "mine.yaml"), "", overrides))


def test_a_missing_optuna_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "seed: {integer: [0, 3]}\n")
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["tune", str(tmp_path / "mine.yaml"), "--space", str(tmp_path / "space.yaml"), "--trials", "3"]) == 2
    assert capsys.readouterr().err == 'error: detseg tune needs optuna: pip install "detseg[tune]"\n'
