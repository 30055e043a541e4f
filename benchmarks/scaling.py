"""How each stage grows: its time at several sizes of one quantity, everything else held, and the exponent between them.

    python -m benchmarks.scaling            print the table
    python -m benchmarks.scaling --write    write it into docs/scaling.md

An exponent of 1 is growth in proportion; n log n measures as about 1.1.  Times are medians of three, two threads.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks import scaling_stages as stages
from benchmarks.measured_on import machine, versions
from benchmarks.peer_process import ROOT
from benchmarks.table import between_marks

PAGE = ROOT / "docs" / "scaling.md"
REPETITIONS = 3
THREADS = 2


@dataclass(frozen=True)
class Growth:
    """Seconds of a stage at several sizes of one quantity."""

    stage: str
    quantity: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def exponent(self) -> float:
        """Slope of log seconds over log size between the two largest sizes, where constant costs weigh least."""
        (small, large), (before, after) = self.sizes[-2:], self.seconds[-2:]
        return math.log(after / before) / math.log(large / small)

    @property
    def line(self) -> str:
        """A line of the table."""
        points = ", ".join(
            f"{size}: {_in_words(seconds)}" for size, seconds in zip(self.sizes, self.seconds, strict=True)
        )
        return f"| {self.stage} | {self.quantity} | {points} | {self.exponent:.2f} |"


Prepare = Callable[[int], Callable[[], object]]
"""Size → the work to be timed; what it needs is made beforehand."""


def growth(stage: str, quantity: str, sizes: Sequence[int], prepare: Prepare) -> Growth:
    """Time a stage at each size.

    Args:
        stage: its name.
        quantity: what grows.
        sizes: ascending.
        prepare: makes the work of a size.
    """
    seconds = []
    for size in sizes:
        work = prepare(size)
        work()
        seconds.append(statistics.median(_seconds(work) for _ in range(REPETITIONS)))
    return Growth(stage, quantity, tuple(sizes), tuple(seconds))


def measured(folder: Path) -> Iterator[Growth]:
    """Every stage and quantity, one after the other; ``folder`` takes the files that are made."""
    yield growth("COCO file, load", "images", (2000, 8000, 32000), partial(stages.coco_index, folder))
    yield growth("COCO file, load", "objects of an image", (5, 20, 80), partial(stages.coco_objects, folder))
    yield growth("order of an epoch", "images", (10_000, 100_000, 1_000_000), stages.epoch_order)
    yield growth("loader, one process", "image side, pixels", (160, 320, 640), partial(stages.loading, folder))
    yield growth("loader, one process", "objects of an image", (20, 200, 2000), partial(stages.loading_objects, folder))
    yield growth("network, forward", "image side, pixels", (160, 320, 640), stages.network)
    yield growth("network, forward", "images of a batch", (2, 4, 8), stages.network_batch)
    yield growth("assignment and loss", "objects of an image", (2, 20, 200), stages.loss)
    yield growth("assignment and loss", "classes", (8, 80, 800), stages.loss_classes)
    yield growth("decode and NMS", "candidates above threshold", (1000, 10_000, 100_000), stages.suppression)
    yield growth("decode and NMS", "classes, half the scores above threshold", (2, 8, 32), stages.suppression_classes)
    yield growth("COCO evaluation", "images, 50 detections each", (250, 1000, 4000), stages.evaluation)
    yield growth("COCO evaluation", "detections of an image", (20, 80, 320), stages.evaluation_detections)
    yield growth("COCO evaluation", "classes", (5, 20, 80), stages.evaluation_classes)
    yield growth("confusion matrix", "pixels", (2**18, 2**20, 2**22), stages.confusion)
    yield growth("confusion matrix", "classes", (2, 20, 200), stages.confusion_classes)


def main() -> int:
    """Measure, print, and write where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table into docs/scaling.md")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    lines = ["| stage | grows with | seconds | exponent |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for found in measured(Path(folder)):
            lines.append(found.line)
            print(found.line, flush=True)
    if arguments.write:
        on, packages = machine(), versions()
        place = f"{on['cores']} cores of {on['processor']}, {on['date']}, commit {on['commit']}"
        place += f"; torch {packages['torch']}, OpenCV {packages.get('opencv-python-headless', '-')}."
        text = between_marks(PAGE.read_text(encoding="utf-8"), f"{place}\n\n" + "\n".join(lines))
        PAGE.write_text(text, encoding="utf-8")
    return 0


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _in_words(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


if __name__ == "__main__":
    sys.exit(main())
