"""Our time beside a peer's, on the same work.

Blocks of both follow each other in turn (A B A B), so that what else the machine does falls on both.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Block = Callable[[], float]
"""Does a block of work and returns what it took, in the unit of the row."""


@dataclass(frozen=True)
class Row:
    """One comparison, as it stands in the table.

    Attributes:
        stage: what was compared.
        work: on which work, in a few words.
        peer: name and version of the peer, and its precision where that differs.
        ours: of each block, in ``unit``; less is better.
        theirs: likewise, of the blocks in between.
        unit: of the numbers, `s` or `ms` for a unit of work, `MB` for memory.
        wanted: least ratio theirs / ours that the project has set itself; None: none.
        note: what a reader must know besides.
    """

    stage: str
    work: str
    peer: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    unit: str
    wanted: float | None = None
    note: str = ""

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times less than the peer each of our blocks took than the peer's block beside it."""
        return tuple(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))

    @property
    def reached(self) -> bool | None:
        """Whether the median ratio is what was wanted; None where nothing was."""
        return None if self.wanted is None else statistics.median(self.ratios) >= self.wanted

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Row:
        """The row of a ``to_dict``, also after JSON."""
        return cls(**{**data, "ours": tuple(data["ours"]), "theirs": tuple(data["theirs"])})


def in_turn(ours: Block, theirs: Block, blocks: int, warm_up: int = 1) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Run blocks of both sides in turn; which side begins changes with every pair.

    Args:
        ours: a block of ours.
        theirs: the same work by the peer.
        blocks: measured blocks of each side.
        warm_up: blocks of each side before them.

    Returns:
        what the blocks of both sides took.
    """
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


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median and, in brackets, lowest and highest."""
    low, middle, high = (f"{value:.{digits}g}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low}–{high})"
