"""The pages of a service: one to try it, one that lists its operations. Each is one file that loads nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

from detseg.draw.page import html_document, html_table, html_text

PAGE_HEADERS = {"cache-control": "no-cache", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}

_EXAMPLE = """\
curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' '{0}/predict?score=0.5'
curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' '{0}/predict?format=image' -o found.jpg
"""


@dataclass(frozen=True)
class Page:
    """A page, and the header that lets nothing but its own script run."""

    html: str
    policy: dict[str, str]


def demo_page() -> Page:
    """Drop an image, see what is found."""
    folder = files("detseg.serve")
    body, style, script = (folder.joinpath(f"demo.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
    return _page("detseg", [body], style, script)


def docs_page(document: dict[str, Any]) -> Page:
    """The operations of an OpenAPI document."""
    parts = ["<h1>Operations</h1>", f"<p>{html_text(document['info']['description'])} Errors are one line of JSON: "]
    parts.append(
        '<code>{"error": "..."}</code>. <a href="openapi.json">openapi.json</a> · <a href="./">the page</a></p>'
    )
    parts.append(f"<pre>{escape(_EXAMPLE.format('http://127.0.0.1:8000').strip())}</pre>")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            key = " · needs the key" if operation["security"] else ""
            parts.append(f"<h2><code>{method.upper()} {html_text(path)}</code></h2>")
            parts.append(f"<p>{html_text(operation['summary'])}{key}</p>")
            parts += _details(operation)
    style = "pre { background: var(--card); padding: 12px; overflow-x: auto; } td { white-space: normal; }"
    return _page("detseg operations", parts, style + " th, td { text-align: left; vertical-align: top; }", "")


def _details(operation: dict[str, Any]) -> list[str]:
    parts = []
    if options := operation.get("parameters"):
        rows = [[one["name"], one["description"], json.dumps(one["schema"])] for one in options]
        parts += ["<h3>Options, in the query or in JSON</h3>", html_table(["name", "what", "values"], rows)]
    if "requestBody" in operation:
        kinds = ", ".join(operation["requestBody"]["content"])
        parts += ["<h3>Body</h3>", f"<p>{html_text(kinds)}</p>"]
        rows = [[status, one["description"]] for status, one in operation["responses"].items()]
        parts += ["<h3>Answers</h3>", html_table(["status", "what"], rows)]
    return parts


def _page(title: str, parts: list[str], style: str, script: str) -> Page:
    # As a browser sees the script: what stands between its tags.
    digest = base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode()
    rules = {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "script-src": f"'sha256-{digest}'",
        "img-src": "'self' data: blob:",
        "media-src": "blob:",
        "connect-src": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    policy = "; ".join(f"{name} {value}" for name, value in rules.items())
    return Page(html_document(title, "detseg serve", parts, style, script), {"content-security-policy": policy})
