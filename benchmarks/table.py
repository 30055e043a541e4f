"""The figures of the comparisons as a section of docs/benchmarks.md."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.in_turn import Row, spread

BEGIN = "<!-- written by a program of benchmarks/; changes made by hand are lost from here -->"
END = "<!-- to here -->"

_HEAD = """| stage | work | peer | detseg | peer's | ratio, median (lowest–highest) | wanted |
|---|---|---|---|---|---|---|"""


def with_table(page: str, figures: Mapping[str, Any], order: Sequence[str]) -> str:
    """The page with its table of comparisons written anew.

    Args:
        page: the text, with the two marks that the table stands between.
        figures: by comparison: machine, versions, rows.
        order: of the comparisons.

    Raises:
        ValueError: the page lacks the marks.
    """
    return between_marks(page, table([name for name in order if name in figures], figures))


def between_marks(page: str, section: str) -> str:
    """The page with another section between its marks.

    Raises:
        ValueError: the page lacks the marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no place for the table: expected the lines {BEGIN!r} and {END!r}")
    return f"{before}{begin}\n\n{section}\n\n{end}{after}"


def table(names: Sequence[str], figures: Mapping[str, Any]) -> str:
    """The section in Markdown: who was measured where, the table, the notes of its rows."""
    lines, notes = [_HEAD], []
    for name in names:
        for row in (Row.from_dict(data) for data in figures[name]["rows"]):
            if row.note:
                notes.append(row.note)
            lines.append(_line(row, len(notes) if row.note else None))
    parts = [_measured_on(names, figures), "\n".join(lines)]
    if notes:
        parts.append("\n".join(f"{number}. {note}" for number, note in enumerate(notes, start=1)))
    return "\n\n".join(parts)


def _line(row: Row, note: int | None) -> str:
    wanted = "" if row.wanted is None else f"{row.wanted:g}: {'reached' if row.reached else '**missed**'}"
    ratio = f"**{statistics.median(row.ratios):.2f}** ({min(row.ratios):.2f}–{max(row.ratios):.2f})"
    stage = row.stage if note is None else f"{row.stage} [{note}]"
    cells = [stage, row.work, row.peer, f"{spread(row.ours)} {row.unit}", f"{spread(row.theirs)} {row.unit}"]
    return "| " + " | ".join([*cells, ratio, wanted]) + " |"


def _measured_on(names: Sequence[str], figures: Mapping[str, Any]) -> str:
    """One sentence for each machine and set of versions that figures were measured with."""
    groups: dict[str, list[str]] = {}
    for name in names:
        machine, versions = figures[name]["machine"], figures[name]["versions"]
        packages = ", ".join(f"{package} {version}" for package, version in versions.items())
        computer = f"{machine['cores']} cores of {machine['processor']}, {machine['memory']}, {machine['system']}"
        place = f"{computer}; {packages}; {machine['date']}, commit {machine['commit']}"
        groups.setdefault(place, []).append(name)
    return "\n\n".join(f"`{'`, `'.join(group)}`: {place}." for place, group in groups.items())
