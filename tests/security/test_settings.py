"""A configuration file names no class, grows beyond no bound, and writes nothing over a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from detseg.cli import train
from detseg.config.load import load_config
from detseg.errors import ConfigError
from tests.cli.mistakes import said

LAUGHS = "a: &a [ha, ha]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def hostile(target: Path) -> dict[str, tuple[str, str]]:
    """Text of a file, and what is said of it."""
    return {
        "a function": (f"seed: !!python/object/apply:os.system ['touch {target}']\n", "tags (!) are not allowed"),
        "a class": (f"seed: !!python/object/new:open ['{target}', w]\n", "tags (!) are not allowed"),
        "a module": ("seed: !!python/module:os\n", "tags (!) are not allowed"),
        "a tag of our own": ("seed: !include /etc/passwd\n", "tags (!) are not allowed"),
        "a tag's short name": (
            f"%TAG ! tag:yaml.org,2002:python/\n---\nseed: !object/apply:os.system [{target}]\n",
            "tags",
        ),
        "a billion laughs": (LAUGHS, "anchors (&) and aliases (*) are not allowed"),
        "a list that holds itself": ("seed: &a [*a]\n", "anchors (&) and aliases (*) are not allowed"),
        "a merge": ("a: &a {seed: 1}\n<<: *a\n", "anchors (&) and aliases (*) are not allowed"),
        "a depth of 10^5": ("seed: " + "[" * 100_000 + "\n", "nested deeper than 30 levels"),
        "a mapping of depth 10^5": ("{a: " * 100_000, "nested deeper than 30 levels"),
        "a number of a million digits": ("seed: " + "9" * 1_000_000 + "\n", "a whole number beyond 64 bits"),
        "two documents": ("seed: 1\n---\nseed: 2\n", "a second document begins"),
        "a key twice": ("seed: 1\nseed: 2\n", "duplicate key 'seed'"),
        "control characters": ('data: {name: shapes}\nseed: "\\e[2J\\e[31m"\n', "seed: expected a whole number"),
        "control characters in a key": ('data: {name: shapes}\n"\\e[2J": 1\n', "unknown key"),
    }


@pytest.mark.parametrize("name", hostile(Path()))
def test_hostile_settings_are_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "exploded"
    text, reason = hostile(target)[name]
    path = tmp_path / "hostile.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert reason in str(caught.value)
    code, message = said(train, [str(path)], capsys)
    assert (code, message.count("\n")) == (2, 1)
    assert message.startswith(f"error: {path}")
    assert message.rstrip("\n").isprintable()
    assert len(message) < 500
    assert not target.exists()


def test_overrides_are_read_by_the_same_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, target = tmp_path / "good.yaml", tmp_path / "exploded"
    path.write_text("seed: 1\n")
    for value in (f"!!python/object/apply:os.system ['touch {target}']", "&a [*a]", "[" * 100_000):
        code, message = said(train, [str(path), f"seed={value}"], capsys)
        assert code == 2
        assert message.startswith("error: override seed=")
        assert message.count("\n") == 1
    assert not target.exists()
