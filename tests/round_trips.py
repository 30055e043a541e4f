"""Random data sets through `detseg convert`'s writers and readers: COCO → a format → COCO, and what the way holds.

`TABLE` says what each format holds of each property. ``python -m tests.round_trips --cases 2000`` tries it on random
sets, and prints it with the number of cases of each property and of failures.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from detseg.config.schema.data import AutoConfig
from detseg.data.annotations.issues import DataIssue, DataReport, Severity
from detseg.data.annotations.model import region_counts
from detseg.data.build import open_split, resolve_layout
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.convert import WRITERS
from detseg.errors import DataError
from detseg.ops.masks import decode_mask, encode_mask, run_lengths

FORMATS = ("coco", "voc", "yolo", "labelme", "cvat")
_MEMORY = "/dev/shm"  # where folders are removed faster
PAIRS = tuple((one, other) for one in FORMATS for other in FORMATS if one != other)
SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")

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


@dataclass(frozen=True)
class Thing:
    """An object, as its COCO file states it."""

    label: int
    box: tuple[float, float, float, float]
    crowd: bool
    difficult: bool
    truncated: bool
    area: float | None  # None: that of the outline
    outline: Any = None


@dataclass(frozen=True)
class Picture:
    id: int
    path: str  # in the folder of its split
    hw: tuple[int, int]
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class RandomSet:
    """A data set that COCO holds whole."""

    classes: tuple[tuple[int, str], ...]  # ids, which ascend, and names
    splits: Mapping[str, tuple[Picture, ...]]

    def write(self, root: Path) -> None:
        """Write it as COCO JSON with images, each of which has other pixels."""
        categories = [{"id": number, "name": name} for number, name in self.classes]
        (root / "annotations").mkdir(parents=True)
        grey = 0
        for split, pictures in self.splits.items():
            content: dict[str, Any] = {"images": [], "annotations": [], "categories": categories}
            for picture in pictures:
                grey, (height, width), path = grey + 1, picture.hw, root / split / picture.path
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (width, height), grey).save(path)
                image = {"id": picture.id, "file_name": picture.path, "height": height, "width": width}
                content["images"].append(image)
                for thing in picture.things:
                    entry = {"id": len(content["annotations"]) + 1, "image_id": picture.id}
                    content["annotations"].append(entry | self._entry(thing))
            (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))

    def _entry(self, thing: Thing) -> dict[str, Any]:
        x1, y1, x2, y2 = thing.box
        entry = {"category_id": self.classes[thing.label][0], "bbox": [x1, y1, x2 - x1, y2 - y1]}
        entry |= {"iscrowd": int(thing.crowd), "ignore": int(thing.difficult), "truncated": int(thing.truncated)}
        entry |= {} if thing.area is None else {"area": thing.area}
        return entry | ({} if thing.outline is None else {"segmentation": thing.outline})


def read_set(root: Path) -> RandomSet:
    """What ``annotations/instances_SPLIT.json`` state, by the JSON alone."""
    splits, classes = dict[str, tuple[Picture, ...]](), tuple[tuple[int, str], ...]()
    for split in SPLITS:
        if not (file := root / "annotations" / f"instances_{split}.json").exists():
            continue
        content = json.loads(file.read_text())
        classes = tuple(sorted((entry["id"], entry["name"]) for entry in content["categories"]))
        label_of = {number: label for label, (number, _) in enumerate(classes)}
        found: dict[int, list[Thing]] = {image["id"]: [] for image in content["images"]}
        for entry in content["annotations"]:
            x, y, w, h = entry["bbox"]
            crowd, ignore, cut = (bool(entry.get(key)) for key in ("iscrowd", "ignore", "truncated"))
            label, box = label_of[entry["category_id"]], (x, y, x + w, y + h)
            thing = Thing(label, box, crowd, ignore, cut, entry.get("area"), entry.get("segmentation") or None)
            found[entry["image_id"]].append(thing)
        splits[split] = tuple(
            Picture(image["id"], image["file_name"], (image["height"], image["width"]), tuple(found[image["id"]]))
            for image in content["images"]
        )
    return RandomSet(classes, splits)


# Random sets


def _coordinate(side: int) -> st.SearchStrategy[float]:
    near = st.floats(-1, side + 1).map(lambda value: round(value, 6) + 0.0)
    inside = st.floats(0, side).map(lambda value: round(value, 6))
    return st.integers(0, side).map(float) | st.integers(0, 8 * side).map(lambda eighth: eighth / 8) | inside | near


def _span(side: int) -> st.SearchStrategy[tuple[float, float]]:
    pairs = st.tuples(_coordinate(side), _coordinate(side))
    return pairs.map(lambda pair: (min(pair), min(pair) + round(max(pair) - min(pair), 6)))


@st.composite
def _outlines(draw: st.DrawFn, hw: tuple[int, int]) -> Any:
    kind, (height, width) = draw(st.sampled_from(["none", "polygons", "mask", "block"])), hw
    if kind == "none":
        return None
    if kind == "polygons":
        corner = st.tuples(_coordinate(width), _coordinate(height))
        polygon = st.lists(corner, min_size=3, max_size=5).map(lambda corners: [v for xy in corners for v in xy])
        return draw(st.lists(polygon, min_size=1, max_size=3))
    mask = np.zeros(hw, dtype=np.bool_)
    if kind == "mask":  # holes, pieces, or nothing at all
        mask.flat[draw(st.lists(st.integers(0, height * width - 1), max_size=12))] = True
    else:
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        mask[top : top + draw(st.integers(1, height)), left : left + draw(st.integers(1, width))] = True
    counts = encode_mask(mask)
    as_list = draw(st.booleans())
    return {"size": list(hw), "counts": run_lengths(counts).tolist() if as_list else counts.decode()}


@st.composite
def _things(draw: st.DrawFn, num_classes: int, hw: tuple[int, int]) -> Thing:
    outline = draw(_outlines(hw))
    x, y = draw(_span(hw[1])), draw(_span(hw[0]))
    box = (x[0], y[0], x[1], y[1])
    if _usable(outline, hw) and draw(st.booleans()):
        box = _bounds(outline, hw)
    label, flag = draw(st.integers(0, num_classes - 1)), st.sampled_from([False, False, False, True])
    crowd, ignore, cut = draw(flag), draw(flag), draw(flag)
    area: float | None = _own_area(box, outline, hw)
    match draw(st.sampled_from(["own", "own", "other", "none"])):
        case "other":
            area = area + draw(st.integers(2, 50)) if area is not None else None
        case "none" if outline is not None:
            area = None
    thing = Thing(label, box, crowd, ignore, cut, area, outline)
    assume(_is_clear(thing, hw))
    return thing


_NAME = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=6).filter(str.strip)
_ODD_NAMES = [
    "no",
    "1",
    "~",
    "null",
    "a b",
    " a",
    "a ",
    "# x",
    "background",
    "a: b",
    "x, y",
    "é日本",
    "e\u0301",
    "'\"<&>",
]
_STEMS = ["a", "b", "b c", "é日本", "e\u0301", "#1", "a.b", "a 1", "a_png", " a ", "'&"]
_FOLDERS = ["", "", "sub/", "sub/x y/", "images/", "images/sub/"]


@st.composite
def random_sets(draw: st.DrawFn) -> RandomSet:
    """Sets of one to three splits of up to three images, with all the properties of the table."""
    names = draw(st.lists(_NAME | st.sampled_from(_ODD_NAMES), min_size=1, max_size=3, unique_by=str.strip))
    numbers = st.integers(1, 4) | st.integers(0, 2**40)
    ids = sorted(draw(st.lists(numbers, min_size=len(names), max_size=len(names), unique=True)))
    if draw(st.booleans()):
        ids = list(range(1, len(names) + 1))
    paths = st.builds("{}{}{}".format, *map(st.sampled_from, (_FOLDERS, _STEMS, [".png", ".bmp"])))
    splits = dict[str, tuple[Picture, ...]]()
    for split in draw(st.sampled_from([SPLITS[:1], SPLITS[:2], SPLITS, ("train", "test")])):
        own = draw(st.lists(paths, min_size=1, max_size=3, unique=True))
        image_ids = draw(st.lists(numbers, min_size=len(own), max_size=len(own), unique=True))
        if draw(st.booleans()):
            image_ids, own = list(range(1, len(own) + 1)), sorted(own)
        pictures = []
        for number, path in zip(image_ids, own, strict=True):
            hw = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
            things = [draw(_things(len(names), hw)) for _ in range(draw(st.integers(0, 3)))]
            pictures.append(Picture(number, path, hw, tuple(things)))
        splits[split] = tuple(pictures)
    return RandomSet(tuple(zip(ids, names, strict=True)), splits)


# What an object has


def _mask(outline: Any, hw: tuple[int, int]) -> Any:
    return decode_mask(region_counts(outline, hw), hw).astype(np.uint8)


def _usable(outline: Any, hw: tuple[int, int]) -> bool:
    return isinstance(outline, list) or (outline is not None and bool(_mask(outline, hw).any()))


def _bounds(outline: Any, hw: tuple[int, int]) -> tuple[float, float, float, float]:
    if isinstance(outline, list):
        x, y = [v for polygon in outline for v in polygon[::2]], [v for polygon in outline for v in polygon[1::2]]
        return min(x), min(y), max(x), max(y)
    rows, columns = np.nonzero(_mask(outline, hw))
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)


def _own_area(box: Sequence[float], outline: Any, hw: tuple[int, int]) -> float:
    if isinstance(outline, list):
        corners = [np.reshape(polygon, (-1, 2)) for polygon in outline]
        return float(sum(abs(np.sum(_cross(c, np.roll(c, -1, axis=0)))) / 2 for c in corners))
    if _usable(outline, hw):
        return float(_mask(outline, hw).sum())
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def _cross(a: Any, b: Any) -> Any:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _is_beyond(thing: Thing, hw: tuple[int, int]) -> bool:
    """Whether centre and sides, of polygons a corner, are no fractions of the image."""
    if isinstance(thing.outline, list):
        bounds = _bounds(thing.outline, hw)
        return min(bounds) < 0 or bounds[2] > hw[1] or bounds[3] > hw[0]
    if _usable(thing.outline, hw):
        return False
    x1, y1, x2, y2 = thing.box
    values = [((x1 + x2) / 2, hw[1]), ((y1 + y2) / 2, hw[0]), (x2 - x1, hw[1]), (y2 - y1, hw[0])]
    return any(not 0 <= value / side <= 1 for value, side in values)


def _is_clear(thing: Thing, hw: tuple[int, int]) -> bool:
    """Whether rounding decides nothing: whether a box is its outline's, an area its own, a centre inside."""
    usable, (x1, y1, x2, y2) = _usable(thing.outline, hw), thing.box
    bounds = _bounds(thing.outline, hw) if usable else thing.box
    gap = max(abs(a - b) for a, b in zip(thing.box, bounds, strict=True))
    area = _own_area(bounds, thing.outline if usable else None, hw)
    edges = [x1 + x2, y1 + y2, x1 + x2 - 2 * hw[1], y1 + y2 - 2 * hw[0]]
    return (
        abs(gap - 1e-3) > 1e-9
        and (thing.area is None or abs(abs(thing.area - area) - 1) > 1e-6)
        and all(abs(edge) > 1e-9 or edge == 0 for edge in edges)
    )


