"""The index of a COCO file of 118 000 images and 860 000 annotations with polygons, beside ``pycocotools.COCO``.

Ours checks the file, looks whether all images are there, and finds which masks are empty; pycocotools' does not.  A
first load also writes our cache.  Each load has a process of its own.  The file is made up and lies in the system's
cache of files.

    python -m benchmarks.coco_index
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from benchmarks.in_turn import Row, in_turn
from benchmarks.large_coco import ANNOTATIONS, IMAGES, write_large_coco
from benchmarks.row_program import run_rows
from detseg.data.formats.index_cache import VARIABLE

ROOT = Path(__file__).parents[1]

WORK = f"{IMAGES // 1000} k images, {ANNOTATIONS // 1000} k annotations"

FIRST, CACHED, BOXES = "polygons, first load", "polygons, from the cache", "boxes, first load"
LOADS = {FIRST: ("masks", 3.0), CACHED: ("masks", 20.0), BOXES: ("boxes", None)}
"""What is loaded, and how many times faster than the peer it shall be."""

Values = dict[str, float]


def rows(blocks: int) -> Iterator[Row]:
    """First load with and without polygons, load from the cache, memory, and what loader processes add."""
    with tempfile.TemporaryDirectory() as scratch:
        write_large_coco(Path(scratch))
        yield from rows_of(Path(scratch), blocks)


def rows_of(folder: Path, blocks: int) -> Iterator[Row]:
    """The rows for a folder that holds the file."""
    cache = str(folder / "cache")
    ours: dict[str, list[Values]] = {load: [] for load in LOADS}
    theirs: list[Values] = []

    def load_ours() -> float:
        for load, (content, _) in LOADS.items():
            if load != CACHED:
                shutil.rmtree(cache, ignore_errors=True)
            ours[load].append(_run("ours", folder, content, cache))
        return 0.0

    def load_theirs() -> float:
        theirs.append(_run("pycocotools", folder, "masks", "off"))
        return 0.0

    in_turn(load_ours, load_theirs, blocks, warm_up=0)
    for load, (_, wanted) in LOADS.items():
        yield _row(f"COCO index: {load}", "seconds", ours[load], theirs, "s", wanted)
    yield _row("COCO index: most memory while loading", "peak", ours[FIRST], theirs, "MB", 5)
    yield _row("COCO index: memory once loaded", "after", ours[FIRST], theirs, "MB", 5)
    _run("ours", folder, "masks", cache)  # fills it
    for method in ("fork", "spawn"):
        values = _run(method, folder, "masks", cache)
        yield Row(
            f"COCO index: each of 8 loader processes adds ({method})",
            WORK,
            "5 % of the index",
            (max(values["added"], 0.1),),
            (0.05 * values["size"],),
            "MB",
            1,
            f"the index has {values['size']:.0f} MB",
        )


def _row(stage: str, key: str, ours: list[Values], theirs: list[Values], unit: str, wanted: float | None) -> Row:
    mine, others = (tuple(values[key] for values in side) for side in (ours, theirs))
    return Row(stage, WORK, f"pycocotools {version('pycocotools')}", mine, others, unit, wanted)


def _run(which: str, folder: Path, content: str, cache: str) -> Values:
    command = [sys.executable, "-m", "benchmarks.index_process", which, str(folder), content]
    environment = os.environ | {VARIABLE: cache}
    output = subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    values: Values = json.loads(output.splitlines()[-1])
    return values


if __name__ == "__main__":
    run_rows(rows, __doc__, blocks=3)
