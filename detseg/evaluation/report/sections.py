"""The sections that reports of detectors and of label maps share, as HTML."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from detseg.draw.charts import UNIT_SQUARE, Axis, Line, lines_chart
from detseg.draw.page import file_link, html_table, html_text
from detseg.evaluation.report.calibration import Calibration
from detseg.evaluation.report.outcomes import Curve
from detseg.evaluation.what_next import WhatNext
from detseg.metrics.bootstrap import interval
from detseg.metrics.interface import format_number, without_nan
from detseg.metrics.learning_curve import LearningCurve
from detseg.structures import FloatArray, IntArray

_FRACTION = Axis("", 0.0, 1.0)
_LOSS = "Loss"
_MOST_CLASSES = 25  # of a confusion matrix; of more, those with the most errors

ERRORS, SUSPECTS, THRESHOLDS, CALIBRATION = "errors.csv", "suspects.csv", "thresholds.json", "calibration.json"
"""The files beside the page."""

Interval = tuple[float, float]
Section = tuple[str, str, str]
"""Anchor, title and HTML."""


def headline(numbers: Mapping[str, float], intervals: Mapping[str, Interval], notes: Mapping[str, str]) -> str:
    """A tile for each number, with its interval, and a note to some."""
    tiles = []
    for name, value in numbers.items():
        sure = interval_text(intervals.get(name))
        sure = sure and f"<small>{sure}</small>"
        note = f"<small>{html_text(notes[name])}</small>" if name in notes else ""
        tiles.append(f'<div class="tile"><span>{html_text(name)}</span><b>{format_number(value)}</b>{sure}{note}</div>')
    return f'<div class="tiles">{"".join(tiles)}</div>'


def interval_text(ends: Interval | None) -> str:
    """The ends; empty where there are none, or where three digits do not tell them apart."""
    if ends is None or math.isnan(ends[0]):
        return ""
    low, high = (f"{end:.3f}" for end in ends)
    return "" if low == high else f"{low} to {high}"


def number_shown(shown: int, of: int, file: str) -> str:
    """How many of the pictures there are, and where all are listed."""
    return f'<p class="soft">{shown} of {of} shown, all in {file_link(file)}.</p>'


def sortable_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose rows a click on a column sorts."""
    return html_table(head, rows, 'class="sortable"')


def operating_point(curves: Mapping[str, Curve], unit: str) -> str:
    """Precision, recall and F1 at every threshold, with a slider.

    Args:
        curves: by class; the names stand in a list to choose from, the first is shown first.
        unit: what is counted.
    """
    thresholds = next(iter(curves.values())).thresholds
    low, high = min(0.0, float(thresholds[0])), max(1.0, float(thresholds[-1]))  # scores may be no probabilities
    data = {
        "low": low,
        "high": high,
        "thresholds": [round(float(value), 5) for value in thresholds],
        "classes": [
            {"objects": one.num_objects, "kept": one.kept.tolist(), "right": one.right.tolist()}
            for one in curves.values()
        ],
    }
    options = "".join(f'<option value="{k}">{html_text(name)}</option>' for k, name in enumerate(curves))
    colors = {"precision": "var(--bar)", "recall": "var(--warning)", "F1": "var(--ink)"}
    lines = "".join(
        f'<polyline id="{name}-line" vector-effect="non-scaling-stroke" style="fill: none; stroke-width: 2; stroke: '
        f'{color}"/>'
        for name, color in colors.items()
    )
    cursor = '<path id="cursor" vector-effect="non-scaling-stroke" style="stroke: var(--error)"/>'
    by_score = lines_chart(
        "By threshold",
        Axis("threshold", low, high),
        _FRACTION,
        [Line(name, [], color) for name, color in colors.items()],
        f'<g transform="{UNIT_SQUARE}">{lines}{cursor}</g>',
    )
    pr_line = '<polyline id="pr-line" vector-effect="non-scaling-stroke" style="fill: none; stroke-width: 2; '
    pr_line += 'stroke: var(--bar)"/><ellipse id="pr-point" rx="0.012" ry="0.02" style="fill: var(--error)"/>'
    by_recall = lines_chart(
        "Precision by recall", Axis("recall", 0, 1), _FRACTION, [], f'<g transform="{UNIT_SQUARE}">{pr_line}</g>'
    )
    numbers = "".join(
        f'<div class="tile"><span>{name}</span><b id="at-{name.replace(" ", "-")}"></b></div>'
        for name in ("precision", "recall", "F1", "right", "wrong", "missed")
    )
    return (
        '<div id="operating"><p><label>Class <select id="class">' + options + "</select></label> "
        '<label class="slider">Threshold <input id="slider" type="range" step="any"> '
        '<output id="at-threshold"></output></label></p>'
        f'<div class="tiles">{numbers}</div><p class="soft">right, wrong and missed are {html_text(unit)}</p>'
        '<p>Best by <button id="by-f1">F1</button> <button id="by-precision">precision of at least</button>'
        '<input id="least-precision" type="number" min="0" max="1" step="0.05" value="0.9"> '
        '<button id="by-cost">cost</button> where a missed one costs <input id="cost" type="number" min="0" step="0.5" '
        'value="1"> times a wrong one <output id="none"></output></p>'
        f'<div class="charts">{by_score}{by_recall}</div>'
        f'<script type="application/json" id="curves">{_json(data)}</script></div>'
    )


