"""The page of a search: it stands alone, has every trial and chart, and fits into a window."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from detseg.draw.charts import Axis
from detseg.errors import DetsegError
from detseg.tuning.objective import goal_of
from detseg.tuning.search import tune
from tests.browser import measured_in_windows, needs_chromium
from tests.tuning.studies import formula, plan_of


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of ten trials, one of which fails, within a limit."""
    folder = tmp_path_factory.mktemp("tune")

    def one_fails(config: Any, *rest: Any) -> dict[str, float]:
        if config.run_dir.name == "trial_0003":
            raise DetsegError("<script>alert(1)</script>")
        return formula(config, *rest)

    tune(plan_of(folder, 10, goal=goal_of("AP", None, "latency_ms<5")), folder / "study", beat=1, carry_out=one_fails)
    return folder / "study" / "study.html"


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags, self.links = list[str](), list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for key, value in attrs if key in ("src", "href")]


def test_the_page_stands_alone_and_has_every_chart_and_trial(page: Path) -> None:
    text, parsed = page.read_text(encoding="utf-8"), _Tags()
    parsed.feed(text)
    assert "script" not in parsed.tags
    assert "Trial 3 failed: &lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert parsed.links == ["data:,"]
    titles = re.findall("<h3>(.*?)</h3>", text)
    assert titles[0] == "AP by trial, and the best so far"
    assert titles[-3:] == ["AP against latency_ms, and its limit", "AP by optimizer.lr", "AP by model.backbone.name"]
    assert parsed.tags.count("svg") == len(titles)
    assert parsed.tags.count("tr") == 11
    assert parsed.tags.count("circle") == 4 * 9  # each measured trial in each chart but that of importances
    assert "The settings of the file: AP 0.7614, latency_ms 1 in trial 0." in text


@pytest.mark.browser
@needs_chromium
def test_the_page_in_a_browser(page: Path, tmp_path: Path) -> None:
    """Every chart is drawn, the console stays empty, and nothing is wider than the window."""
    narrow = "[...w.document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().width < 200).length"
    assert measured_in_windows(page, [380, 1200], narrow, tmp_path) == [0, 0]


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis("AP", 0, 1), ["0", "0.5", "1"]),
        (Axis("AP", 0.41, 0.449), ["0.41", "0.42", "0.43", "0.44"]),
        (Axis("lr", 1e-4, 1e-1, log=True), ["0.0001", "0.001", "0.01", "0.1"]),
        (Axis("lr", 0.001, 0.03, log=True), ["0.001", "0.002", "0.005", "0.01", "0.02"]),
        (Axis.of_words("name", ["fpn", "pan"]), ["fpn", "pan"]),
        (Axis.around("seed", [3, 3]), ["2.9", "3", "3.1"]),
    ],
)
def test_axes_are_marked_at_round_numbers(axis: Axis, ticks: list[str]) -> None:
    assert [text for _, text in axis.ticks()] == ticks
    assert all(0 <= axis.at(value) <= 1 for value, _ in axis.ticks())
