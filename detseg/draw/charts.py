"""Charts as SVG: points and lines in a plane, and bars. They take their colours from the page that they stand in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from detseg.draw.page import html_text

Look = Literal["normal", "pale", "best"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 400, 260, 52, 12, 10, 44
_ROW, _NAME, _BAR = 22, 210, 130

UNIT_SQUARE = f"translate({_LEFT} {_HEIGHT - _BOTTOM}) scale({_WIDTH - _LEFT - _RIGHT} {_TOP + _BOTTOM - _HEIGHT})"
"""The transform that puts points of [0, 1]² onto the plane of a chart."""
_STYLES: dict[Look, str] = {
    "pale": "fill: none; stroke: var(--soft)",
    "normal": "fill: var(--bar); stroke: none",
    "best": "fill: var(--error); stroke: none",
}


@dataclass(frozen=True)
class Axis:
    """An axis from ``low`` to ``high``; ``words``: what stands at 0, 1, ... in the place of numbers."""

    name: str
    low: float
    high: float
    log: bool = False
    words: Sequence[str] = ()

    @classmethod
    def around(cls, name: str, values: Iterable[float], log: bool = False) -> Axis:
        """An axis on which all values lie."""
        low, high = (min(values := list(values), default=0.0), max(values, default=1.0))
        if log:
            return cls(name, low / 1.2, high * 1.2, log)
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        return cls(name, low - margin, high + margin)

    @classmethod
    def of_words(cls, name: str, words: Sequence[str]) -> Axis:
        """An axis of choices."""
        return cls(name, -0.5, len(words) - 0.5, words=words)

    def at(self, value: float) -> float:
        """Where a value lies, from 0 to 1."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Values to mark, with their texts."""
        if self.words:
            longest = max(3, 48 // len(self.words))
            return [
                (i, word if len(word) <= longest else f"{word[: longest - 1]}…") for i, word in enumerate(self.words)
            ]
        if self.log:
            powers = [
                10.0**power for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            ]
            steps = [
                power * factor for power in powers for factor in ((1,) if self.high > 200 * self.low else (1, 2, 5))
            ]
            return [(step, f"{step:.3g}") for step in steps if self.low <= step <= self.high]
        rough = (self.high - self.low) / 4
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        first = math.ceil(self.low / step)
        return [(i * step, f"{i * step:.4g}") for i in range(first, math.floor(self.high / step) + 1)]


@dataclass(frozen=True)
class Point:
    """A point; ``title`` is shown when the mouse is over it."""

    x: float
    y: float
    title: str
    look: Look = "normal"


@dataclass(frozen=True)
class Line:
    """A line through points; without a name it is not in the legend."""

    name: str
    points: Sequence[tuple[float, float]]
    color: str = "var(--bar)"
    dashed: bool = False


def points_chart(
    title: str, x: Axis, y: Axis, points: Sequence[Point], line: Sequence[tuple[float, float]] = ()
) -> str:
    """Points, and a line through other ones."""
    parts = _plane(x, y)
    if line:
        parts.append(f'<polyline points="{_path(x, y, line)}" style="fill: none; stroke: var(--error)"/>')
    order = list(_STYLES)
    for point in sorted(points, key=lambda point: order.index(point.look)):  # the best one on top
        a, b = _place(x, y, point.x, point.y)
        circle = f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" style="{_STYLES[point.look]}"/>'
        parts.append(f"<g><title>{html_text(point.title)}</title>{circle}</g>")
    return _figure(title, _WIDTH, _HEIGHT, parts)


def lines_chart(title: str, x: Axis, y: Axis, lines: Sequence[Line], more: str = "") -> str:
    """Lines, which their colours tell apart, and below what they are; ``more``: SVG to draw on top."""
    parts = _plane(x, y)
    for line in lines:
        style = f"fill: none; stroke-width: 2; stroke: {line.color}{'; stroke-dasharray: 5 4' if line.dashed else ''}"
        parts.append(f'<polyline points="{_path(x, y, line.points)}" style="{style}"/>')
    named = [line for line in lines if line.name]
    legend = "".join(f'<span style="color: {line.color}">{html_text(line.name)}</span> ' for line in named)
    return _figure(title, _WIDTH, _HEIGHT, [*parts, more], f'<p class="legend">{legend}</p>')


def bars_chart(title: str, bars: Sequence[tuple[str, float]], text: Callable[[float], str] = "{:.0%}".format) -> str:
    """A bar for each name, the largest of the whole width, with its value as ``text`` gives it."""
    largest, parts = max((value for _, value in bars), default=0.0) or 1.0, []
    for row, (name, value) in enumerate(bars):
        y, width = row * _ROW, _BAR * value / largest
        short = name if len(name) <= 32 else f"…{name[-31:]}"
        parts.append(
            f"<g><title>{html_text(name)}: {value:.3g}</title>"
            f'<text x="{_NAME - 6}" y="{y + 15}" text-anchor="end">{html_text(short)}</text>'
            f'<rect x="{_NAME}" y="{y + 4}" width="{width:.1f}" height="{_ROW - 8}"/>'
            f'<text x="{_NAME + width + 4:.1f}" y="{y + 15}">{html_text(text(value))}</text></g>'
        )
    return _figure(title, _WIDTH, len(bars) * _ROW, parts)


def _plane(x: Axis, y: Axis) -> list[str]:
    """Both axes with their marks."""
    w, h = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    parts = ['<g style="stroke: var(--line); fill: none">']
    parts += [f'<path d="M{_LEFT} {_place(x, y, x.low, tick)[1]:.1f}h{w}"/>' for tick, _ in y.ticks()]
    parts += [f'<path d="M{_LEFT} {_TOP}v{h}h{w}"/></g>']
    for tick, text in y.ticks():
        height = _place(x, y, x.low, tick)[1] + 4
        parts.append(f'<text x="{_LEFT - 6}" y="{height:.1f}" text-anchor="end">{html_text(text)}</text>')
    for tick, text in x.ticks():
        left = _place(x, y, tick, y.low)[0]
        parts.append(f'<text x="{left:.1f}" y="{_TOP + h + 16}" text-anchor="middle">{html_text(text)}</text>')
    parts.append(f'<text x="{_LEFT + w / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{html_text(x.name)}</text>')
    return parts


def _place(x: Axis, y: Axis, value_x: float, value_y: float) -> tuple[float, float]:
    w, h = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    return _LEFT + w * x.at(value_x), _TOP + h * (1 - y.at(value_y))


def _path(x: Axis, y: Axis, points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in (_place(x, y, *point) for point in points))


def _figure(title: str, width: int, height: int, parts: Sequence[str], below: str = "") -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    name = html_text(title)
    return f'<div><h3>{name}</h3><svg role="img" aria-label="{name}" {size}>{"".join(parts)}</svg>{below}</div>'
