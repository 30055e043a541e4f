"""The table of the exports: what works, what does not, and what was measured before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.exports import key_of, read_rows, table

KEY = {"run": "cells", "format": "onnx", "precision": "fp32", "cpu": "AVX2", "threads": 2}


def test_rows_come_back_as_a_table(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [{"metric": "AP", "original": 0.5, "change": -0.002, "low": -0.01, "high": 0.003}]
    changes.append({"metric": "mask_AP", "original": 0.25, "change": -0.011, "low": None, "high": None})
    said = {"changes": changes, "box_error": 0.5, "bytes": 2_500_000}
    times = {f"batch {batch}": {"ours": [2.0, 4.0], "eager": [8.0, 8.0]} for batch in (1, 8)}
    works: dict[str, Any] = {**KEY, "model": "yolo", "certificate": said, **times}
    fails = {**KEY, "model": "yolo", "precision": "int8", "error": "no such"}
    file = tmp_path / "rows.jsonl"
    assert read_rows(file) == []
    file.write_text("".join(json.dumps(row) + "\n" for row in (works, fails)))
    rows = read_rows(file)
    assert [key_of(row) for row in rows] == [("cells", "onnx", precision, "AVX2", 2) for precision in ("fp32", "int8")]
    first, second, _, beyond, note = table(rows).splitlines()[2:]
    assert (
        "| AP 0.500; mask_AP 0.250 | -0.0020 (-0.0100 to +0.0030); -0.0110 ² | 0.5 | 2.5 | 3 (2–4), 8 (8–8), **3.00** "
        in first
    )
    assert beyond.startswith("² beyond the default tolerance of 0.01")
    assert "no such switch" in first
    assert "fails [1]" in second
    assert first.count("|") == second.count("|")
    assert note == "1. yolo (cells), onnx, int8: no such"
