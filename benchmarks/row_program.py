"""The command line that every comparison has: ``python -m benchmarks.<name> [--blocks N] [--json FILE]``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.in_turn import Row, spread


def run_rows(rows: Callable[[int], Iterable[Row]], doc: str | None, blocks: int) -> None:
    """Measure, print each row as it comes, and write all of them as JSON where that is asked for.

    Args:
        rows: yields the comparisons, each of so many blocks a side.
        doc: of the module, for ``--help``.
        blocks: default number of blocks.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=blocks, help="measured blocks of each side (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the rows here, too")
    arguments = parser.parse_args()
    found = []
    for row in rows(arguments.blocks):
        found.append(row.to_dict())
        wanted = "" if row.wanted is None else f", wanted {row.wanted:g}: {'reached' if row.reached else 'MISSED'}"
        print(f"{row.stage} | {row.work} | {row.peer}", flush=True)
        print(f"  ours {spread(row.ours)} {row.unit}, theirs {spread(row.theirs)} {row.unit}", flush=True)
        print(f"  ratio {spread(row.ratios)}{wanted}{'; ' + row.note if row.note else ''}", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
