"""The descriptions name every setting, and the page in docs/ is the current one."""

from __future__ import annotations

from pathlib import Path

from detseg.config.describe import every_setting, help_text, markdown

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def test_the_page_in_docs_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), (
        "run: python -m detseg.config.describe > docs/configuration.md"
    )


def test_every_setting_has_a_meaning_and_stands_in_the_help() -> None:
    text = help_text()
    for setting in every_setting():
        assert setting.meaning, setting.path
        assert f"  {setting.path}" in text
