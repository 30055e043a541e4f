"""The `detseg` command: its sub-commands, examples by name, new configuration files, settings in words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from detseg.cli import main
from detseg.config.load import load_config

ROOT = Path(__file__).resolve().parents[2]
BOXES = ("voc", "coco", "shapes")


def out_of(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(argv) == 0
    return capsys.readouterr().out


def test_help_names_every_command_and_each_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    text = out_of(capsys)
    assert text == out_of(capsys, "--help")
    for command in ("train", "evaluate", "predict", "export-weights", "benchmark", "config"):
        assert f"  {command} " in text
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        assert capsys.readouterr().out.startswith(f"usage: detseg {command} ")


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "detseg", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("detseg 0.")
    shim = subprocess.run([sys.executable, "tools/train.py", "x.yaml"], capture_output=True, text=True, cwd=ROOT)
    assert (shim.returncode, shim.stderr) == (2, "error: x.yaml: no such configuration file\n")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["trian"], "there is no command 'trian' (did you mean 'train'?); the commands are train, "),
        (["train", "yolo_shape"], "'yolo_shape' is neither a file nor an example (did you mean 'yolo_shapes'?)"),
        (["config", "explain", "model.heda"], "there is no setting 'model.heda' (did you mean 'model.head'?)"),
        (["config", "new", "--model", "mask_rcnn"], "--data voc: has not what mask_rcnn learns; take coco or shapes"),
        (["config", "new", "--model", "yolo", "--data", "mask_folder"], "--data mask_folder: has not what yolo learns"),
    ],
)
def test_mistakes_are_one_line(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {line}")
    assert err.count("\n") == 1


def test_examples_are_found_by_name_and_stay_within_the_repository(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = sorted((ROOT / "configs").glob("*.yaml"))
    assert len(examples) > 15
    monkeypatch.chdir(tmp_path)
    for path in examples:
        assert "  root: data" in out_of(capsys, "train", path.stem, "--print-config"), path


@pytest.mark.parametrize(
    ("model", "data"),
    [("yolo", data) for data in BOXES]
    + [("mask_rcnn", "coco"), ("mask_rcnn", "shapes"), ("faster_rcnn", "voc")]
    + [(model, data) for model in ("fcn", "unet") for data in (*BOXES, "mask_folder")],
)
def test_a_new_file_is_a_configuration(
    model: str, data: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(out_of(capsys, "config", "new", "--model", model, "--data", data), encoding="utf-8")
    config = load_config(file)
    assert (config.model.name, config.data.name) == (model, data)


def test_settings_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    one = out_of(capsys, "config", "explain", "trainer.max_epochs")
    assert "  trainer.max_epochs: a whole number of at least 1; default 100\n      Passes" in one
    assert set(one.splitlines()) < set(out_of(capsys, "config", "explain", "trainer").splitlines())
    assert "model.backbone.name" in out_of(capsys, "config", "explain")
