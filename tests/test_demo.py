"""The demo types the commands that fit together, keeps older demos, and stops at the first failure."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools import demo


class FakeTools:
    """Stands for ``subprocess.run``: notes the commands, and fails the one whose script is named."""

    def __init__(self, failing: str = "") -> None:
        self.commands: list[list[str]] = []
        self.failing = failing

    def __call__(self, command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        self.commands.append(command[1:])
        return subprocess.CompletedProcess(command, 2 if command[1] == self.failing else 0)


def test_each_step_works_on_what_the_one_before_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = FakeTools()
    monkeypatch.setattr(subprocess, "run", tools)
    monkeypatch.chdir(tmp_path)
    demo.main()
    checkpoint = "runs/demo/checkpoints/best.ckpt"
    assert tools.commands == [
        ["tools/train.py", "configs/yolo_shapes.yaml", "run_dir=runs/demo"],
        ["tools/evaluate.py", checkpoint],
        ["tools/predict.py", checkpoint, "data/shapes/coco/val", "--out", "runs/demo/predictions"],
    ]
    assert "runs/demo/predictions" in capsys.readouterr().out.split("The demo is done")[1]


def test_an_older_demo_stays(tmp_path: Path) -> None:
    assert demo.free_folder(tmp_path / "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert demo.free_folder(tmp_path / "demo") == tmp_path / "demo-3"


def test_it_stops_at_the_first_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tools = FakeTools(failing="tools/evaluate.py")
    monkeypatch.setattr(subprocess, "run", tools)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"tools/evaluate\.py .* failed with exit code 2"):
        demo.main()
    assert [command[0] for command in tools.commands] == ["tools/train.py", "tools/evaluate.py"]
