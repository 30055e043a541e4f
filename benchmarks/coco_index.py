"""Loading a COCO file of 118 000 images and 860 000 annotations with polygons, beside ``pycocotools.COCO``.

Ours checks the file and that all images are there; pycocotools does not. It leaves polygons in the file until an image
is used; pycocotools' keeps them as Python numbers. Each load has a process of its own. The file is made up and lies in
the system's cache of files.

    python -m benchmarks.coco_index
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from benchmarks.in_turn import Row, in_turn
from benchmarks.large_coco import ANNOTATIONS, IMAGES, write_large_coco
from benchmarks.row_program import run_rows

ROOT = Path(__file__).parents[1]

LOADS = {"masks": ("polygons", 4.0), "boxes": ("boxes", 5.0)}
"""What is loaded: its name, and how many times faster than the peer it shall be."""

Values = dict[str, float]


def rows(blocks: int, images: int = IMAGES, annotations: int = ANNOTATIONS) -> Iterator[Row]:
    """Time and memory of loading with and without polygons, and what loader processes add."""
    work = f"{images // 1000} k images, {annotations // 1000} k annotations"
    with tempfile.TemporaryDirectory() as scratch:
        write_large_coco(Path(scratch), images, annotations)
        yield from _rows_of(Path(scratch), work, blocks)


def _rows_of(folder: Path, work: str, blocks: int) -> Iterator[Row]:
    ours: dict[str, list[Values]] = {load: [] for load in LOADS}
    theirs: list[Values] = []

    def load_ours() -> float:
        for load, values in ours.items():
            values.append(_run("ours", folder, load))
        return 0.0

    def load_theirs() -> float:
        theirs.append(_run("pycocotools", folder, "masks"))
        return 0.0

    def row(stage: str, key: str, load: str, unit: str, wanted: float) -> Row:
        mine, others = (tuple(values[key] for values in side) for side in (ours[load], theirs))
        return Row(f"COCO file: {stage}", work, f"pycocotools {version('pycocotools')}", mine, others, unit, wanted)

    in_turn(load_ours, load_theirs, blocks, warm_up=0)
    for load, (name, wanted) in LOADS.items():
        yield row(f"load with {name}", "seconds", load, "s", wanted)
    yield row("most memory while loading", "peak", "masks", "MB", 3)
    yield row("memory once loaded", "after", "masks", "MB", 5)
    for method in ("fork", "spawn"):
        values = _run(method, folder, "masks")
        yield Row(
            f"COCO file: each of 8 loader processes adds ({method})",
            work,
            "5 % of the main process",
            (max(values["added"], 0.1),),
            (0.05 * values["main"],),
            "MB",
            1,
            f"the main process has {values['main']:.0f} MB, of which the annotations are {values['size']:.0f} MB",
        )


def _run(which: str, folder: Path, content: str) -> Values:
    command = [sys.executable, "-m", "benchmarks.index_process", which, str(folder), content]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    values: Values = json.loads(output.splitlines()[-1])
    return values


if __name__ == "__main__":
    run_rows(rows, __doc__, blocks=3)
