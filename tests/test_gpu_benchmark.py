"""The benchmark for a GPU, on the CPU: that each of its parts runs, and what becomes of one that does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_parts import NETWORKS, PARTS, Options, Part, Row, Steps


def rows_in(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
def test_every_part_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--cpu", "--small", "--out", f"{tmp_path}/gpu.json"]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1], env={**os.environ, "OMP_NUM_THREADS": "1"})
    rows = rows_in(tmp_path / "gpu.json")
    assert [row["note"] for row in rows if row["note"].startswith("error")] == []
    assert [row["part"] for row in rows if row["what"] == "part"] == list(PARTS)
    table = (tmp_path / "gpu.md").read_text(encoding="utf-8").splitlines()
    assert len(table) == 2 + len(rows)
    values = {(row["part"], row["what"]): row["value"] for row in rows}
    assert values["resume", "stopped and resumed"] == 0  # on a CPU to the bit
    assert values["ddp", "DDP"] == 0
    assert values["fsdp", "a step by fully_shard"] == pytest.approx(0, abs=1e-5)


def _fails(options: Options) -> Iterator[Row]:
    yield Row("begun", 1.0, "s")
    raise ValueError("no\nsuch kernel")


def _hangs(options: Options) -> Iterator[Row]:
    yield Row("begun", 2.0, "s")
    time.sleep(600)


def _dies(options: Options) -> Iterator[Row]:
    yield Row("begun", 3.0, "s")
    os._exit(7)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
@pytest.mark.parametrize(
    ("part", "note"),
    [
        (_fails, "error: ValueError: no such kernel"),
        (_hangs, "error: it was not over in 1 s"),
        (_dies, "error: its process has ended with exit code 7"),
    ],
    ids=["fails", "hangs", "dies"],
)
def test_a_part_that_is_not_over_is_a_row_and_the_next_one_runs(
    part: Callable[[Options], Iterator[Row]], note: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # which `main` sets, for its process
    monkeypatch.setitem(PARTS, "peak", Part(part, 1.0))
    monkeypatch.setitem(PARTS, "machine", Part(lambda options: iter([Row("after")]), 30.0))
    gpu.main(["--cpu", "--small", "--only", "peak", "machine", "--out", str(tmp_path / "gpu.json")])
    rows = [row for row in rows_in(tmp_path / "gpu.json") if row["what"] != "part" or row["note"]]
    assert [(row["part"], row["what"]) for row in rows] == [("peak", "begun"), ("peak", "part"), ("machine", "after")]
    assert rows[1]["note"] == note


def test_a_step_is_that_of_training_with_and_without_the_guard(tmp_path: Path) -> None:
    options, ends = Options("cpu", True, tmp_path), []
    for guarded in (True, False):
        steps = Steps(NETWORKS["unet"], options, 2)
        before = torch.cat([p.detach().flatten() for p in steps.parameters])
        steps(guarded=guarded)
        ends.append(torch.cat([p.detach().flatten() for p in steps.parameters]))
        assert not torch.equal(before, ends[-1])
    assert torch.equal(*ends)
