"""What messages repeat of the user's files is one line, safe for a terminal, and bounded."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest

from detseg.messages import did_you_mean, listed, messages_on_console, one_line, printable, quoted, shown

HOSTILE = "a\x1b[31m\n\u202eb"


def test_control_characters_become_escapes_everywhere() -> None:
    for text in (
        printable(HOSTILE),
        shown(HOSTILE),
        quoted(HOSTILE),
        listed([HOSTILE]),
        one_line(ValueError(HOSTILE)),
        did_you_mean(HOSTILE + "c", [HOSTILE]),
    ):
        assert "\\x1b[31m" in text.replace("\\\\", "\\")
        assert text.isprintable()


def test_long_texts_are_cut() -> None:
    long = "x" * 100_000
    assert printable("x" * 4000) == "x" * 4000
    assert [len(printable(long)), len(shown(long)), len(quoted(long))] == [4003, 103, 60]
    assert len(listed([long] * 100)) < 3100
    assert listed(["a", "b"]) == "a, b"
    assert listed([*"abcdefghijkl"]) == "a, b, c, d, e, f, g, h, i, j, and 2 more"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (None, "null"),
        (-math.inf, "-.inf"),
        (math.nan, ".nan"),
        ("no", "'no'"),
        ([1, "a"], '[1, "a"]'),
        ({"a": 1, "b": 2}, "a mapping with a, b"),
        ({}, "{}"),
    ],
)
def test_settings_are_quoted_as_a_file_has_them(value: Any, text: str) -> None:
    assert quoted(value) == text


def test_the_nearest_word_is_named() -> None:
    assert did_you_mean("modle", ["data", "model"]) == " (did you mean 'model'?)"
    assert did_you_mean("modle", ["xyz"]) == ""
    assert did_you_mean("ap50", ["AP", "AP50", "F1"]) == " (did you mean 'AP50'?)"


def test_messages_are_shown_until_the_last_of_several_trainings_ends(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = messages_on_console(), messages_on_console()
    first.__enter__()
    with second:
        first.__exit__(None, None, None)
        logging.getLogger("detseg").info("still shown")
    logging.getLogger("detseg").info("not shown")
    assert capsys.readouterr().out == "still shown\n"
