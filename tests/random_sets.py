"""Random data sets of a few tiny images, as COCO JSON states them, with everything that COCO can hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from PIL import Image

from detseg.data.annotations.model import region_counts
from detseg.ops.masks import decode_mask, encode_mask, run_lengths

SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")


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
    if is_usable(outline, hw) and draw(st.booleans()):
        box = bounds_of(outline, hw)
    label, flag = draw(st.integers(0, num_classes - 1)), st.sampled_from([False, False, False, True])
    crowd, ignore, cut = draw(flag), draw(flag), draw(flag)
    area: float | None = area_of(box, outline, hw)
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


def pixels(outline: Any, hw: tuple[int, int]) -> Any:
    return decode_mask(region_counts(outline, hw), hw).astype(np.uint8)


def is_usable(outline: Any, hw: tuple[int, int]) -> bool:
    return isinstance(outline, list) or (outline is not None and bool(pixels(outline, hw).any()))


def bounds_of(outline: Any, hw: tuple[int, int]) -> tuple[float, float, float, float]:
    if isinstance(outline, list):
        x, y = [v for polygon in outline for v in polygon[::2]], [v for polygon in outline for v in polygon[1::2]]
        return min(x), min(y), max(x), max(y)
    rows, columns = np.nonzero(pixels(outline, hw))
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)


def area_of(box: Sequence[float], outline: Any, hw: tuple[int, int]) -> float:
    if isinstance(outline, list):
        corners = [np.reshape(polygon, (-1, 2)) for polygon in outline]
        return float(sum(abs(np.sum(_cross(c, np.roll(c, -1, axis=0)))) / 2 for c in corners))
    if is_usable(outline, hw):
        return float(pixels(outline, hw).sum())
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def _cross(a: Any, b: Any) -> Any:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def is_beyond(thing: Thing, hw: tuple[int, int]) -> bool:
    """Whether centre and sides, of polygons a corner, are no fractions of the image."""
    if isinstance(thing.outline, list):
        bounds = bounds_of(thing.outline, hw)
        return min(bounds) < 0 or bounds[2] > hw[1] or bounds[3] > hw[0]
    if is_usable(thing.outline, hw):
        return False
    x1, y1, x2, y2 = thing.box
    values = [((x1 + x2) / 2, hw[1]), ((y1 + y2) / 2, hw[0]), (x2 - x1, hw[1]), (y2 - y1, hw[0])]
    return any(not 0 <= value / side <= 1 for value, side in values)


def _is_clear(thing: Thing, hw: tuple[int, int]) -> bool:
    """Whether rounding decides nothing: whether a box is its outline's, an area its own, a centre inside."""
    usable, (x1, y1, x2, y2) = is_usable(thing.outline, hw), thing.box
    bounds = bounds_of(thing.outline, hw) if usable else thing.box
    gap = max(abs(a - b) for a, b in zip(thing.box, bounds, strict=True))
    area = area_of(bounds, thing.outline if usable else None, hw)
    edges = [x1 + x2, y1 + y2, x1 + x2 - 2 * hw[1], y1 + y2 - 2 * hw[0]]
    return (
        abs(gap - 1e-3) > 1e-9
        and (thing.area is None or abs(abs(thing.area - area) - 1) > 1e-6)
        and all(abs(edge) > 1e-9 or edge == 0 for edge in edges)
    )


def has_holes(outline: Any, hw: tuple[int, int]) -> bool:
    mask = pixels(outline, hw)
    return cv2.connectedComponents(mask, connectivity=8)[0] > 2 or (
        cv2.connectedComponents(np.pad(1 - mask, 1, constant_values=1), connectivity=4)[0] > 2
    )
