"""The curve of a range test as an SVG file, which any browser shows: no script, no font, no file beside it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator
from html import escape

import numpy as np

from detseg.messages import printable
from detseg.tuning.learning_rate.curve import LrCurve

Scale = Callable[[float], float]  # a rate or a loss → pixels

_WIDTH, _HEIGHT = 760, 440  # of the whole drawing, pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 736, 84, 384  # of the area of the curve
_MAX_LINE = 100  # characters of a line of text
_HEADROOM = 0.25  # of the height, above the beginning and nine of ten losses: what diverges leaves the drawing

_STYLE = """
svg { color-scheme: light dark; --ink: #1c2430; --soft: #5d6877; --paper: #fff; --line: #d8dde3; --curve: #2f6fb3;
  --mark: #b3261e; background: var(--paper); }
@media (prefers-color-scheme: dark) { svg { --ink: #e6eaf0; --soft: #9aa6b5; --paper: #14181d; --line: #343d47;
  --curve: #6bade6; --mark: #ff8a80; } }
text { fill: var(--ink); font: 13px system-ui, sans-serif; } .soft { fill: var(--soft); }
.title { font-size: 17px; font-weight: 600; } .suggested { fill: var(--mark); font-weight: 600; }
line { stroke: var(--line); } .dots { fill: var(--curve); opacity: .4; }
polyline { fill: none; stroke: var(--curve); stroke-width: 2.5; stroke-linejoin: round; }
line.suggested { stroke: var(--mark); stroke-width: 2; } line.present { stroke: var(--soft); stroke-dasharray: 4 4; }
"""


def lr_plot(curve: LrCurve, title: str) -> str:
    """An SVG file: the losses as dots, the smoothed loss as a line, the suggested rate and that of the settings."""
    first, decades = math.log10(curve.rates[0]), math.log10(curve.rates[-1] / curve.rates[0]) or 1.0
    low, most = float(curve.losses.min()), float(max(curve.smoothed[0], np.quantile(curve.losses, 0.9)))
    high = most + (_HEADROOM * (most - low) or 1)

    def x(rate: float) -> float:
        return _LEFT + (math.log10(rate) - first) / decades * (_RIGHT - _LEFT)

    def y(loss: float) -> float:
        return _BOTTOM - (loss - low) / (high - low) * (_BOTTOM - _TOP)

    points = [(x(rate), y(loss)) for rate, loss in zip(curve.rates, curve.losses, strict=True)]
    dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5"/>' for a, b in points if b >= _TOP)
    line = " ".join(f"{x(rate):.1f},{y(loss):.1f}" for rate, loss in zip(curve.rates, curve.smoothed, strict=True))
    verdict = enumerate(textwrap.wrap(curve.verdict, _MAX_LINE))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
            f'height="{_HEIGHT}" role="img"><title>{_text(title)}</title><style>{_STYLE}</style>',
            f'<clipPath id="area"><path d="M{_LEFT} {_TOP}H{_RIGHT}V{_BOTTOM}H{_LEFT}Z"/></clipPath>',
            f'<text class="title" x="{_LEFT}" y="24">{_text(title)}</text>',
            *(f'<text class="soft" x="{_LEFT}" y="{44 + 18 * i}">{_text(part)}</text>' for i, part in verdict),
            *_grid(x, y, (curve.rates[0], curve.rates[-1]), (low, high)),
            f'<g class="dots">{dots}</g><polyline clip-path="url(#area)" points="{line}"/>',
            *_marks(x, curve),
            "</svg>\n",
        ]
    )


def _grid(x: Scale, y: Scale, rates: tuple[float, float], losses: tuple[float, float]) -> Iterator[str]:
    for power in range(math.ceil(math.log10(rates[0]) - 1e-9), math.floor(math.log10(rates[1]) + 1e-9) + 1):
        at = x(10.0**power)
        yield f'<line x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{_BOTTOM}"/>'
        yield f'<text class="soft" x="{at:.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{10.0**power:g}</text>'
    step = _tick(losses[1] - losses[0])
    for number in range(math.ceil(losses[0] / step), math.floor(losses[1] / step) + 1):
        at = y(number * step)
        yield f'<line x1="{_LEFT}" y1="{at:.1f}" x2="{_RIGHT}" y2="{at:.1f}"/>'
        yield f'<text class="soft" x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{number * step:g}</text>'
    middle = (_LEFT + _RIGHT) / 2
    yield f'<text class="soft" x="{middle}" y="{_BOTTOM + 42}" text-anchor="middle">learning rate (optimizer.lr)</text>'
    yield f'<text class="soft" x="{_LEFT - 8}" y="{_TOP - 10}" text-anchor="end">loss</text>'


def _tick(span: float) -> float:
    """The step of an axis: 1, 2 or 5 times a power of ten, for 4 to 10 lines."""
    power = 10.0 ** math.floor(math.log10(span / 4))
    return next(factor * power for factor in (5, 2, 1) if factor * power <= span / 4)


def _marks(x: Scale, curve: LrCurve) -> Iterator[str]:
    marks = [(curve.present_lr, "present", f"now {curve.present_lr:g}")]
    if (rate := curve.suggestion) is not None:
        marks = sorted([*marks, (rate, "suggested", f"{rate:g}")])
    for number, (rate, kind, label) in enumerate(marks):
        at = x(rate)
        if _LEFT <= at <= _RIGHT:
            # Of two lines, which may be close, the left one has its label on the left.
            side = f'x="{at - 6:.1f}" text-anchor="end"' if number < len(marks) - 1 else f'x="{at + 6:.1f}"'
            yield f'<line class="{kind}" x1="{at:.1f}" y1="{_TOP - 14}" x2="{at:.1f}" y2="{_BOTTOM}"/>'
            yield f'<text class="{kind}" {side} y="{_TOP - 4}">{label}</text>'


def _text(text: str) -> str:
    return escape(printable(text))
