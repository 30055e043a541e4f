"""The documentation site: it builds, a broken link fails the build, and its pages load nothing from other servers."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("material") is None and os.environ.get("CI") != "true",
    reason='mkdocs-material is missing: pip install -e ".[docs]"',
)


def build(project: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    quiet = {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=project, env=os.environ | quiet, capture_output=True, text=True, check=False)


def foreign_resources(html: str) -> list[str]:
    """What a browser would load from elsewhere: of scripts, styles, fonts, images and frames, not where links lead."""
    loaded = re.findall(r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\bsrc=[\"']?([^\"'\s>]+)", html)
    links = re.findall(r"<link\b[^>]*>", html)
    loaded += [href for link in links for href in re.findall(r"href=[\"']?([^\"'\s>]+)", link)]
    loaded += re.findall(r"(?:url\(|@import\s+)[\"']?([^\"')\s;]+)", html)
    return [address for address in loaded if re.match(r"(?:https?:)?//", address)]


def test_it_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in tmp_path.glob("*.html")}
    assert pages == {"404", *(path.stem for path in (ROOT / "docs").glob("*.md"))}
    files = [path for suffix in ("html", "css") for path in tmp_path.rglob(f"*.{suffix}")]
    assert [path.name for path in files if foreign_resources(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("link", ["[x](nowhere.md)", "[x](yolo.md#nowhere)", "[x](../README.md)", "[x](/yolo.md)"])
def test_a_broken_link_fails_the_build(link: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    navigation = re.sub(r"^nav:\n(?:  .*\n)+", "", settings, flags=re.MULTILINE)
    (tmp_path / "mkdocs.yml").write_text(navigation, encoding="utf-8")
    shutil.copy(ROOT / "docs" / "yolo.md", tmp_path / "docs")
    (tmp_path / "docs" / "yolo.md").write_text("# YOLO\n", encoding="utf-8")
    index = tmp_path / "docs" / "index.md"
    index.write_text("# A\n[x](yolo.md#yolo)", encoding="utf-8")
    assert build(tmp_path, tmp_path / "site").returncode == 0
    index.write_text(f"# A\n{link}", encoding="utf-8")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "index.md" in done.stderr


def test_foreign_resources_are_found() -> None:
    own = '<a href="https://a.org"><script src="x.js"></script><link rel="stylesheet" href="y.css"><img src=z.png>'
    foreign = '<script async src="https://a.org/x.js"></script><link href=//b.org/y.css rel="stylesheet">'
    style = "<style>@import 'https://c.org/f.css'; @font-face{src:url(https://d.org/f.woff2)}</style>"
    expected = ["https://a.org/x.js", "//b.org/y.css", "https://c.org/f.css", "https://d.org/f.woff2"]
    assert foreign_resources(own + foreign + style) == expected