def _has_holes(outline: Any, hw: tuple[int, int]) -> bool:
    mask = _mask(outline, hw)
    return cv2.connectedComponents(mask, connectivity=8)[0] > 2 or (
        cv2.connectedComponents(np.pad(1 - mask, 1, constant_values=1), connectivity=4)[0] > 2
    )


def properties_of(thing: Thing, hw: tuple[int, int], layout: str) -> set[str]:
    """The rows of the table that an object belongs to."""
    box, outline, usable = thing.box, thing.outline, _usable(thing.outline, hw)
    whole = all(value == int(value) for value in box)
    found = {
        "crowd": thing.crowd,
        "difficult or ignore": thing.difficult,
        "truncated": thing.truncated,
        "box, whole pixels": whole,
        "box, fractions": not whole,
        "box, over 3 digits": any(abs(value - round(value, 3)) > 1e-9 for value in box),
        "box thinner than a pixel": min(box[2] - box[0], box[3] - box[1]) < 1 - 1e-9,
        "beyond the image": _is_beyond(thing, hw),
        "one polygon": isinstance(outline, list) and len(outline) == 1,
        "several polygons": isinstance(outline, list) and len(outline) > 1,
        "run lengths, no pixel": outline is not None and not usable,
    }
    if usable:
        gap = max(abs(a - b) for a, b in zip(box, _bounds(outline, hw), strict=True))
        found["box unlike outline"] = gap > 1e-3
        if isinstance(outline, dict):
            found["run lengths, holes or pieces"] = _has_holes(outline, hw)
            found["run lengths, one piece"] = not _has_holes(outline, hw)
    if thing.area is not None and not (layout == "voc" and outline is not None):
        own = _own_area(_bounds(outline, hw) if usable else box, outline if usable else None, hw)
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
    lost = WRITERS["coco"](there, target / "back", True)
    assert lost == [], lost
    back, faults = read_set(target / "back"), list[tuple[str, str]]()
    known = {finding.issue for dataset in source.values() for finding in dataset.report.findings()}
    known.add(DataIssue.RELATIVE)  # a guess, wrong where images have a few pixels
    for dataset in there.values():
        for finding in dataset.report.findings():
            if finding.issue.severity == Severity.ERROR and finding.issue not in known:
                faults.append(("reads without errors", finding.line))
    faults += _Comparison(truth, source, layout, there, back, lines, target / "back").faults()
    return Trip(layout, tuple(faults), there, back)


