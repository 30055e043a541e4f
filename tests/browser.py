"""Pages in a headless Chromium, where the machine has one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


def document_of(address: str, folder: Path, *flags: str, is_ours: bool = True) -> str:
    """The document at an address as it is once its scripts have run; the console of a page of ours must stay empty."""
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += ["--no-first-run", "--disable-background-networking", f"--user-data-dir={folder / 'profile'}", *flags]
    ran = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True, timeout=120, check=True)
    assert not (is_ours and "CONSOLE" in ran.stderr)
    return ran.stdout


def measured_in_windows(page: Path, widths: Sequence[int], measure: str, folder: Path) -> list[dict[str, Any]]:
    """What an expression gives for a page in windows of some widths; in it, ``w`` is the window.

    A page must not be wider than its window, which is looked at here.
    """
    # In frames: a window of Chromium has at least 500 pixels.
    content = escape(page.read_text(encoding="utf-8"))
    frames = "".join(f'<iframe style="border: 0" width="{w}" height="900" srcdoc="{content}"></iframe>' for w in widths)
    script = f"const of = w => [w.innerWidth, w.document.documentElement.scrollWidth, {measure}];"
    script += "document.title = JSON.stringify([...document.querySelectorAll('iframe')].map(f => of(f.contentWindow)))"
    framed = folder / "framed.html"
    framed.write_text(f"<!doctype html><title></title>{frames}<script>onload = () => {{ {script} }}</script>")
    window = f"--window-size={sum(widths) + 100},900"
    shown = re.search("<title>(.+)</title>", document_of(framed.as_uri(), folder, window, "--hide-scrollbars"))
    assert shown is not None
    found = json.loads(shown[1])
    assert [inner for inner, *_ in found] == list(widths)
    assert all(scroll <= inner for inner, scroll, _ in found)
    return [measured for *_, measured in found]
