"""What imports take in a fresh process, beside ``import torchvision``; all files lie in the system's cache."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version

from benchmarks.comparison import ROOT, Row, in_turn, timed

STATEMENTS = {name: name for name in ("import detseg", "from detseg import load_predictor")}
STATEMENTS["python tools/train.py --help"] = "from detseg.cli.train import train; train(['--help'])"


def import_time(blocks: int = 3, small: bool = False) -> Iterator[Row]:
    """One row for each statement; the interpreter's own start is in both times."""
    peer = "import torchvision"
    for name, statement in STATEMENTS.items():
        times = in_turn(timed(partial(_run, statement)), timed(partial(_run, peer)), blocks, warm_up=0 if small else 1)
        target = 1 / 1.1 if name == "import detseg" else None
        yield Row("start-up", name, f"{peer} ({version('torchvision')})", *times, "s", target)


def _run(statement: str) -> None:
    subprocess.run([sys.executable, "-c", statement], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