def _json(data: Any) -> str:
    """For a page, which no text in it can end."""
    return json.dumps(without_nan(data), separators=(",", ":")).replace("<", "\\u003c")


def confusion_table(confusion: IntArray, rows: Sequence[str], columns: Sequence[str], unit: str) -> str:
    """A matrix of true (rows) and predicted classes, each cell coloured by its fraction of the row."""
    chosen_rows, chosen_columns = list(range(len(rows))), list(range(len(columns)))
    note = ""
    if len(rows) > _MOST_CLASSES:
        errors = confusion.sum(axis=1) + confusion.sum(axis=0) - 2 * np.diagonal(confusion)
        last = [len(rows) - 1] if rows[-1] != columns[-1] else []  # what is no class
        order = [k for k in np.argsort(-errors, kind="stable").tolist() if k not in last]
        chosen_rows = sorted(order[:_MOST_CLASSES]) + last
        chosen_columns = chosen_rows
        note = f'<p class="soft">The {_MOST_CLASSES} of {len(rows) - len(last)} classes with the most errors.</p>'
    lines = ["<tr><th>true ╲ predicted</th>", *(f"<th>{html_text(columns[k])}</th>" for k in chosen_columns), "</tr>"]
    totals = confusion.sum(axis=1)
    for i in chosen_rows:
        cells = []
        for k in chosen_columns:
            count, fraction = int(confusion[i, k]), confusion[i, k] / max(int(totals[i]), 1)
            color = "--right" if i == k else "--wrong"
            shown = f"{count}" if unit != "%" else f"{100 * fraction:.1f}"
            style = f' style="background: color-mix(in srgb, var({color}) {round(90 * fraction)}%, transparent)"'
            if rows[i] != columns[i] and i == k:
                cells.append("<td></td>")  # neither an object nor a detection
                continue
            title = f"{rows[i]} predicted as {columns[k]}: {count} of {totals[i]} ({fraction:.1%})"
            cells.append(f'<td{style if count else ""} title="{html_text(title)}">{shown if count else ""}</td>')
        lines.append(f"<tr><th>{html_text(rows[i])}</th>{''.join(cells)}</tr>")
    return f'<div class="wide"><table class="confusion">{"".join(lines)}</table></div>{note}'


def calibration_chart(found: Calibration, what: str) -> str:
    """The reliability diagram, and what it says."""
    pairs = zip(found.confidence.tolist(), found.accuracy.tolist(), strict=True)
    points = [pair for pair in pairs if not math.isnan(pair[0])]
    lines = [Line("scores as probabilities", [(0, 0), (1, 1)], "var(--soft)", dashed=True)]
    chart = lines_chart(
        "Right, by score", Axis("score", 0, 1), _FRACTION, [*lines, Line("measured", points)], _points(points)
    )
    rows = [
        (f"{k / len(found.counts):.1f} to {(k + 1) / len(found.counts):.1f}", str(count), *map(format_number, pair))
        for k, (count, *pair) in enumerate(
            zip(found.counts.tolist(), found.confidence.tolist(), found.accuracy.tolist(), strict=True)
        )
        if count
    ]
    table = html_table(("score", what, "mean score", "right"), rows)
    return f'<div class="charts">{chart}<div>{table}</div></div>'


def _points(points: Sequence[tuple[float, float]]) -> str:
    dots = "".join(f'<ellipse cx="{x:.4f}" cy="{y:.4f}" rx="0.01" ry="0.017"/>' for x, y in points)
    return f'<g transform="{UNIT_SQUARE}" style="fill: var(--bar)">{dots}</g>'


