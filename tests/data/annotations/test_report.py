"""The report of issues."""

from __future__ import annotations

from detseg.data.annotations.issues import DataIssue, DataReport


def test_cases_are_counted_and_places_kept_once() -> None:
    report = DataReport()
    assert report.lines() == []
    assert (report.count(DataIssue.NO_AREA), report.examples(DataIssue.NO_AREA)) == (0, [])
    report.add(DataIssue.NO_AREA, "a.xml", 2)
    report.add(DataIssue.NO_AREA, "b.xml")
    report.add(DataIssue.NO_AREA, "a.xml")
    report.note("a note")
    assert report.lines() == ["a note", "boxes without area (left out of training): 4 (a.xml, b.xml)"]


def test_only_the_first_five_places_are_named() -> None:
    report = DataReport()
    report.add_all(DataIssue.NO_OBJECTS, list(range(100)))
    for number in range(5):
        report.add(DataIssue.CROWD, f"{number}")
    line, exactly_five = report.lines()
    assert line == "images without objects (kept, as background): 100 (0, 1, 2, 3, 4, ...)"
    assert exactly_five.endswith("5 (0, 1, 2, 3, 4)")
    assert report.examples(DataIssue.NO_OBJECTS) == ["0", "1", "2", "3", "4"]
