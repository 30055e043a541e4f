"""The demo types the commands that fit together, keeps older demos, and stops at the first failure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools import demo

CHECKPOINT = "runs/demo/checkpoints/best.ckpt"
COMMANDS = [
    ["train", "configs/yolo_shapes.yaml", "run_dir=runs/demo"],
    ["evaluate", CHECKPOINT],
    ["predict", CHECKPOINT, "data/shapes/coco/val", "--out", "runs/demo/found"],
]


@pytest.mark.parametrize(("failing", "num_run", "error"), [("", 3, ""), ("evaluate", 2, "failed with exit code 2")])
def test_each_step_works_on_what_the_one_before_left_and_a_failure_stops_it(
    failing: str,
    num_run: int,
    error: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        assert command[1:3] == ["-m", "detseg"]
        commands.append(command[3:])
        return subprocess.CompletedProcess(command, 2 if command[3] == failing else 0)

    monkeypatch.setattr(sys, "argv", ["demo.py"])
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.chdir(tmp_path)
    if error:
        with pytest.raises(SystemExit, match=rf"`detseg evaluate .* {error}"):
            demo.main()
    else:
        demo.main()
        assert "runs/demo/pictures/val_predictions.jpg" in capsys.readouterr().out.split("Open first:")[1]
    assert commands == COMMANDS[:num_run]


def test_an_older_demo_stays(tmp_path: Path) -> None:
    assert demo.free_folder(tmp_path / "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert demo.free_folder(tmp_path / "demo") == tmp_path / "demo-3"
