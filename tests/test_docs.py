"""The documentation speaks of files that exist; `test_docs_examples.py` runs what it shows."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])
FOREIGN = ("references/detection/engine.py",)  # torchvision's


def anchors(text: str) -> set[str]:
    """The anchors of the page's headings, as GitHub names them."""
    found: set[str] = set()
    seen: Counter[str] = Counter()
    for heading in re.findall(r"^#+ +(.+?) *$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.M):
        shown = re.sub(r"\]\([^)]*\)", "", heading.lower())  # of a link only its text counts
        anchor = re.sub(r"[^\w -]", "", shown).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def dead_links(text: str, folder: Path) -> list[str]:
    """Relative links to files and headings that do not exist."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        page = folder / name
        if "://" in target or (page.exists() and not anchor):
            continue
        if not page.exists() or anchor not in anchors(page.read_text(encoding="utf-8") if name else text):
            found.append(f"link to {target}")
    return found


def dead_paths(text: str, root: Path) -> list[str]:
    """Files of the repository's folders in prose or commands, and Python files in backticks, that do not exist."""
    paths = re.findall(r"(?<![\w/.-])((?:configs|tools|docs|tests|detseg|benchmarks)/[\w./-]+\.(?:yaml|py|md))\b", text)
    found = [path for path in paths if not (root / path).exists()]
    files = [f"/{path}" for name in ("detseg", "tools", "tests", "benchmarks") for path in (root / name).rglob("*.py")]
    names = [name for name in re.findall(r"`([\w/]+\.py)`", text) if name not in (*paths, *FOREIGN)]
    return found + [name for name in names if not any(file.endswith(f"/{name}") for file in files)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not dead_links(text, page.parent)
    assert not dead_paths(text, ROOT)


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "data.md").write_text("# VOC\n\n## `a_b`: [c](d.md), or e?\n\n## VOC\n\n```sh\n# no heading\n```\n")
    right = "data.md#voc", "data.md#voc-1", "data.md#a_b-c-or-e", "data.md", "#here", "https://x.org/y.md#z"
    wrong = "data.md#no", "data.md#voc-2", "data.md#no-heading", "no.md", "no.md#voc", "#voc"
    text = "# Here\n" + " ".join(f"[x]({target})" for target in (*right, *wrong))
    assert dead_links(text, tmp_path) == [f"link to {target}" for target in wrong]


def test_dead_paths_are_found(tmp_path: Path) -> None:
    for name in ("docs/data.md", "detseg/data/voc.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    text = (
        "docs/data.md `tools/no.py x` configs/no.yaml `voc.py` `data/voc.py` `detseg/data/voc.py` `coco.py` `no/voc.py`"
    )
    assert dead_paths(text, tmp_path) == ["tools/no.py", "configs/no.yaml", "coco.py", "no/voc.py"]
