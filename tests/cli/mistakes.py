"""How the tests of wrong inputs call the tools and lay out their cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from detseg.cli.tool import run_tool

Case = tuple[list[str], str]
"""Arguments of a tool, and the one line that it answers with."""


def each_case(*cases_of_tools: tuple[Any, Sequence[Case]]) -> pytest.MarkDecorator:
    """Runs a test for each case of each tool, as ``tool``, ``argv`` and ``message``."""
    return pytest.mark.parametrize(
        ("tool", "argv", "message"),
        [(tool, *case) for tool, cases in cases_of_tools for case in cases],
        ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
    )


def said(tool: Any, argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of a tool and what it wrote to standard error."""
    code = run_tool(tool.main, argv)
    return code, capsys.readouterr().err
