"""What our HTML pages share: one style for light and dark screens, and pages that need nothing else: no font, no file
beside them, no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from detseg.messages import printable

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5d6877; --paper: #fff; --card: #f4f6f8; --line: #d8dde3;
  --error: #b3261e; --warning: #8a5a00; --note: #2f5d8a; --bar: #4c7db0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa6b5; --paper: #14181d; --card: #1e242b;
  --line: #343d47; --error: #ff8a80; --warning: #ffc46b; --note: #8ec1f5; --bar: #6b9fd6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 16px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 24px; margin: 8px 0; } h2 { font-size: 20px; margin: 32px 0 8px; } h3 { font-size: 16px; margin: 0; }
p { margin: 4px 0; } a { color: inherit; } .soft { color: var(--soft); }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; }
/* A shadow at the right edge says that there is more; it is covered once the end is reached. */
.wide { --shadow: color-mix(in srgb, var(--ink) 45%, transparent); overflow-x: auto; background:
  linear-gradient(to left, var(--paper) 40%, transparent) right / 48px 100% no-repeat local,
  linear-gradient(to left, var(--shadow), transparent) right / 20px 100% no-repeat scroll; }
.wide tr > :first-child { position: sticky; left: 0; z-index: 1; background: var(--paper); }
section { --paper: var(--card); }
th, td { padding: 2px 12px 2px 0; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { font-weight: 600; border-bottom: 1px solid var(--line); }
@media (max-width: 500px) { th, td { white-space: normal; overflow-wrap: normal; padding-right: 8px; } }
section.finding { background: var(--card); border-left: 4px solid var(--line); border-radius: 4px; padding: 12px;
  margin: 12px 0; }
section.error { border-color: var(--error); } section.warning { border-color: var(--warning); }
section.note { border-color: var(--note); } .error h3 { color: var(--error); } .warning h3 { color: var(--warning); }
.note h3 { color: var(--note); }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(260px, 100%), 1fr)); gap: 12px;
  margin-top: 8px; }
figure { margin: 0; } figure img { width: 100%; max-height: 320px; object-fit: contain; background: var(--line);
  border-radius: 3px; display: block; }
figcaption { font-size: 13px; color: var(--soft); } .pair { display: flex; gap: 4px; } .pair img { min-width: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(350px, 100%), 1fr)); gap: 20px; }
svg { max-width: 100%; height: auto; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg rect { fill: var(--bar); }
"""


def html_document(title: str, command: str, parts: Sequence[str], style: str = "", script: str = "") -> str:
    """A whole page.

    Args:
        title: of the window.
        command: what made it.
        parts: HTML of the body.
        style: more CSS.
        script: JavaScript, run once the body is there.
    """
    return (
        f'<!doctype html>\n<html lang="en"><!-- {command} --><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{html_text(title)}: {command}</title><style>{_STYLE}{style}</style></head>\n<body>\n"
        + "\n".join(parts)
        + (f"\n<script>\n{script}</script>" if script else "")
        + "\n</body></html>\n"
    )


def html_text(text: str) -> str:
    """Any text, which may come from a file, for a page."""
    return escape(printable(text))


def file_link(name: str) -> str:
    """A link to a file that lies beside the page."""
    return f'<a href="{html_text(name)}">{html_text(name)}</a>'


def html_name(name: str, longest: int = 32) -> str:
    """The name of a file, shortened in the middle where it is long; the whole one is its title."""
    if len(name) <= longest:
        return html_text(name)
    half = (longest - 1) // 2
    return f'<span title="{html_text(name)}">{html_text(f"{name[:half]}…{name[-half:]}")}</span>'


def html_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], attributes: str = "", soft: Sequence[int] = ()
) -> str:
    """A table of texts, which scrolls where it is wider than the page; ``soft``: positions of rows in grey."""
    lines = ["<thead><tr>", *(f"<th>{html_text(cell)}</th>" for cell in head), "</tr></thead><tbody>"]
    for number, row in enumerate(rows):
        cells = "".join(f"<td>{html_text(cell)}</td>" for cell in row)
        lines.append(f'<tr class="soft">{cells}</tr>' if number in soft else f"<tr>{cells}</tr>")
    return f'<div class="wide"><table{attributes and f" {attributes}"}>{"".join(lines)}</tbody></table></div>'


def jpeg_address(data: bytes) -> str:
    """A JPEG file as the address of an image."""
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
