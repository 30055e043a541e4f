"""How the tests of wrong inputs call the commands and lay out their cases."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from detseg.cli.tool import run_tool

Tool = Callable[[Sequence[str]], None]


def each_case(*cases_of_tools: tuple[Tool, str]) -> pytest.MarkDecorator:
    """Runs a test for each case of each command, as ``tool``, ``argv`` and ``message``.

    The cases are text: a line of arguments, as a shell has them, and below it, indented, what the command answers with.
    """
    cases = []
    for tool, text in cases_of_tools:
        for case in re.split(r"\n(?! |$)", text):
            arguments, *answer = case.strip().split("\n    ")
            cases.append(pytest.param(tool, shlex.split(arguments), " ".join(answer), id=arguments[:60]))
    return pytest.mark.parametrize(("tool", "argv", "message"), cases)


def said(tool: Tool, argv: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    return run_tool(tool, argv), capsys.readouterr().err


def assert_one_line(
    tool: Tool, argv: list[str], message: str, folder: Path, new: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run a command in a folder; ``new`` in its arguments stands for a path that does not exist."""
    names = {part: part.replace("new", str(new / "new")) for part in ("new", "run_dir=new")}
    with contextlib.chdir(folder):
        assert said(tool, [names.get(part, part) for part in argv], capsys) == (2, f"error: {message}\n")
