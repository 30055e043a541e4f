"""The findings of a check as one HTML page that needs nothing else: no script, no font, no file beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

from detseg.atomic_write import write_text
from detseg.data.annotations.issues import DataIssue, Severity
from detseg.data.annotations.report import Example, Finding
from detseg.data.checks.run import TOGETHER, Checked
from detseg.data.checks.sizes import SIZE_NAMES
from detseg.draw.page import html_document, html_text, jpeg_address
from detseg.messages import counted, one_line

Draw = Callable[[str, DataIssue, Example], Sequence[bytes]]
"""Split, what is wrong and place → JPEG files: of the image, and of the one to compare it with, if there is one."""

_MOST_PLACES = 5  # of a finding
_MOST_BARS = 40  # of a chart; the rest is one bar
_BAR_W, _ROW_H, _NAME_W = 200, 18, 110  # pixels of a chart


def write_page(path: Path, checked: Checked, title: str, draw: Draw) -> None:
    """Write the page. ``title``: what was checked; ``draw`` makes the pictures of a place, and may make none. Texts may
    hold anything: they are escaped. A DataError if the file cannot be written."""
    findings = checked.findings()
    parts = [_summary(checked, findings, title)]
    for severity, group in groupby(findings, lambda item: item[1].issue.severity):
        parts.append(f'<h2 id="{severity.name.lower()}s">{severity.name.capitalize()}s</h2>')
        parts += [_section(name, finding, draw) for name, finding in group]
    parts += _charts(checked)
    write_text(path, html_document(title, "detseg check", parts))


def _summary(checked: Checked, findings: Sequence[tuple[str, Finding]], title: str) -> str:
    rows = []
    for name, numbers in checked.numbers.items():
        mean = " ".join(f"{value:.2f}" for value in numbers.mean) if checked.images_opened else "-"
        std = " ".join(f"{value:.2f}" for value in numbers.std) if checked.images_opened else "-"
        objects = "-" if checked.of_maps else str(numbers.objects)
        cells = (name, str(numbers.images), objects, mean, std)
        rows.append("<tr>" + "".join(f"<td>{html_text(cell)}</td>" for cell in cells) + "</tr>")
    found = []
    for severity in reversed(Severity):
        if num := sum(finding.issue.severity == severity for _, finding in findings):
            name = severity.name.lower()
            found.append(f'<a href="#{name}s">{counted(num, "kind")} of {name}s</a>')
    opened = "" if checked.images_opened else "<p>Images were not opened (--fast).</p>"
    return (
        f"<h1>{html_text(title)}</h1><p>{', '.join(found) or 'Nothing was found that is wrong.'}</p>{opened}"
        '<div class="wide"><table><tr><th>split</th><th>images</th><th>objects</th><th>mean (R G B)</th>'
        f"<th>deviation (R G B)</th></tr>{''.join(rows)}</table></div>"
    )


def _section(split: str, finding: Finding, draw: Draw) -> str:
    issue, kind = finding.issue, finding.issue.severity.name.lower()
    where = "" if split == TOGETHER else f"{html_text(split)}: "
    figures, lines = [], []
    for place in finding.examples[:_MOST_PLACES]:
        caption = html_text(place.where) + (f": {html_text(place.detail)}" if place.detail else "")
        try:
            pictures = draw(split, issue, place)
        except Exception as error:  # whatever is odd in one place, the page shows the others
            pictures, caption = [], f"{caption} (no picture: {html_text(one_line(error))})"
        if pictures:
            images = "".join(f'<img alt="{html_text(place.where)}" src="{jpeg_address(data)}">' for data in pictures)
            figures.append(f'<figure><div class="pair">{images}</div><figcaption>{caption}</figcaption></figure>')
        else:
            lines.append(f'<p class="soft">{caption}</p>')
    if finding.places > _MOST_PLACES:
        lines.append(f'<p class="soft">and {finding.places - _MOST_PLACES} more; detseg check --json lists them</p>')
    shown = f'<div class="pictures">{"".join(figures)}</div>' if figures else ""
    return (
        f'<section class="finding {kind}" id="{html_text(split)}-{issue.name.lower()}">'
        f"<h3>{where}{html_text(issue.text)}: {finding.amount}</h3><p>To do: {html_text(issue.fix)}</p>"
        f"{''.join(lines)}{shown}</section>"
    )


def _charts(checked: Checked) -> list[str]:
    names, height_width, parts = checked.class_names, checked.expected.input_hw, list[str]()
    for split, numbers in checked.numbers.items():
        what = "Pixels" if checked.of_maps else "Objects"
        charts = [(f"{what} of each class", list(zip(names, numbers.class_counts, strict=False)))]
        if numbers.objects:
            sizes = f"Object sizes in pixels of the input of {height_width[1]} x {height_width[0]}"
            charts.append((sizes, list(zip(SIZE_NAMES, numbers.sizes_in_input, strict=True))))
            charts.append(("Images by their number of objects", _ranges(numbers.objects_per_image)))
        charts.append(("Image sizes (width x height)", list(numbers.image_sizes.items())))
        parts.append(f"<h2>{html_text(split)}</h2>")
        if numbers.best_recall_of_anchors is not None:
            parts.append(f"<p>Best recall that the anchors allow: {numbers.best_recall_of_anchors:.3f}</p>")
        parts.append('<div class="charts">' + "".join(_chart(title, bars) for title, bars in charts if bars) + "</div>")
    return parts


def _ranges(counts: Sequence[int]) -> list[tuple[str, int]]:
    """Images with 0, 1, ... objects → at most a dozen ranges of the number of objects."""
    step = -(-len(counts) // 12)
    starts = range(0, len(counts), step)
    return [(str(a) if step == 1 else f"{a} to {a + step - 1}", sum(counts[a : a + step])) for a in starts]


def _chart(title: str, bars: Sequence[tuple[str, int]]) -> str:
    if len(bars) > _MOST_BARS:
        bars = sorted(bars, key=lambda bar: -bar[1])
        rest = bars[_MOST_BARS - 1 :]
        bars = [*bars[: _MOST_BARS - 1], (f"{len(rest)} others", sum(number for _, number in rest))]
    largest, rows = max((number for _, number in bars), default=0) or 1, []
    for row, (name, number) in enumerate(bars):
        y, width = row * _ROW_H, _BAR_W * number / largest
        short = name if len(name) <= 16 else name[:15] + "…"
        middle = y + _ROW_H - 5
        rows.append(
            f'<g><title>{html_text(name)}: {number}</title><text x="{_NAME_W - 6}" y="{middle}" text-anchor="end">'
            f'{html_text(short)}</text><rect x="{_NAME_W}" y="{y + 3}" width="{width:.1f}" height="{_ROW_H - 6}"/>'
            f'<text x="{min(_NAME_W + width + 4, _NAME_W + _BAR_W + 4):.1f}" y="{middle}">{number}</text></g>'
        )
    chart_w, chart_h = _NAME_W + _BAR_W + 66, len(bars) * _ROW_H
    return (
        f"<div><h3>{html_text(title)}</h3>"
        f'<svg role="img" aria-label="{html_text(title)}" viewBox="0 0 {chart_w} {chart_h}" width="{chart_w}" '
        f'height="{chart_h}">'
        f"{''.join(rows)}</svg></div>"
    )
