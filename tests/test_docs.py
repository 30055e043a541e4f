"""The documentation speaks of files that exist, and its Python is Python."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])


def python_errors(text: str) -> list[str]:
    """The syntax errors of the page's ```python blocks."""
    found = []
    for block in re.findall(r"^```python\s*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        try:
            ast.parse(block)
        except SyntaxError as error:
            found.append(f"line {error.lineno} of a python block: {error.msg}: {(error.text or '').strip()}")
    return found


def dead_paths(text: str, folder: Path, root: Path) -> list[str]:
    """Relative links, and files of the repository's folders in prose or commands, that do not exist."""
    links = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    found = [f"link to {link}" for link in links if link and not (folder / link).exists()]
    paths = re.findall(r"(?<![\w/.-])((?:configs|tools|docs|tests|detseg|benchmarks)/[\w./-]+\.(?:yaml|py|md))\b", text)
    return found + [path for path in paths if not (root / path).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not python_errors(text)
    assert not dead_paths(text, page.parent, ROOT)


def test_python_errors_are_found() -> None:
    assert python_errors("```python\nx = 1\n```\n\n```sh\nx = (\n```\n") == []
    assert len(python_errors("```python\nx = (\n```\n\n```python\ny = 1\n```\n")) == 1


def test_dead_paths_are_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "data.md").touch()
    text = "[a](data.md#voc) [b](#here) [c](https://x.org/y.md) [d](no.md) docs/data.md `tools/no.py x` configs/no.yaml"
    assert dead_paths(text, tmp_path / "docs", tmp_path) == ["link to no.md", "tools/no.py", "configs/no.yaml"]
