"""Our time beside a peer's on the same work: blocks of both in turn, their ratios, and the table of them.

Blocks of both sides follow each other (A B B A), so that whatever else the machine does falls on both.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("DETSEG_DATA", ROOT.parent / "shared" / "data"))

Block = Callable[[], float]
"""Does a block of work and returns what it took, in the unit of the row."""


@dataclass(frozen=True)
class Row:
    """One comparison, as it stands in the table.

    Attributes:
        stage, work, peer: what was measured, on which work, and name, version and precision of the peer.
        ours, theirs: of each block, in ``unit`` (s, ms, MB); less is better.
        target: least median of the ratios that the project wants to reach; None: none.
        note: what a reader must know besides.
    """

    stage: str
    work: str
    peer: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    unit: str
    target: float | None = None
    note: str = ""

    @property
    def ratios(self) -> tuple[float, ...]:
        """Theirs / ours, for each pair of neighbouring blocks."""
        return tuple(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))

    @property
    def verdict(self) -> str:
        """The target, and whether the median ratio reaches it; empty without a target."""
        reached = self.target is not None and statistics.median(self.ratios) >= self.target
        return "" if self.target is None else f"{self.target:.2g}: {'reached' if reached else '**missed**'}"


def in_turn(ours: Block, theirs: Block, blocks: int, warm_up: int = 1) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What so many blocks of both sides take, after others that warm up; which side begins changes with every pair."""
    mine: list[float] = []
    other: list[float] = []
    for number in range(-warm_up, blocks):
        sides = [(ours, mine), (theirs, other)]
        for block, taken in sides if number % 2 == 0 else reversed(sides):
            gc.collect()
            value = block()
            if number >= 0:
                taken.append(value)
    return tuple(mine), tuple(other)


def timed(work: Callable[[], object], units: int = 1, scale: float = 1.0) -> Block:
    """A block that calls ``work`` and gives ``scale`` × its seconds for each of ``units`` units of work."""

    def block() -> float:
        begin = time.perf_counter()
        work()
        return (time.perf_counter() - begin) * scale / units

    return block


def spread(values: Sequence[float], form: str = ".3g") -> str:
    """Median and, in brackets, lowest and highest."""
    low, middle, high = (
        f"{value:{form if value < 100 else '.0f'}}" for value in (min(values), statistics.median(values), max(values))
    )
    return f"{middle} ({low}–{high})"


def table(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown, and their notes below it."""
    lines = ["| measured | workload | peer | detseg | peer's | ratio, median (min–max) | target |", "|---" * 7 + "|"]
    notes: list[str] = []
    for row in rows:
        notes += [row.note] if row.note else []
        stage = f"{row.stage} [{len(notes)}]" if row.note else row.stage
        times = (f"{spread(row.ours)} {row.unit}", f"{spread(row.theirs)} {row.unit}")
        median, _, ends = spread(row.ratios, ".2f").partition(" ")
        cells = [stage, row.work, row.peer, *times, f"**{median}** {ends}", row.verdict]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{number}. {note}" for number, note in enumerate(notes, start=1))]).strip()


def measured_on() -> str:
    """Machine, versions, date and commit; a + behind the commit: the working tree differs from it."""
    from detseg.benchmark.results import machine_facts  # imports torch, which some programs must do later

    facts: dict[str, Any] = machine_facts()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0
    packages = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
    git = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True)
    computer = f"{facts['cores']} cores of {facts['processor']}, {memory:.0f} GiB, {platform.system()}"
    return f"{computer}; {packages}; {datetime.now(UTC).date()}, commit {git.stdout.strip() or 'unknown'}."


def write_results(page: Path, name: str, results: str) -> None:
    """Replace what stands between the marks of a comparison in a page; raises a ValueError if it lacks them."""
    first, last = f"<!-- {name}: written by a program -->", f"<!-- end of {name} -->"
    before, begin, rest = page.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"{page}: it has no place for the results; expected the lines {first!r} and {last!r}")
    page.write_text(f"{before}{begin}\n\n{results}\n\n{end}{after}", encoding="utf-8")
