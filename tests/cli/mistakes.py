"""How the tests of wrong inputs call the commands and lay out their cases."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from detseg.cli.tool import run_tool

Tool = Callable[[Sequence[str]], None]
Case = tuple[list[str], str]
"""Arguments of a command, and the one line that it answers with."""


def each_case(*cases_of_tools: tuple[Tool, Sequence[Case]]) -> pytest.MarkDecorator:
    """Runs a test for each case of each command, as ``tool``, ``argv`` and ``message``."""
    return pytest.mark.parametrize(
        ("tool", "argv", "message"),
        [(tool, *case) for tool, cases in cases_of_tools for case in cases],
        ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
    )


def said(tool: Tool, argv: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of a command and what it wrote to standard error."""
    return run_tool(tool, argv), capsys.readouterr().err


def assert_one_line(
    tool: Tool, argv: list[str], message: str, folder: Path, new: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run a command in a folder; ``new`` in its arguments stands for a path that does not exist."""
    names = {part: part.replace("new", str(new / "new")) for part in ("new", "run_dir=new")}
    with contextlib.chdir(folder):
        assert said(tool, [names.get(part, part) for part in argv], capsys) == (2, f"error: {message}\n")
