"""Runs the comparisons with peers one after the other and writes their table into docs/benchmarks.md.

    python -m benchmarks.run                     all of them: what `make bench` does
    python -m benchmarks.run --only loader nms   some; the others' figures stay as they are

Each comparison runs in a process of its own.  The figures are kept in docs/benchmarks.json, every block of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measured_on import machine, versions
from benchmarks.peer_process import ROOT
from benchmarks.table import with_table

COMPARISONS = (
    "yolo_step",
    "bccd_epoch",
    "loader",
    "predictor",
    "postprocessing",
    "coco_evaluation",
    "confusion_matrix",
    "coco_index",
    "import_time",
    "unet_step",
    "rcnn_step",
)
"""Modules of this folder, in the order of the table."""

FIGURES = ROOT / "docs" / "benchmarks.json"
PAGE = ROOT / "docs" / "benchmarks.md"


def main() -> int:
    """Measure and write; 1 where a comparison failed, whose old figures then stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=COMPARISONS, metavar="NAME")
    parser.add_argument("--blocks", type=int, help="measured blocks of each side (default: that of each comparison)")
    arguments = parser.parse_args()
    figures: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    failed = []
    for name in COMPARISONS:
        if name not in arguments.only:
            continue
        rows = measure(name, arguments.blocks)
        if rows is None:
            failed.append(name)
            continue
        figures[name] = {"machine": machine(), "versions": versions(), "rows": rows}
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), figures, COMPARISONS), encoding="utf-8")
    if failed:
        print(f"failed, and left as they were: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def measure(name: str, blocks: int | None) -> list[dict[str, Any]] | None:
    """The rows of a comparison; None where it failed.

    Args:
        name: one of ``COMPARISONS``.
        blocks: of each side; None: its default.
    """
    print(f"== {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(file)]
        command += [] if blocks is None else ["--blocks", str(blocks)]
        if subprocess.run(command, cwd=ROOT).returncode:
            return None
        rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        return rows


if __name__ == "__main__":
    sys.exit(main())
