"""A comparison as one HTML page that needs nothing else: no script, no font, no file beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from detseg.draw.page import html_document, html_table, html_text
from detseg.evaluation.compare import Comparison, Difference, over_seeds
from detseg.messages import counted
from detseg.metrics.interface import format_number

_NAME, _WIDTH, _ROW = 170, 560, 24


def page_of(comparisons: Sequence[Comparison], split: str) -> str:
    """The page; ``split``: of which images."""
    parts = [f"<h1>{html_text(comparisons[0].first)}</h1>"]
    for found in comparisons:
        parts += [f"<h2>against {html_text(found.second)}</h2>", f"<p>{html_text(found.verdict)}.</p>"]
        parts += [_numbers(found.numbers), f"<h3>{html_text(found.metric)} by class</h3>", _forest(found.by_class)]
        parts.append('<p class="soft">left: the first is better; right: the second; red: the interval leaves out 0</p>')
        parts.append(_numbers(found.by_class))
        first, second = found.latency_ms
        parts.append(f"<p>An image takes {first:.1f} ms and {second:.1f} ms on this machine, measured in turn.</p>")
        if found.has_groups:
            runs = [(which, ", ".join(own)) for which, own in zip(("first", "second"), found.runs, strict=True)]
            parts += [f"<p>{html_text(found.about_seeds)}</p>", html_table(("", "runs"), runs)]
        if found.changed:
            parts += [
                "<h3>Images that changed most</h3>",
                html_table(("image", "errors of the first", "of the second"), _changed(found)),
            ]
        if found.settings:
            rows = [(name, str(one), str(other)) for name, (one, other) in found.settings.items()]
            parts += ["<h3>Settings that differ</h3>", html_table(("setting", "first", "second"), rows)]
    images = f"{counted(comparisons[0].num_images, 'image')} of {split}"
    what = (
        f"{images}. Intervals of 95 % are for the choice of the images: 1000 resamples, the same ones for both (paired "
        "bootstrap). p: of no difference. Of many classes, one in twenty leaves out 0 by chance (*)."
    )
    if not any(found.has_groups for found in comparisons):
        what += " How much another seed would change is not in it."
    parts.append(f'<p class="soft">{html_text(what)}</p>')
    return html_document(comparisons[0].first, "detseg compare", parts)


def _numbers(differences: dict[str, Difference]) -> str:
    rows = list[tuple[str, ...]]()
    for name, row in differences.items():
        cells = (format_number(row.first), format_number(row.second), _signed(row.second - row.first))
        ends = f"{_signed(row.low)} to {_signed(row.high)}"
        rows.append((f"{name} *" if row.is_clear else name, *cells, ends, format_number(row.p)))
        rows += [] if row.seeds is None else [over_seeds(row.seeds)]
    return html_table(("", "first", "second", "change", "95 % interval", "p"), rows)


def _changed(found: Comparison) -> list[tuple[str, str, str]]:
    return [(name, f"{one:.4g}", f"{other:.4g}") for name, one, other in found.changed]


def _forest(differences: dict[str, Difference]) -> str:
    """The interval of each class as a line, its change as a dot, and where there is no change."""
    rows = {name: row for name, row in differences.items() if not math.isnan(row.low)}
    reach = max((max(abs(row.low), abs(row.high)) for row in rows.values()), default=0.0) or 1.0

    def at(value: float) -> float:
        return _NAME + (_WIDTH - _NAME) * (0.5 + 0.48 * value / reach)

    height = len(rows) * _ROW
    parts = [f'<path d="M{at(0):.1f} 0v{height}" style="stroke: var(--line)"/>']
    for number, (name, row) in enumerate(rows.items()):
        y, change = (number + 0.5) * _ROW, row.second - row.first
        color = "var(--error)" if row.is_clear else "var(--bar)"
        short = name if len(name) <= 24 else f"{name[:23]}…"
        parts.append(
            f"<g><title>{html_text(name)}: {_signed(change)} ({_signed(row.low)} to {_signed(row.high)})</title>"
            f'<text x="{_NAME - 8}" y="{y + 4}" text-anchor="end">{html_text(short)}</text>'
            f'<path d="M{at(row.low):.1f} {y}H{at(row.high):.1f}" style="stroke: {color}; stroke-width: 2"/>'
            f'<circle cx="{at(change):.1f}" cy="{y}" r="4" style="fill: {color}; stroke: none"/></g>'
        )
    label = "Change of each class with its interval"
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    return f'<svg role="img" aria-label="{label}" {size}>{"".join(parts)}</svg>'


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.3f}"
