"""Random data sets through `detseg convert`'s writers and readers: COCO → a format → COCO, and what the way holds.

`TABLE` says what each format holds of each property. ``python -m tests.round_trips --cases 2000`` tries it on random
sets, and prints it with the number of cases of each property and of failures.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings

from detseg.config.schema.data import AutoConfig
from detseg.data.annotations.issues import DataIssue, Severity
from detseg.data.annotations.model import region_counts
from detseg.data.annotations.report import DataReport
from detseg.data.build import open_split, resolve_layout
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.convert import WRITERS
from detseg.errors import DataError
from tests.random_sets import (
    SPLITS,
    Picture,
    RandomSet,
    Thing,
    area_of,
    bounds_of,
    has_holes,
    is_beyond,
    is_usable,
    random_sets,
    read_set,
)

FORMATS = ("coco", "voc", "yolo", "labelme", "cvat")
_MEMORY = "/dev/shm"  # where folders are removed faster
PAIRS = tuple((one, other) for one in FORMATS for other in FORMATS if one != other)

_N = r"(\d+) (?:object|image|class)e?s?"
_MASKS = rf"masks of {_N}: the boxes are written"
_APART = rf"boxes of {_N}, which differ from their outlines"
_AREA = rf"areas of {_N}, which differ"
_EMPTY = rf"masks without a pixel of {_N}: their boxes"
_STEM = rf"names of {_N}, as two in a folder differ in the suffix alone"
_IDS, _CLASS_IDS = r"ids of (\d+) images?:", r"ids of (\d+) class(?:es)?:"

# What a format does with a property: "=": holds it exactly; "~": to 0.001 pixels; else the line that lists what is
# lost, with its number; "~" before a line: held to 0.001 pixels, and listed.
TABLE: dict[str, tuple[str, str, str, str, str]] = {
    "crowd": ("=", rf"crowd regions of {_N}: written as", rf"crowd regions of {_N}: YOLO has none; left", "=", "="),
    "difficult or ignore": ("=", "=", rf"difficult flags of {_N}:", "=", "="),
    "truncated": ("=", "=", rf"truncated flags of {_N}:", "=", "="),
    "area unlike outline or box": ("=", rf"areas of {_N}: those of the boxes", _AREA, _AREA, _AREA),
    "box, whole pixels": ("=", "=", "=", "=", "="),
    "box, fractions": ("~", "~", "~", "~", "~"),
    "box, over 3 digits": ("~", rf"~corners of {_N}: rounded", "~", "~", "~"),
    "box thinner than a pixel": ("~", rf"boxes of {_N}: thinner", "~", "~", "~"),
    "box unlike outline": ("~", "~", _APART, _APART, _APART),
    "beyond the image": ("~", "~", rf"parts of {_N} outside their images", "~", "~"),
    "one polygon": ("=", _MASKS, "~", "=", "="),
    "several polygons": ("=", _MASKS, rf"parts of {_N}: YOLO has one polygon", "=", "="),
    "run lengths, one piece": ("=", _MASKS, "=", "=", "="),
    "run lengths, holes or pieces": ("=", _MASKS, rf"masks of {_N}, which have holes", "=", "="),
    "run lengths, no pixel": ("=", _MASKS, _EMPTY, _EMPTY, _EMPTY),
    "image names": ("=", "=", "=", "=", "="),
    "image names, same stem": ("=", rf"names of {_N}: changed", _STEM, _STEM, "="),
    "sub-folders": ("=", rf"folders of {_N}: VOC has one", "=", "=", "="),
    "image ids": ("=", _IDS, _IDS, _IDS, _IDS),
    "images without objects": ("=", "=", "=", "=", "="),
    "class names": ("=", "=", "=", "=", "="),
    "class names, spaces around": ("=", rf"spaces around the names of {_N}:", "=", "=", "="),
    "class ids": ("=", _CLASS_IDS, _CLASS_IDS, _CLASS_IDS, _CLASS_IDS),
    "classes out of order or unused": ("=", "the order of the classes, and classes without objects", "=", "=", "="),
    "several splits": ("=", "=", "=", "=", "="),
    "reads without errors": ("=", "=", "=", "=", "="),
}


def properties_of(thing: Thing, hw: tuple[int, int], layout: str) -> set[str]:
    """The rows of the table that an object belongs to."""
    box, outline, usable = thing.box, thing.outline, is_usable(thing.outline, hw)
    whole = all(value == int(value) for value in box)
    found = {
        "crowd": thing.crowd,
        "difficult or ignore": thing.difficult,
        "truncated": thing.truncated,
        "box, whole pixels": whole,
        "box, fractions": not whole,
        "box, over 3 digits": any(abs(value - round(value, 3)) > 1e-9 for value in box),
        "box thinner than a pixel": min(box[2] - box[0], box[3] - box[1]) < 1 - 1e-9,
        "beyond the image": is_beyond(thing, hw),
        "one polygon": isinstance(outline, list) and len(outline) == 1,
        "several polygons": isinstance(outline, list) and len(outline) > 1,
        "run lengths, no pixel": outline is not None and not usable,
    }
    if usable:
        gap = max(abs(a - b) for a, b in zip(box, bounds_of(outline, hw), strict=True))
        found["box unlike outline"] = gap > 1e-3
        if isinstance(outline, dict):
            found["run lengths, holes or pieces"] = has_holes(outline, hw)
            found["run lengths, one piece"] = not has_holes(outline, hw)
    if thing.area is not None and not (layout == "voc" and outline is not None):
        own = area_of(bounds_of(outline, hw) if usable else box, outline if usable else None, hw)
        limit = 1e-3 * max(own, 1) if layout == "voc" else max(1.0, 0.01 * own)
        found["area unlike outline or box"] = abs(thing.area - own) > limit
    return {name for name, has in found.items() if has}


# The way there and back

Sets = dict[str, DetectionDataset]


def opened(root: Path, splits: Iterable[str], classes: Sequence[str] | None = None) -> Sets:
    """The splits of a folder, whatever its layout, as `detseg convert` opens them."""
    config = resolve_layout(
        AutoConfig(name="auto", root=root, classes=None if classes is None else tuple(classes)), "boxes"
    )
    config, found = config.model_copy(update={"val_fraction": None}), Sets()
    for split in SPLITS:
        if split in splits:
            table = found["train"].classes if found else None
            found[split] = open_split(config, split, table, report=DataReport(True))
    return found


@dataclass(frozen=True)
class Trip:
    """A set converted to a layout, and from there to COCO."""

    layout: str
    faults: tuple[tuple[str, str], ...]  # property and what is wrong with it
    there: Sets
    back: RandomSet


def convert(truth: RandomSet, source: Sets, layout: str, target: Path) -> Trip:
    """Convert a set to ``target / layout`` and from there to COCO, and compare what comes back with ``truth``."""
    try:
        return _convert(truth, source, layout, target)
    except DataError as error:
        return Trip(layout, (("reads without errors", str(error)),), {}, truth)


def _convert(truth: RandomSet, source: Sets, layout: str, target: Path) -> Trip:
    lines = WRITERS[layout](source, target / layout, True)
    told = [ast.literal_eval(line.partition("data.classes: ")[2]) for line in lines if "data.classes: " in line]
    there = opened(target / layout, source, told[0] if told else None)
    faults = [("reads without errors", line) for line in WRITERS["coco"](there, target / "back", True)]
    back = read_set(target / "back")
    known = {finding.issue for dataset in source.values() for finding in dataset.report.findings()}
    known.add(DataIssue.RELATIVE)  # a guess, wrong where images have a few pixels
    for dataset in there.values():
        for finding in dataset.report.findings():
            if finding.issue.severity == Severity.ERROR and finding.issue not in known:
                faults.append(("reads without errors", finding.line))
    comparison = _Comparison(layout, truth, source, back, target / "back")
    comparison.compare(lines)
    return Trip(layout, (*faults, *comparison.faults), there, back)


class _Comparison:
    """Of a set with what came back: what is not as the table says."""

    def __init__(self, layout: str, truth: RandomSet, source: Sets, back: RandomSet, root: Path) -> None:
        self._layout, self._truth, self._source, self._back, self._root = layout, truth, source, back, root
        self._cells = {name: row[FORMATS.index(layout)] for name, row in TABLE.items()}
        self.faults = list[tuple[str, str]]()
        self._lost = Counter[str]()  # how often each line should count

    def _expect(self, name: str, right: bool, what: object = "") -> None:
        if not right:
            self.faults.append((name, f"{self._layout}: {what}"))

    def _lose(self, name: str, number: int = 1) -> None:
        """Something of a property has been lost: right if the layout lists it."""
        cell = self._cells[name]
        self._expect(name, cell not in "=~" or not number, f"{number} lost")
        self._lost[cell] += number

    def compare(self, lines: Sequence[str]) -> None:
        """``lines``: what the writer lists as lost."""
        self._expect("several splits", self._back.splits.keys() == self._truth.splits.keys(), self._back.splits.keys())
        self._of_classes()
        for split in self._truth.splits.keys() & self._back.splits.keys():
            self._of_split(split)
        listed = Counter[str]()
        for line in lines:
            cell = next((c for c in self._cells.values() if c not in "=~" and re.match(c.lstrip("~"), line)), None)
            self._expect("several splits" if cell is None else self._name(cell), cell is not None, line)
            match = re.match(cell.lstrip("~"), line) if cell else None
            if cell and match:
                listed[cell] += int(match[1]) if match.groups() else 1
        for cell in dict.fromkeys([*self._lost, *listed]):
            if cell not in "=~":
                self._expect(self._name(cell), listed[cell] == self._lost[cell], (cell, listed[cell], self._lost[cell]))

    def _name(self, cell: str) -> str:
        return next(name for name, own in self._cells.items() if own == cell)

    def _of_classes(self) -> None:
        truth, back = self._truth.classes, self._back.classes
        names, found = [name for _, name in truth], [name for _, name in back]
        if self._layout == "voc":
            self._lose("class names, spaces around", sum(name != name.strip() for name in names))
            names = [name.strip() for name in names]
            first = next(iter(self._truth.splits.values()))
            used = {names[thing.label] for picture in first for thing in picture.things}
            self._lose("classes out of order or unused", names != sorted(used))
        self._expect("class names", found == names, (found, names))
        self._lose("class ids", sum(a[0] != b[0] for a, b in zip(truth, back, strict=False)))

    def _of_split(self, split: str) -> None:
        """Images are known by the file that their links lead to."""
        source, pictures = self._source[split], self._truth.splits[split]
        back = {(self._root / split / p.path).resolve(): p for p in self._back.splits[split]}
        own = [source.path(index).resolve() for index in range(len(source))]
        self._expect("image names", set(own) == back.keys() and len(own) == len(pictures), sorted(back))
        folders = [picture.path.split("/")[:-1] for picture in pictures]
        shared = "images/" if all(folder[:1] == ["images"] for folder in folders) else ""  # of all, so it says nothing
        for path, picture in zip(own, pictures, strict=True):
            if path in back:
                self._of_picture(picture, back[path], picture.path.removeprefix(shared))

    def _of_picture(self, truth: Picture, back: Picture, inside: str) -> None:
        (folder, _, name), (folder_back, _, name_back) = inside.rpartition("/"), back.path.rpartition("/")
        self._lose("image names, same stem", name != name_back)
        self._lose("sub-folders", folder != folder_back)
        self._lose("image ids", truth.id != back.id)
        self._expect("image names", truth.hw == back.hw, (truth.hw, back.hw))
        things = [thing for thing in truth.things if not (self._layout == "yolo" and thing.crowd)]
        self._lost[self._cells["crowd"]] += len(truth.things) - len(things)
        rows = "images without objects" if not truth.things else "box, whole pixels"
        self._expect(rows, len(things) == len(back.things), (things, back.things))
        for thing, found in zip(things, back.things, strict=False):
            self._of_thing(thing, found, truth.hw)

    def _of_thing(self, truth: Thing, found: Thing, hw: tuple[int, int]) -> None:
        rows = properties_of(truth, hw, self._layout)
        lost = {row for row in rows if self._cells[row] not in "=~"}
        for cell in {self._cells[row] for row in lost}:
            self._lost[cell] += 1
        gone = {row for row in lost if self._cells[row][0] != "~"}
        self._expect("class names", truth.label == found.label, (truth, found))
        self._expect("truncated", "truncated" in gone or truth.truncated == found.truncated)
        self._expect("crowd", found.crowd == (truth.crowd and "crowd" not in gone), (truth, found))
        difficult = truth.difficult or (self._layout == "voc" and truth.crowd)
        self._expect("difficult or ignore", found.difficult == (difficult and "difficult or ignore" not in gone))
        row = next((row for row in rows if row.startswith(("one", "several", "run"))), "box, whole pixels")
        self._expect(row, self._same_outline(truth, found, gone, hw), (truth, found))
        if not gone & {"box thinner than a pixel", "run lengths, holes or pieces"}:
            expected = truth.box
            if self._layout in ("yolo", "labelme", "cvat") and is_usable(truth.outline, hw):
                expected = bounds_of(truth.outline, hw)
            if "beyond the image" in gone:
                x, y = np.clip(expected[::2], 0, hw[1]).tolist(), np.clip(expected[1::2], 0, hw[0]).tolist()
                expected = x[0], y[0], x[1], y[1]
            limit = 1e-3 if "box, over 3 digits" in rows else 1e-8
            right = np.abs(np.subtract(expected, found.box)).max() < limit
            self._expect(
                "box, whole pixels" if "box, whole pixels" in rows else "box, fractions", right, (truth, found)
            )
        beside = {"crowd", "difficult or ignore", "truncated", "box unlike outline", "run lengths, no pixel"}
        if not gone - beside and not (self._layout == "voc" and truth.outline is not None):
            same = found.area == truth.area if self._layout == "coco" else self._same_area(truth, found, hw)
            self._expect("area unlike outline or box", same, (truth, found))

    def _same_area(self, truth: Thing, found: Thing, hw: tuple[int, int]) -> bool:
        own = area_of(truth.box, truth.outline, hw) if truth.area is None else truth.area
        return found.area is not None and abs(found.area - own) <= max(1, 0.01 * own) + 1e-6

    def _same_outline(self, truth: Thing, found: Thing, gone: set[str], hw: tuple[int, int]) -> bool:
        one, other = truth.outline, found.outline
        if self._layout == "coco" or one is None:
            return bool(one == other)
        if self._layout == "voc" or "run lengths, no pixel" in gone:
            return other is None
        if self._layout in ("labelme", "cvat"):
            return bool(one == other) if isinstance(one, list) else region_counts(one, hw) == region_counts(other, hw)
        if isinstance(one, dict):  # YOLO: a polygon along the edges of its pixels
            return "run lengths, holes or pieces" in gone or region_counts(one, hw) == region_counts(other, hw)
        numbers = [np.clip(np.reshape(polygon, (-1, 2)), 0, [hw[1], hw[0]]) for polygon in one]
        if len(one) == 1:
            return len(other[0]) == len(one[0]) and np.abs(numbers[0].ravel() - other[0]).max() < 1e-8
        line = np.reshape(other[0], (-1, 2))
        return all(np.abs(line - corner).max(axis=1).min() < 1e-8 for part in numbers for corner in part)


# The table


def present(truth: RandomSet, layout: str) -> set[str]:
    """The rows of the table that a set belongs to."""
    pictures = [picture for own in truth.splits.values() for picture in own]
    found = set().union(*(properties_of(t, picture.hw, layout) for picture in pictures for t in picture.things))
    names, ids = [name for _, name in truth.classes], [number for number, _ in truth.classes]
    first = next(iter(truth.splits.values()))
    used = {names[thing.label] for picture in first for thing in picture.things}
    stems = [
        Counter(picture.path.rpartition("/")[2].rpartition(".")[0] for picture in own) for own in truth.splits.values()
    ]
    of_set = {
        "image names": True,
        "image names, same stem": any(number > 1 for counts in stems for number in counts.values()),
        "sub-folders": any("/" in picture.path for picture in pictures),
        "image ids": any([p.id for p in own] != list(range(1, len(own) + 1)) for own in truth.splits.values()),
        "images without objects": any(not picture.things for picture in pictures),
        "class names": True,
        "class names, spaces around": any(name != name.strip() for name in names),
        "class ids": ids != list(range(1, len(ids) + 1)),
        "classes out of order or unused": names != sorted(used),
        "several splits": len(truth.splits) > 1,
        "reads without errors": True,
    }
    return found | {name for name, has in of_set.items() if has}


def table(cases: Mapping[tuple[str, str], int], failures: Mapping[tuple[str, str], int]) -> str:
    """Formats × properties in Markdown: what is held, the sets that have the property, and the failures."""
    lines = [" | ".join(["property", *FORMATS]), " | ".join(["---"] * (1 + len(FORMATS)))]
    for name, row in TABLE.items():
        words = {"=": "exactly", "~": "0.001 px"}
        cells = [
            f"{words.get(cell, 'rounded, listed' if cell[0] == '~' else 'lost, listed')} "
            f"{cases.get((layout, name), 0)}/{failures.get((layout, name), 0)}"
            for layout, cell in zip(FORMATS, row, strict=True)
        ]
        lines.append(" | ".join([name, *cells]))
    return "\n".join(f"| {line} |" for line in lines)


def try_trips(truth: RandomSet, pairs: Iterable[tuple[str, str]] = ()) -> dict[str, Trip]:
    """Convert a set to each layout and back; of ``pairs`` of layouts what the first has held to the second, too."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None) as folder:
        root = Path(folder)
        truth.write(root / "source")
        source = opened(root / "source", truth.splits)
        trips = {layout: convert(truth, source, layout, root / layout) for layout in FORMATS}
        for one, other in pairs:
            if (first := trips[one]).there:
                name = f"{one} to {other}"
                trips[name] = convert(first.back, first.there, other, root / name)
        return trips


def main() -> None:
    """Try random sets, and print formats × properties: sets that have the property, and failures."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pairs", action="store_true", help="from each format to each other one, too")
    arguments = parser.parse_args()
    cases, failures, trips = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[str]()

    @seed(arguments.seed)
    @settings(
        max_examples=arguments.cases,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(random_sets())
    def one(truth: RandomSet) -> None:
        for name, trip in try_trips(truth, PAIRS if arguments.pairs else ()).items():
            trips[name] += 1
            if name in FORMATS:
                cases.update((trip.layout, row) for row in present(truth, trip.layout))
            for row in {fault[0] for fault in trip.faults}:
                failures[trip.layout, row] += 1
            for fault in trip.faults:
                print(f"FAILURE: {name}: {fault}", file=sys.stderr)

    one()
    print(table(cases, failures))
    print(", ".join(f"{name} {number}" for name, number in trips.items()))
    print(f"{sum(trips.values())} round trips of {arguments.cases} random sets, {sum(failures.values())} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