class _Comparison:
    """Of a set with what came back: what is not as the table says."""

    def __init__(
        self,
        truth: RandomSet,
        source: Sets,
        layout: str,
        there: Sets,
        back: RandomSet,
        lines: Sequence[str],
        root: Path,
    ) -> None:
        self._truth, self._source, self._layout, self._back, self._root = truth, source, layout, back, root
        self._there, self._lines = there, lines
        self._cells = {name: row[FORMATS.index(layout)] for name, row in TABLE.items()}
        self._faults = list[tuple[str, str]]()
        self._lost = Counter[str]()  # how often each line should count
        self._of_set()

    def faults(self) -> list[tuple[str, str]]:
        return self._faults

    def _expect(self, name: str, right: bool, what: object = "") -> None:
        if not right:
            self._faults.append((name, f"{self._layout}: {what}"))

    def _lose(self, name: str, number: int = 1) -> None:
        """Something of a property has been lost: right if the layout lists it."""
        cell = self._cells[name]
        self._expect(name, cell not in "=~" or not number, f"{number} lost")
        self._lost[cell] += number

    def _of_set(self) -> None:
        self._expect("several splits", self._back.splits.keys() == self._truth.splits.keys(), self._back.splits.keys())
        self._of_classes()
        for split in self._truth.splits.keys() & self._back.splits.keys():
            self._of_split(split)
        listed = Counter[str]()
        for line in self._lines:
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
        self._expect("images without objects", truth.hw == back.hw, (truth.hw, back.hw))
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
            if self._layout in ("yolo", "labelme", "cvat") and _usable(truth.outline, hw):
                expected = _bounds(truth.outline, hw)
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
        own = _own_area(truth.box, truth.outline, hw) if truth.area is None else truth.area
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
    parser.add_argument("--pairs", action="store_true", help="from each format to each other one, too")
    arguments = parser.parse_args()
    cases, failures, trips = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[str]()

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
