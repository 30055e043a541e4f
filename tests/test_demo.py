"""The demo types the commands that fit together, keeps older demos, and stops at the first failure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools import demo


class FakeTools:
    """Stands for ``subprocess.run``: notes the commands, and fails the one that is named."""

    def __init__(self, failing: str = "") -> None:
        self.commands: list[list[str]] = []
        self.failing = failing

    def __call__(self, command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        assert command[1:3] == ["-m", "detseg"]
        self.commands.append(command[3:])
        return subprocess.CompletedProcess(command, 2 if command[3] == self.failing else 0)


def test_each_step_works_on_what_the_one_before_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = FakeTools()
    monkeypatch.setattr(sys, "argv", ["demo.py"])
    monkeypatch.setattr(subprocess, "run", tools)
    monkeypatch.chdir(tmp_path)
    demo.main()
    checkpoint = "runs/demo/checkpoints/best.ckpt"
    assert tools.commands == [
        ["train", "configs/yolo_shapes.yaml", "run_dir=runs/demo"],
        ["evaluate", checkpoint],
        ["predict", checkpoint, "data/shapes/coco/val", "--out", "runs/demo/found"],
    ]
    assert "runs/demo/pictures/val_predictions.jpg" in capsys.readouterr().out.split("Open first:")[1]


def test_an_older_demo_stays(tmp_path: Path) -> None:
    assert demo.free_folder(tmp_path / "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert demo.free_folder(tmp_path / "demo") == tmp_path / "demo-3"


def test_it_stops_at_the_first_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tools = FakeTools(failing="evaluate")
    monkeypatch.setattr(sys, "argv", ["demo.py"])
    monkeypatch.setattr(subprocess, "run", tools)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"`detseg evaluate .* failed with exit code 2"):
        demo.main()
    assert [command[0] for command in tools.commands] == ["train", "evaluate"]


def test_help_is_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tools = FakeTools()
    monkeypatch.setattr(sys, "argv", ["demo.py", "--help"])
    monkeypatch.setattr(subprocess, "run", tools)
    with pytest.raises(SystemExit, match="0"):
        demo.main()
    assert "usage: demo.py" in capsys.readouterr().out
    assert tools.commands == []
