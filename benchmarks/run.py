"""Runs comparisons with peers one after the other and writes their tables into docs/benchmarks.md.

    python -m benchmarks.run                             all of them: what `make bench` does
    python -m benchmarks.run --only loader predictor     some; the others' tables stay as they are
    python -m benchmarks.run --small                     little work of each, nothing is written: does everything run?

Each comparison runs in a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib import import_module

from benchmarks.comparison import ROOT, Row, measured_on, spread, table, write_results

PAGE = ROOT / "docs" / "benchmarks.md"
MODULES = {
    "training": ("yolo_step", "bccd_epoch", "unet_step", "rcnn_step"),
    "monitors": ("monitors",),
    "loader": ("loader",),
    "predictor": ("predictor",),
    "exported": ("exported",),
    "postprocessing": ("postprocessing",),
    "metrics": ("coco_evaluation", "confusion_matrix"),
    "coco_file": ("coco_file",),
    "import_time": ("import_time",),
}
COMPARISONS = {name: module for module, names in MODULES.items() for name in names}
"""Comparison → the module that has it as a function, which yields rows: of ``blocks`` blocks, of ``small`` work."""


def main() -> int:
    """Measure and write; 1 where a comparison failed, whose old figures then stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=[*COMPARISONS], metavar="NAME")
    parser.add_argument("--blocks", type=int, help="measured blocks of each side (default: that of each comparison)")
    parser.add_argument("--small", action="store_true", help="little work in one block; nothing is written")
    arguments = parser.parse_args()
    blocks = arguments.blocks or (1 if arguments.small else None)
    if len(arguments.only) == 1:
        measure(arguments.only[0], blocks, arguments.small)
        return 0
    options = ["--small"] * arguments.small + ([f"--blocks={blocks}"] if blocks else [])
    command = [sys.executable, "-m", "benchmarks.run", *options, "--only"]
    failed = [name for name in arguments.only if subprocess.run([*command, name], cwd=ROOT).returncode]
    if failed:
        print(f"failed, and left as they were: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def measure(name: str, blocks: int | None, small: bool) -> None:
    """Measure in this process; print each row as it comes."""
    print(f"== {name}", flush=True)
    comparison = getattr(import_module(f"benchmarks.{COMPARISONS[name]}"), name)
    rows: list[Row] = []
    for row in comparison(small=small, **({"blocks": blocks} if blocks else {})):
        rows.append(row)
        print(f"{row.stage} | {row.work} | {row.peer}", flush=True)
        print(f"  ours {spread(row.ours)} {row.unit}, theirs {spread(row.theirs)} {row.unit}", flush=True)
        print(f"  ratio {spread(row.ratios)}; target {row.verdict or 'none'}; {row.note}", flush=True)
    place = f"`{name}`: {measured_on()}"
    print(place, flush=True)
    if not small:
        write_results(PAGE, name, f"{place}\n\n{table(rows)}")


if __name__ == "__main__":
    sys.exit(main())
