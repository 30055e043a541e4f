"""No setting may be accepted and then ignored: each is read, as an attribute, by code outside detseg/config."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from detseg.config.describe import every_setting

PACKAGE = Path(__file__).resolve().parents[2] / "detseg"


def names_read(node: ast.AST) -> Iterator[str]:
    """Attributes that are loaded, and those that a class pattern of ``match`` takes apart."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Load):
            yield inner.attr
        elif isinstance(inner, ast.MatchClass):
            yield from inner.kwd_attrs


def properties(tree: ast.AST) -> Iterator[tuple[str, set[str]]]:
    """Each property of the schema's classes, with what it reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and "property" in map(ast.unparse, node.decorator_list):
            yield node.name, set(names_read(node))


def unread_settings() -> list[str]:
    read: set[str] = set()
    schema_properties: list[tuple[str, set[str]]] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.is_relative_to(PACKAGE / "config"):
            schema_properties += properties(tree)
        else:
            read.update(names_read(tree))
    for name, inner in schema_properties:
        if name in read:
            read |= inner
    return sorted({setting.path for setting in every_setting() if setting.path.rpartition(".")[2] not in read})


def test_every_setting_is_read() -> None:
    assert unread_settings() == []


def test_the_reading_of_attributes_is_seen() -> None:
    code = "match x:\n    case A(lr=lr):\n        x.written = x.loaded\n"
    assert set(names_read(ast.parse(code))) == {"lr", "loaded"}