def training_curves(rows: Sequence[Mapping[str, str]], metric: str) -> str:
    """Losses and the metric by epoch, of the rows of a ``metrics.csv``; empty where there are too few."""
    charts = []
    for title, names in ((_LOSS, ("train/loss", "val/loss")), (f"{metric} on val", (f"val/{metric}",))):
        lines = []
        for name, color in zip(names, ("var(--bar)", "var(--warning)"), strict=False):
            points = [(float(row["epoch"]), float(row[name])) for row in rows if row.get(name)]
            points = [point for point in points if math.isfinite(point[1])]
            if len(points) > 1:
                lines.append(Line(name, points, color))
        if lines:
            if title == _LOSS:
                title, lines = _clipped(lines)
            values = [point for line in lines for point in line.points]
            x, y = (Axis.around(name, [point[k] for point in values]) for k, name in enumerate(("epoch", "")))
            charts.append(lines_chart(title, x, y, lines))
    return f'<div class="charts">{"".join(charts)}</div>' if charts else ""


def _clipped(lines: Sequence[Line]) -> tuple[str, list[Line]]:
    """Title and lines of losses without single huge ones, often of the first epochs, which would flatten the rest."""
    values = [value for line in lines for _, value in line.points]
    highest = 1.2 * float(np.quantile(values, 0.95, method="lower"))
    if max(values) <= 2 * highest:
        return _LOSS, list(lines)
    kept = [replace(line, points=[(x, min(value, highest)) for x, value in line.points]) for line in lines]
    return f"{_LOSS} (cut off at {highest:.3g}; the highest is {max(values):.3g})", kept


def what_next_section(found: WhatNext, curve: LearningCurve | None) -> str:
    """Scores of the parts of the data, their gaps with what to try, and whether more images would help."""
    head = ("part", "images", found.metric, "95 % interval")
    rows = [
        (part, str(num), format_number(number), interval_text((low, high)) or "-")
        for part, (number, low, high, num) in found.scores.items()
    ]
    parts = [html_table(head, rows)]
    for gap in found.gaps:
        steps = "".join(f"<li>{html_text(str(step))}</li>" for step in gap.steps) if gap.is_clear else ""
        parts.append(f"<p>{html_text(gap.sentence)}.</p>" + (f"<ul>{steps}</ul>" if steps else ""))
    parts += [f'<p class="soft">{html_text(note)}</p>' for note in found.notes]
    if curve is not None:
        parts += ["<h3>Would more images help?</h3>", f"<p>{html_text(curve.verdict)}.</p>", _curve_chart(curve)]
    return "".join(parts)


def _curve_chart(curve: LearningCurve) -> str:
    sizes = np.geomspace(min(point.num_images for point in curve.points), 2 * curve.num_images, 40)
    lines = []
    if curve.doubt is None:
        middle, low, high = curve.band(sizes.tolist()).T
        for name, values, dashed in (("fitted", middle, False), ("95 % interval", low, True), ("", high, True)):
            lines.append(Line(name, list(zip(sizes.tolist(), values.tolist(), strict=True)), dashed=dashed))
    x = Axis.around("images", [float(sizes[0]), float(sizes[-1])], log=True)
    points = [(float(point.num_images), point.score) for point in curve.points]
    y = Axis.around("", [value for line in lines for _, value in line.points] + [score for _, score in points])
    dots = "".join(
        f'<ellipse cx="{x.at(size):.4f}" cy="{y.at(score):.4f}" rx="0.01" ry="0.017"/>' for size, score in points
    )
    more = f'<g transform="{UNIT_SQUARE}" style="fill: var(--error)">{dots}</g>'
    return f'<div class="charts">{lines_chart(f"{curve.metric} by number of images", x, y, lines, more)}</div>'


def facts_table(facts: Mapping[str, str]) -> str:
    """Names and values."""
    rows = "".join(f"<tr><td>{html_text(name)}</td><td>{html_text(value)}</td></tr>" for name, value in facts.items())
    return f'<div class="wide"><table class="facts">{rows}</table></div>'


def with_interval(value: float, interval: Interval | None) -> str:
    """A number for a table."""
    sure = interval_text(interval)
    return f"{value:.3f} ({sure})" if sure else format_number(value)


def class_intervals(values: Sequence[float], samples: FloatArray) -> list[Interval]:
    """Of the number of each class and its (B, C) samples."""
    ends = [interval(value, column) for value, column in zip(values, samples.T, strict=True)]
    return [(max(low, 0.0), min(high, 1.0)) for low, high in ends]
