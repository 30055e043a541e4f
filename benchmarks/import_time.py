"""What imports take in a fresh process, beside ``import torchvision``; all files lie in the system's cache.

``import detseg`` loads public names on first use; what a predictor and a training need is measured, too.

    python -m benchmarks.import_time
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from benchmarks.in_turn import Block, Row, in_turn
from benchmarks.row_program import run_rows

ROOT = Path(__file__).parents[1]

PEER = "import torchvision"
WANTED = {"import detseg": 1 / 1.1}
"""Least ratio of the peer's time to ours."""

STATEMENTS = (
    "import detseg",
    "from detseg import load_predictor",
    "import detseg.training.run",
    "from detseg.cli.train import main; main(['--help'])",
)
NAMES = (*STATEMENTS[:-1], "python tools/train.py --help")


def rows(blocks: int) -> Iterator[Row]:
    """One row for each statement; the interpreter's own start is in both times."""
    for name, statement in zip(NAMES, STATEMENTS, strict=True):
        ours, theirs = in_turn(_process(statement), _process(PEER), blocks)
        peer = f"{PEER} ({version('torchvision')})"
        yield Row("start-up", name, peer, ours, theirs, "s", WANTED.get(name))


def _process(statement: str) -> Block:
    def block() -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begin

    return block


if __name__ == "__main__":
    run_rows(rows, __doc__, blocks=3)
