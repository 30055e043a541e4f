"""The strict YAML reader against the examples of the YAML 1.2 specification and against files that must be refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.config.strict_yaml import YamlValue, parse_value, read_yaml
from detseg.errors import ConfigError

# YAML 1.2.2, example 10.3 (core schema), and what YAML 1.1 would have made of the rest.
CORE_SCHEMA: list[tuple[str, YamlValue]] = [
    ("[null, ~]", [None, None]),
    ("[true, True, false, FALSE]", [True, True, False, False]),
    ("[0, 0o7, 0x3A, -19]", [0, 7, 58, -19]),
    ("[0., -0.0, .5, +12e03, -2E+05]", [0.0, 0.0, 0.5, 12000.0, -200000.0]),
    ("[.inf, -.Inf, +.INF, .NAN]", [math.inf, -math.inf, math.inf, math.nan]),
    ("[1e-3, 010]", [0.001, 10]),
    *[(text, text) for text in ("yes", "no", "on", "off", "y", "n", "1_000", "12:30", "2012-12-12", "/data#1", "<<")],
    ("2007:trainval+2012:trainval", "2007:trainval+2012:trainval"),
    ("""['3', "null", '/data #1']""", ["3", "null", "/data #1"]),
]


@pytest.mark.parametrize(("text", "value"), CORE_SCHEMA)
def test_values_follow_the_core_schema(text: str, value: YamlValue) -> None:
    parsed = parse_value(text, "here")
    assert repr(parsed).replace("-0.0", "0.0") == repr(value)  # == would take 1 for True and 7 for 7.0


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", "{}:3:1: duplicate key 'a', first on line 1; remove one of them"),
        ("s:\n  x: 1\n  'x': 1\n", "{}:3:3: duplicate key 'x', first on line 2; remove one of them"),
        (
            "a: [1\n",
            "{}:2:1: not valid YAML: expected ',' or ']', but got '<stream end>' (while parsing a flow sequence)",
        ),
        ("1: a\n", "{}:1:1: expected text as a key, got 1"),
        ("[a]: b\n", '{}:1:1: expected text as a key, got ["a"]'),
        ("a: 1\n---\nb: 1\n", "{}:2:1: a second document begins; expected one"),
        ("- a\n", '{}: expected a mapping such as `seed: 0` at the top, got ["a"]'),
        ("", "{}: expected a mapping such as `seed: 0` at the top, got nothing"),
        ("# only a comment\n", "{}: expected a mapping such as `seed: 0` at the top, got nothing"),
        ("b: \x07\n", "{}: not valid YAML: unacceptable character #x0007: special characters are not allowed"),
        ('a: "\\0"\n', "{}:1:4: a NUL or half a surrogate pair is not text, got '\\x00'"),
        ('a: "\\ud800"\n', "{}:1:4: a NUL or half a surrogate pair is not text, got '\\ud800'"),
        ("a: 9223372036854775808\n", "{}:1:4: '9223372036854775808' is a whole number beyond 64 bits"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: str, line: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert str(caught.value) == line.replace("{}", str(path), 1)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "yolo_voc.yaml").write_bytes("a: é".encode("latin-1"))
    for path, message in (
        (tmp_path, "cannot be read as a configuration file: Is a directory"),
        (tmp_path / "yolo_voc.yaml", "yolo_voc.yaml: not UTF-8 text at byte 3; save the file as UTF-8$"),
        (tmp_path / "yolo_vco.yaml", r"yolo_vco.yaml: no such configuration file \(did you mean 'yolo_voc.yaml'\?\)$"),
        (tmp_path / "none" / "a\nb.yaml", r"a\\nb\.yaml: no such configuration file$"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_yaml(path)


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes("\ufeffa: é\r\nb: [1, 2]\r\n".encode())
    assert read_yaml(path) == {"a": "é", "b": [1, 2]}


@pytest.mark.parametrize("text", ["/data #1", "#", "3 # three", "'a' # b"])
def test_a_comment_never_swallows_a_part_of_an_override(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^override x: '#' begins a comment in YAML; put the value in quotes"):
        parse_value(text, "override x")


@settings(deadline=None)
@given(st.one_of(st.text(), st.text(alphabet="ab1: -[]{},&*!|>'\"%#\n\t\\xU0.e~?@`", max_size=40)))
def test_any_text_is_a_value_or_a_config_error(text: str) -> None:
    message = "here: "
    try:
        parse_value(text, "here")
    except ConfigError as error:
        message = str(error)
    assert message.startswith("here: ")
    assert message.isprintable()
