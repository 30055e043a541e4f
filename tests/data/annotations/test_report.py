"""The report of what is odd."""

from __future__ import annotations

from detseg.data.annotations.issues import DataIssue, DataReport


def test_nothing_odd_says_nothing() -> None:
    report = DataReport()
    assert report.lines() == []
    assert report.count(DataIssue.NO_AREA) == 0
    assert report.examples(DataIssue.NO_AREA) == []


def test_counts_are_summed_and_names_kept_once() -> None:
    report = DataReport()
    report.add(DataIssue.NO_AREA, "a.xml", 2)
    report.add(DataIssue.NO_AREA, "b.xml")
    report.add(DataIssue.NO_AREA, "a.xml")
    assert report.lines() == ["boxes without area (left out of training): 4 (a.xml, b.xml)"]


def test_only_the_first_five_names_are_kept() -> None:
    report = DataReport()
    for number in range(100):
        report.add(DataIssue.NO_OBJECTS, f"{number}.jpg")
    line = "images without objects (kept, as background): 100 (0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, ...)"
    assert report.lines() == [line]
    assert report.examples(DataIssue.NO_OBJECTS) == [f"{number}.jpg" for number in range(5)]


def test_exactly_five_names_need_no_dots() -> None:
    report = DataReport()
    for number in range(5):
        report.add(DataIssue.CROWD, f"{number}")
    assert report.lines()[0].endswith("5 (0, 1, 2, 3, 4)")
