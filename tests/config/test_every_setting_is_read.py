"""Every setting is described, and read, as an attribute, by code outside detseg/config."""

from __future__ import annotations

import ast
from pathlib import Path

from detseg.config.describe import every_setting, help_text, settings_page

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "detseg"
PROPERTIES = {"input_hw": "image_size", "num_images": "batch_size", "max_seconds": "max_time"}
"""Properties of the schema that read a setting."""


def names_read(code: str) -> set[str]:
    """Attributes that are loaded, and those that a class pattern of ``match`` takes apart."""
    nodes = list(ast.walk(ast.parse(code)))
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    return read.union(*(node.kwd_attrs for node in nodes if isinstance(node, ast.MatchClass)))


def test_every_setting_is_read() -> None:
    assert names_read("match x:\n    case A(lr=lr):\n        x.written = x.loaded\n") == {"lr", "loaded"}
    paths = [path for path in PACKAGE.rglob("*.py") if not path.is_relative_to(PACKAGE / "config")]
    read = set().union(*(names_read(path.read_text(encoding="utf-8")) for path in paths))
    read |= {setting for name, setting in PROPERTIES.items() if name in read}
    assert [setting.path for setting in every_setting() if setting.path.rpartition(".")[2] not in read] == []


def test_the_page_in_docs_is_current() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == settings_page(page), "run: make docs"


def test_every_setting_has_a_meaning_and_stands_in_the_help() -> None:
    text = help_text()
    for setting in every_setting():
        assert setting.meaning, setting.path
        assert f"  {setting.path}" in text
