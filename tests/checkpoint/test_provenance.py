"""What a run remembers of how it began."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from detseg.checkpoint.provenance import describe_start, git_state, read_run_file, write_run_file
from detseg.errors import CheckpointError


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    ).stdout


def test_commit_and_changes_of_a_repository(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) is None  # there is no commit yet
    (tmp_path / "config.yaml").write_text("a", encoding="utf-8")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "new").write_text("", encoding="utf-8")  # as every run writes
    assert git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "config.yaml").write_text("b", encoding="utf-8")
    assert git_state(tmp_path / "runs") == {"commit": commit, "dirty": True}


def test_a_repository_starts_no_program_of_its_own(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    git(tmp_path, "config", "core.fsmonitor", f"touch {tmp_path / 'started'}; false")
    assert git_state(tmp_path) is not None
    assert not (tmp_path / "started").exists()


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(Path(__file__).parent) is None


def test_the_start_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["detseg", "train", "my config.yaml"])
    monkeypatch.chdir(tmp_path)
    start = describe_start({"train": {"images": 3}})
    assert start["command"] == "detseg train 'my config.yaml'"
    monkeypatch.setattr(sys, "argv", ["/x/detseg/__main__.py", "train"])
    assert describe_start({})["command"] == "python -m detseg train"
    assert (start["folder"], start["git"]) == (str(tmp_path), None)
    assert start["detseg"] == version("detseg")
    assert start["packages"]["torch"] == version("torch") == torch.__version__.partition("+")[0]
    assert start["packages"]["python"] == sys.version.split()[0]
    assert start["data"] == {"train": {"images": 3}}
    assert start["machine"]["processor"]
    assert json.loads(json.dumps(start)) == start


def test_a_damaged_file_is_an_error_and_none_is_empty(tmp_path: Path) -> None:
    assert read_run_file(tmp_path) == {"starts": [], "trackers": {}}
    content = {"starts": [{"command": "a"}], "trackers": {"mlflow": "7"}}
    write_run_file(tmp_path, content)
    assert read_run_file(tmp_path) == content
    for text in ("{", "[]", '{"starts": 3, "trackers": {}}', '{"starts": []}'):
        (tmp_path / "run.json").write_text(text, encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"run.json: is damaged \(.*\); bring it back, or delete it"):
            read_run_file(tmp_path)


def test_passwords_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["detseg", "tune", "--storage", "postgresql://me:se:cr@et@host/db?sslpassword=top"]
    )
    assert describe_start({})["command"] == "detseg tune --storage 'postgresql://me:***@host/db?sslpassword=***'"
