"""The descriptions name every setting, and the page in docs/ is the current one."""

from __future__ import annotations

from pathlib import Path

from detseg.config.describe import Setting, every_setting, help_text, markdown

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def test_the_page_in_docs_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), (
        "run: python -m detseg.config.describe > docs/configuration.md"
    )


def test_settings_in_words() -> None:
    settings = {(setting.path, setting.kinds): setting for setting in every_setting()}
    assert settings["trainer.max_epochs", ()] == Setting(
        "trainer.max_epochs", (), "a whole number of at least 1", "100", "Passes over the training set."
    )
    assert settings["data.root", ("voc",)].default is None
    assert settings["optimizer.lr", ("sgd",)].default == "0.01"
    assert settings["optimizer.lr", ("adam", "adamw", "rmsprop")].default == "0.001"
    assert settings["data.image_size", ("voc", "coco", "mask_folder")].type == (
        "a whole number from 32 to 13376, or a list of 2 (each a whole number from 32 to 13376)"
    )
    head = settings["model.head.name", ()]
    assert (head.type, head.default) == ("one of 'task_aligned', 'anchor', 'grid'", "task_aligned")
    assert settings["data.name", ()].default is None


def test_every_setting_has_a_meaning_and_stands_in_the_help() -> None:
    text = help_text()
    for setting in every_setting():
        assert setting.meaning, setting.path
        assert f"  {setting.path}" in text
