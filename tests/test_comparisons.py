"""The frame of the comparisons with peers: blocks in turn, ratios, the table, a peer behind a pipe, a held training."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.comparison import ROOT, Row, in_turn, table, write_results
from benchmarks.peers.process import PEER_PYTHON, PeerProcess, yolo_labels
from benchmarks.peers.serve import PacedTraining
from benchmarks.run import COMPARISONS, PAGE

ROW = Row("step", "8 images", "peer 1.0", (1.0, 2.0, 4.0), (3.0, 4.0, 4.0), "s", target=2.0, note="see below")
"""Ratios by hand: 3, 2, 1; their median is the target."""


def test_sides_follow_each_other_in_turn_and_warm_up_is_not_counted() -> None:
    calls: list[str] = []

    def side(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    ours, theirs = in_turn(lambda: side("a"), lambda: side("b"), blocks=2)
    assert calls == ["b", "a", "a", "b", "b", "a"]
    assert (ours, theirs) == ((3.0, 6.0), (4.0, 5.0))


def test_table_takes_the_place_between_the_marks(tmp_path: Path) -> None:
    assert ROW.ratios == (3.0, 2.0, 1.0)  # of neighbouring blocks
    assert yolo_labels([[10.0, 20.0, 30.0, 60.0]], [3], hw=(100, 200)) == "3 0.100000 0.400000 0.100000 0.400000\n"
    text = table(
        [ROW, Row("nms", "all", "peer", (1.0,), (2.0,), "ms", target=9.0), Row("io", "x", "y", (1.0,), (1.0,), "s")]
    )
    assert "| step [1] | 8 images | peer 1.0 | 2 (1–4) s | 4 (3–4) s | **2.00** (1.00–3.00) | 2: reached |" in text
    assert "| nms | all | peer | 1 (1–1) ms | 2 (2–2) ms | **2.00** (2.00–2.00) | 9: **missed** |" in text
    assert text.endswith("|  |\n\n1. see below")
    page = tmp_path / "page.md"
    marked = "head\n<!-- nms: written by a program -->{}<!-- end of nms -->\ntail\n"
    page.write_text(marked.format("\nold\n"), encoding="utf-8")
    for _ in range(2):
        write_results(page, "nms", "new – ")
        assert page.read_text(encoding="utf-8") == marked.format("\n\nnew – \n\n")
    with pytest.raises(ValueError, match="no place for the results"):
        write_results(page, "other", "new")


def test_every_comparison_has_its_program_and_its_place_in_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, module in COMPARISONS.items():
        program = (ROOT / "benchmarks" / f"{module}.py").read_text(encoding="utf-8")
        assert f"def {name}(blocks: int = " in program
        assert text.count(f"<!-- {name}: written by a program -->") == text.count(f"<!-- end of {name} -->") == 1


def test_a_peer_answers_behind_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(
        "from benchmarks.peers.serve import serve\n"
        "def double(number):\n    print('a peer that chatters')\n    return 2 * number\n"
        "serve(double)\n"
    )
    monkeypatch.setenv(PEER_PYTHON, sys.executable)
    with PeerProcess(worker=str(worker)) as peer:
        assert peer.ask("double", number=21) == 42
        with pytest.raises(RuntimeError, match="KeyError"):
            peer.ask("nothing")
        assert peer.ask("double", number=1) == 2
    worker.write_text("raise SystemExit('a peer that will not run')")
    with PeerProcess(worker=str(worker)) as peer, pytest.raises(RuntimeError, match=r"ended\n.*will not run"):
        peer.ask("double", number=1)
    monkeypatch.setenv(PEER_PYTHON, str(tmp_path / "python"))
    with pytest.raises(RuntimeError, match="make bench"):
        PeerProcess()


def test_a_training_waits_between_steps() -> None:
    steps: list[int] = []

    def train(paced: PacedTraining) -> None:
        for step in range(5):
            paced.before()
            steps.append(step)
            paced.after()

    training = PacedTraining(train)
    assert 0 <= training.advance(2) < 1
    assert steps == [0, 1]
    training.advance(3)
    assert steps == [0, 1, 2, 3, 4]
    with pytest.raises(RuntimeError, match="the training has ended"):
        training.advance(1)
