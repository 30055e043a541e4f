"""What a benchmark finds: numbers with their repetitions, stages that were left out, facts."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """One thing that was timed or counted.

    Attributes:
        stage: the stage that it belongs to, as ``--stages`` names it.
        name: what was measured.
        unit: of the values: ``ms``, ``ms/image``, ``images/s``, ``s``, ...
        values: of each repetition; at least one.
        share: of the whole that it is a part of, in [0, 1]; None: it is no part, or a whole itself.
        note: what a reader must know besides.
    """

    stage: str
    name: str
    unit: str
    values: tuple[float, ...]
    share: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"{self.stage}, {self.name}: expected at least one value")

    @property
    def median(self) -> float:
        """The middle of the repetitions."""
        return statistics.median(self.values)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, the median and the extremes beside all values."""
        return {
            "stage": self.stage,
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "min": min(self.values),
            "max": max(self.values),
            "values": list(self.values),
            "share": self.share,
            "note": self.note,
        }


@dataclass
class Findings:
    """Everything that a benchmark has found so far.

    Attributes:
        measurements: in the order of the table.
        skipped: stages, or parts of them, that were left out, and why.
        facts: what else is known, as plain data: machine, versions, model, data.
    """

    measurements: list[Measurement] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def find(self, stage: str, name: str) -> Measurement | None:
        """The measurement of that name; None: it was not made."""
        return next((m for m in self.measurements if (m.stage, m.name) == (stage, name)), None)

    def median(self, stage: str, name: str) -> float | None:
        """Its median; None: it was not made."""
        found = self.find(stage, name)
        return None if found is None else found.median


def parts_of_whole(
    stage: str, unit: str, rounds: list[dict[str, float]], notes: dict[str, str] | None = None
) -> list[Measurement]:
    """The parts of something that was timed several times, each with its share of the whole.

    Args:
        stage: see ``Measurement``.
        unit: likewise.
        rounds: of each repetition, the values of the parts by name; a part that a repetition lacks took no time in it.
        notes: of some parts.
    """
    names = dict.fromkeys(name for values in rounds for name in values)
    values = {name: tuple(part.get(name, 0.0) for part in rounds) for name in names}
    medians = {name: statistics.median(of_part) for name, of_part in values.items()}
    whole = sum(medians.values()) or 1.0  # of medians: a repetition that was disturbed must not decide
    return [
        Measurement(stage, name, unit, values[name], medians[name] / whole, (notes or {}).get(name, ""))
        for name in names
    ]
