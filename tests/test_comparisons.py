"""The frame of the comparisons with peers: blocks in turn, ratios, the table, a peer behind a pipe."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.in_turn import Row, in_turn, spread, timed
from benchmarks.peer_process import PEER_PYTHON, PeerProcess
from benchmarks.run import COMPARISONS, FIGURES, PAGE, ROOT
from benchmarks.table import BEGIN, END, with_table

ROW = Row("step", "8 images", "peer 1.0", ours=(1.0, 2.0, 4.0), theirs=(3.0, 4.0, 4.0), unit="s", wanted=2.0)
"""Ratios by hand: 3, 2, 1; their median is what was wanted."""

ON = {"machine": {"processor": "P", "cores": "2", "memory": "4 GiB", "system": "Linux", "date": "d", "commit": "c"}}


def test_sides_follow_each_other_in_turn_and_warm_up_is_not_counted() -> None:
    calls: list[str] = []

    def side(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    ours, theirs = in_turn(lambda: side("a"), lambda: side("b"), blocks=2)
    assert calls == ["b", "a", "a", "b", "b", "a"]
    assert (ours, theirs) == ((3.0, 6.0), (4.0, 5.0))


def test_ratios_are_of_neighbouring_blocks() -> None:
    assert ROW.ratios == (3.0, 2.0, 1.0)
    assert ROW.reached is True
    assert Row.from_dict({**ROW.to_dict(), "wanted": 2.1}).reached is False
    assert spread([3.0, 1.0, 2.0]) == "2 (1–3)"
    assert 0 <= timed(lambda: None, units=4)() < 1


def test_table_takes_the_place_between_the_marks() -> None:
    row = {**ROW.to_dict(), "note": "what a reader must know"}
    figures = {"nms": {**ON, "versions": {"torch": "2"}, "rows": [row, {**row, "wanted": 9.0, "note": ""}]}}
    page = with_table(f"head\n{BEGIN}\nold\n{END}\ntail\n", figures, ("absent", "nms"))
    assert page.startswith("head\n")
    assert page.endswith("\ntail\n")
    assert "old" not in page
    assert "| step [1] | 8 images | peer 1.0 | 2 (1–4) s | 4 (3–4) s | **2.00** (1.00–3.00) | 2: reached |" in page
    assert "| 9: **missed** |" in page
    assert "1. what a reader must know" in page
    assert "`nms`: 2 cores of P, 4 GiB, Linux; torch 2; d, commit c." in page
    assert with_table(page, figures, ("nms",)) == page
    with pytest.raises(ValueError, match="no place for the table"):
        with_table("nothing", figures, ("nms",))


def test_the_page_has_its_place_and_every_comparison_its_program() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert [name for name in COMPARISONS if not (ROOT / "benchmarks" / f"{name}.py").exists()] == []
    assert FIGURES.exists()


def test_a_peer_answers_behind_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'benchmarks' / 'peers')!r})\n"
        "from serve import serve\n"
        "def double(number):\n    print('a peer that chatters')\n    return 2 * number\n"
        "serve({'double': double})\n"
    )
    monkeypatch.setenv(PEER_PYTHON, sys.executable)
    with PeerProcess(str(worker)) as peer:
        assert peer.ask("double", number=21) == 42
        with pytest.raises(RuntimeError, match="KeyError"):
            peer.ask("nothing")
        assert peer.ask("double", number=1) == 2


def test_a_missing_environment_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PEER_PYTHON, str(tmp_path / "python"))
    with pytest.raises(RuntimeError, match="make bench"):
        PeerProcess("worker.py")
